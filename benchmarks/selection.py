"""How much memory and time `select` takes on pools of 10,000 to a million short scored traces.

Each pool is written once, and each selection runs in a process of its own, whose peak memory the system tells.

    python -m benchmarks.selection --sizes 10000 100000 1000000 -o selection.json
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from reasonflux_prm.records import PRMIdentity, ScoredTrace, Status, Step, Trace
from reasonflux_prm.traces.write import json_line, scored_row

CASES = {
    "top": ("--top", "1000"),
    "top, quota, correct, decontaminated": ("--top", "1000", "--per", "problem=1", "--correct", "--decontaminate"),
    "share of a half": ("--share", "0.5"),
    "near-duplicates": ("--top", "1000", "--near-duplicates", "0.8"),
    "near-duplicates, share of a half": ("--share", "0.5", "--near-duplicates", "0.8"),
}
_CHILD = """
import resource, sys
from reasonflux_prm.cli.main import main
code = main(sys.argv[1:])
used = resource.getrusage(resource.RUSAGE_SELF)
print(used.ru_maxrss, used.ru_utime + used.ru_stime)
sys.exit(code)
"""


def pool(size: int) -> Iterator[ScoredTrace]:
    """Yield short scored traces: four a problem, every twentieth nearly the same as the one before."""
    rng = random.Random(0)
    prm = PRMIdentity("synthetic", "0", "native", "causal", "mean", 1.0)
    vocabulary = [f"w{rng.randrange(16**4):x}" for _ in range(3000)]
    words = rng.choices(vocabulary, k=60)
    for i in range(size):
        words = [*words[:-1], f"again{i}"] if i % 20 == 19 else rng.choices(vocabulary, k=60)
        thinking, response = " ".join(words), f"The answer is {rng.randrange(1000)}."
        trace = Trace(
            f"t{i}",
            f"Problem {i // 4}: {' '.join(vocabulary[i // 4 % 2900 :][:15])}?",
            thinking,
            response,
            source=f"s{i % 7}",
            policy=f"p{i % 3}",
            correct=rng.random() < 0.5,
        )
        steps = (Step("thinking", 0, len(thinking)), Step("response", 0, len(response)))
        rewards = (rng.random(), rng.random())
        trajectory = rng.random()
        yield ScoredTrace(trace, Status.SCORED, steps, rewards, trajectory, sum(rewards) / 2 + trajectory, prm, 90)


def write_pool(path: Path, size: int) -> None:
    """Write a pool."""
    with path.open("wb") as stream:
        stream.writelines(json_line(scored_row(scored)) for scored in pool(size))


def write_benchmark(path: Path) -> None:
    """Write 1,000 problems to keep out."""
    rng = random.Random(1)
    rows = [{"id": f"b{i}", "problem": " ".join(f"w{rng.randrange(16**4):x}" for _ in range(40))} for i in range(1000)]
    path.write_bytes(b"".join(map(json_line, rows)))


def measure(folder: Path, size: int, case: str) -> dict[str, Any]:
    """Run one selection in a process of its own, and return its times and peak memory."""
    flags = list(CASES[case])
    if flags[-1] == "--decontaminate":
        flags.append(str(folder / "benchmark.jsonl"))
    command = ["select", str(folder / f"{size}.jsonl"), "-o", str(folder / "out.jsonl"), "--fresh", *flags]
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", _CHILD, *command], capture_output=True, text=True, check=True)
    seconds = time.monotonic() - began
    said = done.stderr.strip().splitlines()[-1].partition(". Next")[0].partition(": ")[2]
    peak, cpu = done.stdout.split()
    return {
        "traces": size,
        "case": case,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(float(cpu), 1),
        "peak_mb": int(peak) // 1024,
        "said": said,
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Measure every case at every size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("-o", "--output", type=Path, help="the numbers as JSON")
    args = parser.parse_args(argv)
    found = []
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_benchmark(folder / "benchmark.jsonl")
        for size in args.sizes:
            write_pool(folder / f"{size}.jsonl", size)
            for case in args.cases:
                found.append(measure(folder, size, case))
                row = found[-1]
                print(
                    f"{size:>9,} traces  {case:36} {row['cpu_seconds']:7.1f} s of CPU  {row['peak_mb']:6,} MB  "
                    f"{row['said']}",
                    flush=True,
                )
            (folder / f"{size}.jsonl").unlink()
    if args.output:
        args.output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
