"""Makes the builders of `tests/prm` and `tests/scoring` importable. Property tests here run few examples, without a
deadline: they share the machine with trainings."""

from __future__ import annotations

import sys
from pathlib import Path

from hypothesis import settings

for sibling in ("prm", "scoring"):
    sys.path.append(str(Path(__file__).parents[1] / sibling))  # tiny.py, tiny_native.py

settings.register_profile("rl", max_examples=40, deadline=None)
settings.load_profile("rl")
