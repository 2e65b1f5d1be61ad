"""Traces with known step labels, from GSM8K's training problems: right ones, and ones with an error put in.

In: the trees of `recipes.prm_first.data`. Out: rows of ours with `given_steps` and `step_labels` (1 right, 0 wrong), so
that `reasonflux-prm label --steps given --quality recorded` takes the truth over, and any other judge can be held
against it. Traces are right, wrong to the end (the error is carried on to a wrong answer), or broken off at the wrong
step.
"""

from __future__ import annotations

import argparse
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from reasonflux_prm.records import Part, Step, Trace
from reasonflux_prm.traces.native import trace_row
from reasonflux_prm.traces.write import atomic_path, json_line

DEV_SHARE = 0.15


@dataclass
class _Text:
    """The text of one part while it is being put together."""

    joiner: str
    text: str = ""
    spans: list[tuple[int, int]] = field(default_factory=list)

    def add(self, step: str) -> None:
        start = len(self.text)
        self.text += (self.joiner if self.text else "") + step
        self.spans.append((start, len(self.text)))


def traces_of(row: Mapping[str, Any], branches: int, rng: Random) -> Iterator[Trace]:
    """Make the traces of one problem: the right one, and some that leave it.

    Args:
        row: A tree of `recipes.prm_first.data`.
        branches: Most traces besides the right one; those that are complete come first, then others, drawn.
        rng: Draws them.
    """
    gold, final = row["gold"], row["final"]
    yield _trace(row, 0, [*gold, final], [1.0] * (len(gold) + 1), True, len(gold))
    drawn = sorted(row["branches"], key=lambda branch: (not branch["complete"], rng.random()))[:branches]
    for number, branch in enumerate(drawn, 1):
        at, label = branch["at"], float(branch["label"])
        steps = [*gold[:at], *branch["steps"]]
        labels = [1.0] * at + [label] * len(branch["steps"])
        right = bool(label) if branch["complete"] or at == len(gold) else None
        yield _trace(row, number, steps, labels, right, len(gold))


def _trace(
    row: Mapping[str, Any], number: int, steps: Sequence[str], labels: Sequence[float], right: bool | None, gold: int
) -> Trace:
    """Put one trace together; its last step is the response if the trace is complete, or all steps are."""
    texts: dict[Part, _Text] = {part: _Text(row["style"]["joiner"]) for part in ("thinking", "response")}
    for index, step in enumerate(steps):
        texts["response" if row["part"] == "response" or index >= gold else "thinking"].add(step)
    spans = tuple(Step(part, *span) for part, text in texts.items() for span in text.spans)
    return Trace(
        id=f"{row['id']}-{number}",
        problem=row["problem"],
        thinking=texts["thinking"].text,
        response=texts["response"].text,
        answer=row["answer"],
        source="gsm8k-train",
        policy="reference" if number == 0 else "reference, changed",
        correct=right,
        group=row["id"],
        thinking_closed=right is not None or row["part"] == "response",
        steps=spans,
        step_labels=tuple(labels),
    )


def is_dev(group: str) -> bool:
    """Whether a problem is set aside, by a hash of its name alone."""
    return zlib.crc32(group.encode()) < DEV_SHARE * 2**32


def write_gold(trees: Path, train: Path, dev: Path, *, problems: int, branches: int, thinking: bool, seed: int) -> None:
    """Write the traces of the first so many problems, those of set-aside problems apart.

    Args:
        trees: What `recipes.prm_first.data` wrote.
        train: Where to write the traces to learn from.
        dev: Where to write those of the problems that are set aside.
        problems: How many problems to take.
        branches: Most traces besides the right one of each problem.
        thinking: Take only problems whose steps are written as thinking, with a response behind them.
        seed: Draws the branches.
    """
    rng, taken = Random(seed), 0
    lines: dict[bool, list[bytes]] = {True: [], False: []}
    for line in trees.open(encoding="utf-8"):
        row = json.loads(line)
        if taken == problems:
            break
        if thinking and row["part"] != "thinking":
            continue
        taken += 1
        lines[is_dev(row["id"])].extend(json_line(trace_row(trace)) for trace in traces_of(row, branches, rng))
    for path, part in ((train, lines[False]), (dev, lines[True])):
        with atomic_path(path) as unfinished:
            unfinished.write_bytes(b"".join(part))


def main() -> None:
    """Parse the command line and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trees", type=Path)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--dev", type=Path, required=True)
    parser.add_argument("--problems", type=int, required=True)
    parser.add_argument("--branches", type=int, default=3)
    parser.add_argument("--thinking", action="store_true", help="only problems whose steps are thinking")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    write_gold(
        args.trees,
        args.train,
        args.dev,
        problems=args.problems,
        branches=args.branches,
        thinking=args.thinking,
        seed=args.seed,
    )


if __name__ == "__main__":
    main()
