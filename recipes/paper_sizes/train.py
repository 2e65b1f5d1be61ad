"""Train one of the paper's sizes on labels; several processes by accelerate.

python -m recipes.paper_sizes.train 1.5b --labels labels.jsonl -o reasonflux-1.5b
accelerate launch --num_processes 4 --use_fsdp --fsdp_version 2 -m recipes.paper_sizes.train 7b --labels L -o OUT
"""

from __future__ import annotations

import argparse

from reasonflux_prm.training.run import train
from recipes.paper_sizes.settings import SIZES


def main() -> None:
    """Train, or go on where an interrupted run stopped."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("size", choices=list(SIZES))
    parser.add_argument("--labels", nargs="+", required=True, metavar="FILE")
    parser.add_argument("-o", "--output", required=True, metavar="FOLDER")
    args = parser.parse_args()
    trained = train(SIZES[args.size].config(tuple(args.labels), args.output))
    print(trained.folder)


if __name__ == "__main__":
    main()
