"""What N samples of a small local policy buy, N from 1 to 16: GSM8K test, SVAMP, and tasks of reasoning-gym.

    python recipes/live_search/gym.py -o gym
    python -m recipes.live_search.run --problems DATA/problems --gym gym -o live --each 50

Samples, scores and reports are kept, so a run that was killed goes on. In `live`: for each task NAME.json, NAME.md,
NAME.svg, NAME.html, the candidates and the scored candidates; then results.md and results.json with all of them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from recipes.selection_results.choosing import write_chosen
from recipes.selection_results.run import evaluated, write_results

BENCHMARKS = {"gsm8k": "gsm8k_test.jsonl", "svamp": "svamp.jsonl"}


def main(argv: Sequence[str] | None = None) -> None:
    """Sample, score and evaluate every task, and write the table after each."""
    args = _arguments(argv)
    args.output.mkdir(parents=True, exist_ok=True)
    policy = _policy(args.policy)
    reports: dict[str, Any] = {}
    for name, task, file in _sets(args):
        problems = args.output / f"{name}.problems.jsonl"
        n = write_chosen(file, problems, most=args.each)
        print(f"{name}: {n:,} problems", file=sys.stderr, flush=True)
        flags = ["--policy", policy, "--problems", str(problems), "--prm", args.prm, "--n", str(args.n)]
        flags += ["--max-tokens", str(args.max_tokens), "--temperature", str(args.temperature)]
        flags += ["--top-p", str(args.top_p), "--seed", str(args.seed)]
        flags += ["--cache", str(args.output / "completions.sqlite")]
        reports[name] = evaluated(task, args.output / name, flags)
        what = f"temperature {args.temperature:g}, top-p {args.top_p:g}, at most {args.max_tokens} tokens"
        head = f"{args.n} samples a problem of `{args.policy or 'SmolLM2-135M-Instruct'}` ({what}); PRM `{args.prm}`."
        write_results(args.output, reports, head)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=Path, help=f"folder with {' and '.join(BENCHMARKS.values())}")
    parser.add_argument("--gym", type=Path, help="folder that gym.py wrote; or other files of id, problem, answer")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--policy", help="a folder, or as --policy of evaluate; default the plain small model")
    parser.add_argument("--prm", default="embedded")
    parser.add_argument("--tasks", nargs="+", help="only these, by name")
    parser.add_argument("--each", type=int, default=50, help="problems of each task, at most")
    parser.add_argument("--n", type=int, default=16, help="samples of each problem")
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--top-p", type=float, default=0.95)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    if args.problems is None and args.gym is None:
        parser.error("name --problems, --gym, or both")
    return args


def _sets(args: argparse.Namespace) -> Iterator[tuple[str, str, Path]]:
    """Yield name, task and file of what is to be evaluated."""
    found = [(name, name, args.problems / file) for name, file in BENCHMARKS.items()] if args.problems else []
    found += [(file.stem, "custom", file) for file in sorted(args.gym.glob("*.jsonl"))] if args.gym else []
    if unknown := sorted(set(args.tasks or ()) - {name for name, _, _ in found}):
        raise SystemExit(f"there is no task {unknown[0]}; there are {', '.join(name for name, _, _ in found)}")
    yield from (one for one in found if not args.tasks or one[0] in args.tasks)


def _policy(named: str | None) -> str:
    if named is None:
        from reasonflux_prm.prm.embedded.install import ensure_base

        return f"local:{ensure_base()}"
    return f"local:{named}" if Path(named).is_dir() else named


if __name__ == "__main__":
    main()
