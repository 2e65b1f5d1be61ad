"""Problems of reasoning-gym, of several kinds, as files; runs in any environment that has reasoning-gym.

    python recipes/live_search/gym.py -o gym --size 100

One file a task: id, problem, answer. `gsm_symbolic` is no choice: its templates are problems of GSM8K's test split.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

TASKS = ("chain_sum", "basic_arithmetic", "leg_counting", "letter_counting", "gcd", "fraction_simplification")
"""Arithmetic, word problems, counting, number theory: each with one right answer, which the graders read."""


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--size", type=int, default=100, help="problems of each")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if "gsm_symbolic" in args.tasks:
        parser.error("gsm_symbolic is made of GSM8K's test problems; leave it out")

    import reasoning_gym

    args.output.mkdir(parents=True, exist_ok=True)
    for name in args.tasks:
        rows = [
            {"id": f"{name}-{number}", "problem": item["question"], "answer": str(item["answer"])}
            for number, item in enumerate(reasoning_gym.create_dataset(name, size=args.size, seed=args.seed))
        ]
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (args.output / f"{name}.jsonl").write_text(text, encoding="utf-8")
        print(f"{name}: {len(rows)} problems, such as {rows[0]['problem'][:100]!r}")


if __name__ == "__main__":
    main()
