"""Does a student learn more from traces that a PRM chose? From GSM8K train to a table and a curve, in one command.

    python -m recipes.select_sft.run --size full --data PROBLEMS -o out --backend vllm

PROBLEMS is a folder with gsm8k_train.jsonl, gsm8k_test.jsonl and svamp.jsonl (id, problem, answer; train also
solution). Every stage leaves its output in `out` and is skipped if that is there, so a run that was killed goes on:
pool.jsonl, scored.jsonl, selected/, students/, results.jsonl, results.md, curve-*.svg.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from reasonflux_prm.cli.main import main as command
from reasonflux_prm.policy.cache import CachedPolicy
from reasonflux_prm.policy.open import open_policy
from reasonflux_prm.prm.embedded.install import ensure_base
from recipes.select_sft import tables
from recipes.select_sft.evaluate import evaluate
from recipes.select_sft.pool import problems, sampled, write_pool, written
from recipes.select_sft.sizes import CURVE, METHODS, SIZES, Size
from recipes.select_sft.train import train

Job = tuple[str, int | None, int]
"""Method, K (None: there is none), seed of the training."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run every stage that is not done yet."""
    args = _arguments(argv)
    size, out = SIZES[args.size], args.output
    out.mkdir(parents=True, exist_ok=True)
    student = args.student or ensure_base()
    _once(out / "run.json", {"size": args.size, "prm": args.prm, "policy": args.policy, "student": str(student)})
    _make_pool(args, size, out, student)
    _reasonflux("score", str(out / "pool.jsonl"), "-o", str(out / "scored.jsonl"), "--prm", args.prm)
    done = _results(out)
    for job in _jobs(size):
        if job not in done:
            _one(job, args, size, out, student)
    results = list(_results(out).values())
    head = f"Size `{args.size}`, PRM `{args.prm}`, policy `{args.policy}`, student `{student.name}`."
    print(tables.write(results, size.kept[0], CURVE, out, head))


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, required=True)
    parser.add_argument("--data", type=Path, required=True, help="folder of the problems")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--prm", default="embedded", help="as `reasonflux-prm score` takes it")
    parser.add_argument(
        "--policy", default="local", help="who samples: a policy's name, or local: the untrained student"
    )
    parser.add_argument("--student", type=Path, help="folder; default SmolLM2-135M-Instruct")
    parser.add_argument("--backend", choices=("local", "vllm"), default="local", help="what evaluates")
    parser.add_argument("--keep-students", action="store_true", help="keep the trained weights")
    parser.add_argument("--seed", type=int, default=0, help="of the pool and of the choice")
    return parser.parse_args(argv)


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
    records = problems(args.data / "gsm8k_train.jsonl", size.problems, args.seed)
    spec = f"local:{student}" if args.policy == "local" else args.policy
    policy = CachedPolicy(open_policy(spec), out / "completions.sqlite")
    try:
        samples = sampled(policy, records, size.samples, size.max_tokens, args.seed)
        counts = write_pool(pool, chain(written(records, args.seed), samples))
    finally:
        policy.close()
    for name, (right, number) in counts.items():
        print(f"pool: {name:24} {number:7,} traces, {right / number:.1%} right", flush=True)


def _reasonflux(*arguments: str) -> None:
    """Run a command as a user would; exit code 1 says that some records were set aside, which it has counted."""
    if (code := command(arguments)) not in (0, 1):
        raise SystemExit(f"reasonflux-prm {' '.join(arguments)} ended with {code}")


def _jobs(size: Size) -> Iterator[Job]:
    yield "untrained", None, 0
    for seed in range(size.seeds):
        for method in size.methods:
            for kept in size.kept if method in CURVE else size.kept[:1]:
                yield method, kept, seed
        yield "all", None, seed


def _results(out: Path) -> dict[Job, dict[str, Any]]:
    file = out / "results.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    # A line that a kill cut short is a training to be done again.
    rows = [json.loads(line) for line in lines if line.endswith("}")]
    return {(row["method"], row["kept"], row["seed"]): row for row in rows}


def _one(job: Job, args: argparse.Namespace, size: Size, out: Path, student: Path) -> None:
    """Select, train and evaluate one student, and write down what came of it."""
    method, kept, seed = job
    name = f"{method}-{kept or 'x'}".replace(" ", "-").replace(",", "")
    folder, trained = student, None
    if method != "untrained":
        data = out / "selected" / f"{name}.jsonl"
        flags = [flag.format(student=student) for flag in METHODS.get(method, ("--by", "random"))]
        top = ["--top", str(kept)] if kept else []
        _reasonflux(
            *("select", str(out / "scored.jsonl"), "-o", str(data), "--format", "prompt-completion"),
            *("--template", "think", "--seed", str(args.seed), "--dropped"),
            *flags,
            *top,
        )
        folder = out / "students" / f"{name}-{seed}"
        trained = train(data, student, folder, size, seed)
    right = evaluate(folder, args.data, size, args.backend)
    if folder != student and not args.keep_students:
        shutil.rmtree(folder)
    row = {"method": method, "kept": kept, "seed": seed, "trained": trained, "right": right}
    with (out / "results.jsonl").open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(row) + "\n")
    said = ", ".join(f"{task} {sum(found['right'])}/{len(found['right'])}" for task, found in right.items())
    print(f"{method}, {kept or 'all'} traces, seed {seed}: {said}", flush=True)


if __name__ == "__main__":
    main()
