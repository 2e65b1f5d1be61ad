"""Put a calibration into an adapter file: what the package ships is the adapter with its maps.

reasonflux-prm score HELD.jsonl -o scored.jsonl --steps given
reasonflux-prm calibrate scored.jsonl -o maps.json
python -m recipes.prm_135m.ship adapter.safetensors maps.json -o reasonflux_prm/prm/embedded/adapter.safetensors
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

from reasonflux_prm.prm.calibration import Calibration
from reasonflux_prm.prm.embedded.adapter import load_adapter, save_adapter


def main() -> None:
    """Parse the command line and write the adapter."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("adapter", type=Path)
    parser.add_argument("maps", type=Path, help="what `reasonflux-prm calibrate ... -o maps.json` wrote")
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    adapter = load_adapter(args.adapter)
    calibration = Calibration.from_json(json.loads(args.maps.read_text("utf-8"))["calibration"], str(args.maps))
    save_adapter(args.output, replace(adapter, prm={**adapter.prm, "calibration": calibration.to_json()}))


if __name__ == "__main__":
    main()
