"""GRPO with seven rewards from one student: a table like the paper's Table 3, with length, rewards and collapse.

The student is taught its form; for every seed and reward a policy is trained (`train.py`) and tested on GSM8K test and
SVAMP (`measure.py`); `table.md` and `table.json` are written whenever a run is done. Each stage is kept once it is
done, so that the same command goes on after a kill.

    python -m recipes.grpo.run GSM8K_TRAIN.jsonl GSM8K_TEST.jsonl SVAMP.jsonl -o OUT --size gpu --parallel 4
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from reasonflux_prm.evaluation.tasks import gsm8k, svamp
from reasonflux_prm.evaluation.tasks.base import Task, load
from reasonflux_prm.traces.write import atomic_path
from recipes.grpo.sizes import REWARDS, SIZES, Size
from recipes.grpo.table import write_table
from recipes.grpo.work import Job, Worker, all_jobs, done
from recipes.student.tests import named

_LOOK_S = 1.0
_GPU_SHARE = 0.9
"""Of the memory, that the tensors of all processes may take together."""
_TAIL = 3_000
"""Characters of a failed worker's log that are shown."""


def main() -> None:
    """Run what is missing, and write the table."""
    args = _arguments()
    size = SIZES[args.size]
    jobs = all_jobs(args.rewards, args.seeds or size.seeds)
    if args.worker is not None:
        threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
        _limit_memory(args.parallel)
        raise SystemExit(1 if _worker(args, size).run(jobs, args.stop_at) else 0)
    args.output.mkdir(parents=True, exist_ok=True)
    about = _about(args, size)
    failed = False
    if not args.table_only:
        start = time.time()
        _teach(args, size)
        stop_at = None if args.stop_after is None else start + args.stop_after
        if args.parallel == 1:
            failed = bool(_worker(args, size).run(jobs, stop_at))
        else:
            failed = _share(args, size, jobs, about, stop_at)
    print(_table(args, size, jobs, about), flush=True)
    if failed:
        raise SystemExit("some runs failed; the same command tries them again")


def _about(args: argparse.Namespace, size: Size) -> dict[str, Any]:
    """Return what all runs of an output have in common, and refuse an output of others."""
    about = {
        "size": args.size,
        **asdict(size),
        "student": str(args.student) if args.student else "taught",
        "prm": args.prm,
        "rewards": {name: str(shaping) for name, shaping in REWARDS.items()},
    }
    path: Path = args.output / "about.json"
    if path.is_file() and (there := json.loads(path.read_text("utf-8"))) != about:
        other = [name for name in about if there.get(name) != about[name]]
        raise SystemExit(f"{args.output} holds runs with another {', '.join(other)}; name another output with -o")
    with atomic_path(path) as part:
        part.write_text(json.dumps(about, indent=1) + "\n", "utf-8")
    return about


def _teach(args: argparse.Namespace, size: Size) -> None:
    if args.student is not None:
        return
    from reasonflux_prm.prm.embedded.install import ensure_base
    from recipes.student.form import chat_rows, reference_traces
    from recipes.student.sft import SFTSettings, teach

    rows = chat_rows(reference_traces(args.train))
    counts = teach(args.base or ensure_base(), rows, args.output / "student", SFTSettings(size.sft_tokens))
    print(f"student: {counts}", flush=True)


def _worker(args: argparse.Namespace, size: Size) -> Worker:
    tests = {task.name: (task, load(task, source, limit=size.tests)) for task, source in _tests(args)}
    problems = load(gsm8k.TASK, args.train, limit=size.problems)
    student = args.student or args.output / "student"
    return Worker(student, problems, tests, size, args.prm, args.output, args.keep)


def _share(args: argparse.Namespace, size: Size, jobs: list[Job], about: dict[str, Any], stop_at: float | None) -> bool:
    """Have several processes do the jobs; write the table whenever one is done, and return whether any failed."""
    cores = max(1, len(os.sched_getaffinity(0)) // args.parallel)
    environment = {"OMP_NUM_THREADS": str(cores), "TOKENIZERS_PARALLELISM": "false", **os.environ}
    command = [sys.executable, "-m", "recipes.grpo.run", *sys.argv[1:]]
    command += [] if stop_at is None else ["--stop-at", str(stop_at)]
    logs = [args.output / f"worker-{number}.log" for number in range(args.parallel)]
    workers = []
    for number, log in enumerate(logs):
        with log.open("ab") as stream:
            worker = subprocess.Popen(
                [*command, "--worker", str(number)], stdout=stream, stderr=stream, env=environment
            )
        workers.append(worker)
    start, shown, tasks = time.monotonic(), -1, _tasks(args)
    try:
        while any(worker.poll() is None for worker in workers):
            time.sleep(_LOOK_S)
            ready = [job for job in jobs if done(job, args.output, tasks)]
            if len(ready) != shown:
                shown = len(ready)
                print(f"{time.monotonic() - start:.0f} s: {shown} of {len(jobs)} done", flush=True)
                _table(args, size, jobs, about)
    finally:
        for worker in workers:
            worker.terminate()
    bad = [log for worker, log in zip(workers, logs, strict=True) if worker.returncode]
    for log in bad:
        print(f"--- {log}\n{log.read_text('utf-8', 'replace')[-_TAIL:]}", flush=True)
    return bool(bad)


def _limit_memory(processes: int) -> None:
    """Leave the other processes their share of the GPU: what runs out here is freed or halved here."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(_GPU_SHARE / processes)


def _end_with(parent: int) -> None:
    """End this process when the one that started it is gone, however that ended."""
    while os.getppid() == parent:
        time.sleep(_LOOK_S)
    os._exit(1)


def _tests(args: argparse.Namespace) -> list[tuple[Task, Path]]:
    return [(named(task, file), file) for task, file in ((gsm8k.TASK, args.test), (svamp.TASK, args.svamp))]


def _tasks(args: argparse.Namespace) -> list[str]:
    return [task.name for task, _ in _tests(args)]


def _table(args: argparse.Namespace, size: Size, jobs: list[Job], about: dict[str, Any]) -> str:
    tasks = _tasks(args)
    results = {job: done(job, args.output, tasks) for job in jobs}
    runs = [run for run in results.values() if run is not None]
    if not runs:
        return "nothing is done yet"
    return write_table(runs, size, about, args.output, [job.name for job, run in results.items() if run is None])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path, help="GSM8K train, JSON lines with id, problem, answer, solution")
    parser.add_argument(
        "test", type=Path, help="GSM8K test, JSON lines with id, problem, answer and, for tables, source"
    )
    parser.add_argument("svamp", type=Path, help="SVAMP, JSON lines with id, problem, answer")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--size", choices=tuple(SIZES), default="full")
    parser.add_argument("--base", type=Path, help="folder of the model to teach; default the embedded PRM's base")
    parser.add_argument("--student", type=Path, help="folder of a student that knows the form already")
    parser.add_argument("--prm", default="embedded", help="name, hub id, folder or address; default embedded")
    parser.add_argument("--seeds", type=int, help="default the size's")
    parser.add_argument("--rewards", type=_rewards, default=list(REWARDS), help=f"default {','.join(REWARDS)}")
    parser.add_argument("--parallel", type=int, default=1, help="runs at once, each in a process of its own; default 1")
    parser.add_argument("--stop-after", type=float, help="seconds after which no run is begun")
    parser.add_argument("--table-only", action="store_true", help="write the table of what is done")
    parser.add_argument("--keep", action="store_true", help="keep the weights of policies that were tested")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--stop-at", type=float, help=argparse.SUPPRESS)
    return parser.parse_args()


def _rewards(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in REWARDS]:
        raise argparse.ArgumentTypeError(f"unknown {', '.join(unknown)}; there are {', '.join(REWARDS)}")
    return names


if __name__ == "__main__":
    main()
