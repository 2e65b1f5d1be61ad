"""How far the graders agree with recorded verdicts, and how fast they are.

Agreement: every candidate's answer against its problem's reference, beside the recorded verdict; in a file of problems,
every solution's answer against the reference. Rate: answers of those files, repeated up to `--answers`, with a share of
expressions that hang a computer algebra system or fill its memory; every answer must come back with a verdict.

    python -m benchmarks.grading FILE.jsonl ... --grader auto --answers 10000 -o grading.json
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from reasonflux_prm.grading.answers import final_answer, stated_answer
from reasonflux_prm.grading.grader import Grader
from reasonflux_prm.grading.graders import NAMES, open_grader
from reasonflux_prm.grading.math_grader import MathGrader
from reasonflux_prm.traces.read import read_traces

HOSTILE = (
    "9^{9^{9^{9}}}",
    "100000000!",
    r"\binom{1000000}{500000}",
    r"\frac{1}{" * 100 + "2" + "}" * 100,
    "(" * 400 + "1" + ")" * 400,
    r"\sum_{k=1}^{10000000} k^k",
    "(a+b+c+d)^{50}",
    "x" * 10**6,
    "{" * 900,
)
"""Each hangs, crashes, or is refused."""
_READ = {"candidates", "thinking", "response"}
"""Columns that make a file one of traces; one without any of them has problems only."""


def graded(path: Path, grader: Grader) -> list[dict[str, Any]]:
    """Grade every trace of a file that has a reference answer, and every problem's own solution."""
    records = list(_traces(path) if _READ & next(_rows(path)).keys() else _problems(path))
    verdicts = grader.grade_answers((record["answer"], record["reference"]) for record in records)
    return [
        {**record, "grade": verdict.grade.value, "reason": verdict.reason}
        for record, verdict in zip(records, verdicts, strict=True)
    ]


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def _traces(path: Path) -> Iterator[dict[str, Any]]:
    for trace in read_traces(path):
        if trace.answer is not None:
            answer = final_answer(trace)
            yield {"id": trace.id, "recorded": trace.correct, "answer": answer, "reference": trace.answer}


def _problems(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the answer that each problem's solution states, or the reference itself where there is no solution."""
    for row in _rows(path):
        answer = stated_answer(row.get("solution") or "") or row["answer"]
        yield {"id": row["id"], "recorded": True, "answer": answer, "reference": row["answer"]}


def agreement(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Count how often the verdicts agree; an answer that does not parse counts as not right."""
    known = [row for row in rows if row["recorded"] is not None]
    agreed = sum((row["grade"] == "right") == row["recorded"] for row in known)
    counts = Counter(f"{'right' if row['recorded'] else 'wrong'} -> {row['grade']}" for row in known)
    reasons = Counter(row["reason"] for row in known if row["reason"])
    return {
        "answers": len(known),
        "agreement": agreed / len(known) if known else None,
        "recorded -> graded": dict(sorted(counts.items())),
        "reasons": dict(reasons.most_common()),
    }


def workload(rows: Sequence[dict[str, Any]], answers: int, hostile: float) -> list[tuple[str | None, str]]:
    """Return (answer, reference) pairs: those of the files over and over, with a share of hostile answers."""
    honest = cycle([(row["answer"], row["reference"]) for row in rows])
    pairs = list(islice(honest, answers))
    for place, answer in zip(random.Random(0).sample(range(answers), round(answers * hostile)), cycle(HOSTILE)):
        pairs[place] = answer, pairs[place][1]
    return pairs


def rate(pairs: Sequence[tuple[str | None, str]], grader: Grader) -> dict[str, Any]:
    """Time the grading of pairs one by one, with nothing graded once for several: a lower bound for what users see."""
    grader.grade_answer("x+1", "1+x+y")  # the workers' start is not part of the rate
    started = time.perf_counter()
    open_pairs = [pair for pair in pairs if grader.decide(*pair) is None]
    decided = time.perf_counter() - started
    settled = Counter(verdict.reason or verdict.grade.value for verdict in grader.settle(open_pairs))
    seconds = time.perf_counter() - started
    return {
        "answers": len(pairs),
        "answers per second": len(pairs) / seconds,
        "seconds": seconds,
        "decided at once": len(pairs) - len(open_pairs),
        "seconds for these": decided,
        "settled by workers": dict(settled.most_common()),
        "lost": len(open_pairs) - settled.total(),
    }


def disagreements(rows: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the rows where the recorded verdict is another, each pair of answer and reference once."""
    seen = set()
    for row in rows:
        pair = row["answer"], row["reference"]
        if row["recorded"] is not None and (row["grade"] == "right") != row["recorded"] and pair not in seen:
            seen.add(pair)
            yield row


def main() -> None:
    """Print and write the agreement and, if asked for, the rate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, help="candidates, traces or problems with reference answers")
    parser.add_argument("--grader", choices=NAMES, default="auto")
    parser.add_argument("--answers", type=int, default=0, help="answers of the timed run; default 0, no timed run")
    parser.add_argument("--workers", type=int, default=2, help="worker processes of the timed run")
    parser.add_argument("--hostile", type=float, default=0.002, help="share of hostile answers in the timed run")
    parser.add_argument("--show", type=int, default=0, help="disagreements to print for each file")
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    report: dict[str, Any] = {"machine": platform.machine(), "python": platform.python_version(), "files": {}}
    everything: list[dict[str, Any]] = []
    with open_grader(arguments.grader) as grader:
        report["grader"] = dict(grader.identity())
        for path in arguments.files:
            rows = graded(path, grader)
            everything += rows
            report["files"][path.name] = agreement(rows)
            print(path.name, json.dumps(report["files"][path.name]))
            for row in islice(disagreements(rows), arguments.show):
                print("   ", json.dumps(row, ensure_ascii=False)[:300])
    if arguments.answers:
        with MathGrader(size=arguments.workers) as grader:
            report["rate"] = rate(workload(everything, arguments.answers, arguments.hostile), grader)
        print("rate", json.dumps(report["rate"]))
    if arguments.output:
        arguments.output.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
