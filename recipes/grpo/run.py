"""GRPO with five rewards from one student: a table like the paper's Table 3, with length, rewards and collapse.

Stages, each kept once it is done, so that the same command goes on after a kill: the student is taught its form; for
every seed and reward a policy is trained (`train.py`); every policy is tested on GSM8K test and SVAMP (`measure.py`);
`table.md` and `table.json` are written.

    python -m recipes.grpo.run GSM8K_TRAIN.jsonl GSM8K_TEST.jsonl SVAMP.jsonl -o OUT --size full
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from reasonflux_prm.evaluation.tasks import gsm8k, svamp
from reasonflux_prm.evaluation.tasks.base import load
from reasonflux_prm.prm.embedded.install import ensure_base
from recipes.grpo.measure import Graded, measure
from recipes.grpo.sizes import REWARDS, SIZES, Size
from recipes.grpo.table import Run, write_table
from recipes.grpo.train import train
from recipes.student.form import chat_rows, reference_traces
from recipes.student.sft import SFTSettings, teach


def main() -> None:
    """Run what is missing, and write the table."""
    args = _arguments()
    size = SIZES[args.size]
    output: Path = args.output
    student: Path = args.student or output / "student"
    if args.student is None:
        rows = chat_rows(reference_traces(args.train))
        print(f"student: {teach(args.base or ensure_base(), rows, student, SFTSettings(size.sft_tokens))}")
    problems = load(gsm8k.TASK, args.train, limit=size.problems)
    tests = {
        task.name: (task, load(task, source, limit=size.tests))
        for task, source in ((gsm8k.TASK, args.test), (svamp.TASK, args.svamp))
    }
    runs = [Run("before", 0, [], _tested(student, tests, size, 0))]
    for seed in range(args.seeds or size.seeds):
        for reward in args.rewards:
            folder = output / f"{reward}-{seed}"
            print(f"{reward}, seed {seed}", flush=True)
            log = train(student, problems, folder, reward, seed, size, args.prm)
            runs.append(Run(reward, seed, log, _tested(folder, tests, size, seed)))
            about = {
                "size": args.size,
                **asdict(size),
                "prm": args.prm,
                "rewards": {n: str(REWARDS[n]) for n in args.rewards},
            }
            print(write_table(runs, size, about, output), flush=True)


def _tested(policy: Path, tests: Mapping[str, Any], size: Size, seed: int) -> dict[str, Graded]:
    return {name: measure(policy, task, problems, size, seed) for name, (task, problems) in tests.items()}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path, help="GSM8K train, JSON lines with id, problem, answer, solution")
    parser.add_argument("test", type=Path, help="GSM8K test, JSON lines with id, problem, answer")
    parser.add_argument("svamp", type=Path, help="SVAMP, JSON lines with id, problem, answer")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--size", choices=tuple(SIZES), default="full")
    parser.add_argument("--base", type=Path, help="folder of the model to teach; default the embedded PRM's base")
    parser.add_argument("--student", type=Path, help="folder of a student that knows the form already")
    parser.add_argument("--prm", default="embedded", help="name, hub id, folder or address; default embedded")
    parser.add_argument("--seeds", type=int, help="default the size's")
    parser.add_argument("--rewards", type=_rewards, default=list(REWARDS), help=f"default {','.join(REWARDS)}")
    return parser.parse_args()


def _rewards(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in REWARDS]:
        raise argparse.ArgumentTypeError(f"unknown {', '.join(unknown)}; there are {', '.join(REWARDS)}")
    return names


if __name__ == "__main__":
    main()
