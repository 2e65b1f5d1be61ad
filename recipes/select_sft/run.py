"""Does a student learn more from traces that a PRM chose? From GSM8K train to a table and a curve, in one command.

    python -m recipes.select_sft.run --size gpu --data PROBLEMS -o out --samples CANDIDATES.jsonl --parallel 4

PROBLEMS is a folder with gsm8k_train.jsonl, gsm8k_test.jsonl and svamp.jsonl (id, problem, answer; train also
solution). Every stage leaves its output in `out` and is skipped if that is there, so a run that was killed goes on:
pool.jsonl, scored.jsonl, selected/, results/, results.md, curve-*.svg.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain
from pathlib import Path
from typing import Any

from reasonflux_prm.policy.cache import CachedPolicy
from reasonflux_prm.policy.memory import free_memory
from reasonflux_prm.policy.open import open_policy
from reasonflux_prm.prm.embedded.install import ensure_base
from reasonflux_prm.traces.write import atomic_path
from recipes.select_sft import tables
from recipes.select_sft.jobs import all_jobs, run_jobs, selections
from recipes.select_sft.pool import answered_only, problems, read_samples, sampled, write_pool, written
from recipes.select_sft.sizes import SIZES, Size
from recipes.select_sft.work import Job, Setup, begin, command_or_stop, end_with_parent, ready, result_file, select

SELECTING = 8
"""Selections that are made at once; each reads the whole pool on one core."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run every stage that is not done yet."""
    began = time.monotonic()
    args = _arguments(argv)
    size, out = SIZES[args.size], args.output
    out.mkdir(parents=True, exist_ok=True)
    student = args.student or ensure_base()
    _once(out / "run.json", _about(args, student))
    setup = Setup(out, args.data, student, size, args.seed, args.backend, args.keep_students, args.parallel)
    jobs = [job for job in all_jobs(size) if not result_file(out, job).exists()]
    deadline = None if args.stop_after is None else began + args.stop_after
    left, failed = list[Job](), dict[Job, str]()
    try:
        if jobs:
            left, failed = _all(args, setup, jobs, deadline)
    except BrokenProcessPool as broken:
        raise SystemExit(f"a process ended ({broken}); the same command goes on with what is not done") from broken
    finally:
        print(tables.write(out))
    for job, why in failed.items():
        print(f"{job.name} failed: {why}")
    print(f"{time.monotonic() - began:.0f} s; {len(left)} of {len(jobs)} students not begun, {len(failed)} failed")
    if failed:
        raise SystemExit(1)


def _all(
    args: argparse.Namespace, setup: Setup, jobs: Sequence[Job], deadline: float | None
) -> tuple[list[Job], dict[Job, str]]:
    """Make the pool, score it, select, train and evaluate; processes get ready while the pool is made."""
    spawn = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(setup.parallel, spawn, begin, (setup,)) as trainers,
        ProcessPoolExecutor(SELECTING, spawn, end_with_parent) as selectors,
    ):
        for _ in range(setup.parallel):
            trainers.submit(ready)
        _make_pool(args, setup.size, setup.output, setup.student)
        command_or_stop(
            *("score", str(setup.output / "pool.jsonl"), "-o", str(setup.output / "scored.jsonl")),
            *("--prm", args.prm, "--steps", setup.size.rule),
        )
        free_memory()
        selecting = {}
        for group in selections(jobs):
            future = selectors.submit(select, setup, group)
            selecting.update({job.selection: future for job in group})
        return run_jobs(jobs, trainers, setup.parallel, selecting, deadline)


def _about(args: argparse.Namespace, student: Path) -> dict[str, Any]:
    """Return what all results of a folder must have in common."""
    given = {name: str(path) for name, path in (("samples", args.samples), ("pool", args.pool)) if path is not None}
    made = given or {"policy": args.policy}
    return {"size": args.size, "prm": args.prm, **made, "student": str(student), "seed": args.seed}


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, required=True)
    parser.add_argument("--data", type=Path, required=True, help="folder of the problems")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--prm", default="embedded", help="as `reasonflux-prm score` takes it")
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--policy", default="local", help="who samples: a policy's name, or local: the untrained student"
    )
    source.add_argument(
        "--samples",
        type=Path,
        metavar="CANDIDATES",
        help="samples of GSM8K train that are there: what `reasonflux-prm evaluate gsm8k --policy` wrote",
    )
    source.add_argument(
        "--pool", type=Path, metavar="TRACES", help="graded traces that are there, as they are the pool"
    )
    parser.add_argument("--student", type=Path, help="folder; default SmolLM2-135M-Instruct")
    parser.add_argument("--backend", choices=("local", "vllm"), default="local", help="what evaluates")
    parser.add_argument("--parallel", type=int, default=1, metavar="N", help="trainings at once, on one GPU; default 1")
    parser.add_argument(
        "--stop-after",
        type=float,
        metavar="SECONDS",
        help="begin no student later than this; the same command goes on with those left out",
    )
    parser.add_argument("--keep-students", action="store_true", help="keep the trained weights")
    parser.add_argument("--seed", type=int, default=0, help="of the pool and of the choice")
    args = parser.parse_args(argv)
    if args.pool is not None and not args.pool.is_file():
        parser.error(f"--pool expects a file of graded traces, and there is no file {args.pool}")
    if args.parallel < 1 or (args.parallel > 1 and args.backend != "local"):
        parser.error("--parallel is at least 1, and with --backend vllm no more, as that takes a GPU for itself")
    return args


def _once(path: Path, settings: dict[str, Any]) -> None:
    """Refuse to go on with a run of other settings."""
    if path.exists() and json.loads(path.read_text()) != settings:
        raise SystemExit(
            f"{path.parent} holds a run with other settings ({path.read_text().strip()}); choose another -o"
        )
    path.write_text(json.dumps(settings) + "\n", encoding="utf-8")


def _make_pool(args: argparse.Namespace, size: Size, out: Path, student: Path) -> None:
    pool = out / "pool.jsonl"
    if pool.exists():
        return
    if args.pool is not None:
        with atomic_path(pool) as part:
            shutil.copyfile(args.pool, part)
        return
    file = args.data / "gsm8k_train.jsonl"
    if args.samples is not None:
        records = answered_only(problems(file, None, args.seed), args.samples)[: size.problems]
        samples = read_samples(args.samples, records, size.samples)
        counts = write_pool(pool, chain(written(records, args.seed), samples))
    else:
        records = problems(file, size.problems, args.seed)
        policy = CachedPolicy(
            open_policy(f"local:{student}" if args.policy == "local" else args.policy), out / "completions.sqlite"
        )
        try:
            samples = sampled(policy, records, size.samples, size.max_tokens, args.seed)
            counts = write_pool(pool, chain(written(records, args.seed), samples))
        finally:
            policy.close()
    for name, (right, number) in counts.items():
        print(f"pool: {name:24} {number:7,} traces, {right / number:.1%} right", flush=True)


if __name__ == "__main__":
    main()
