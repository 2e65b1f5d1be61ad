r"""Wrong solutions of the word problems, as candidates like a policy's.

    python -m recipes.words.wrong words.jsonl -o errors.candidates.jsonl --each 8 --seed 0

A solution goes wrong by the operation, by a number from the wrong place, by a slip of the pen, by stopping early, by a
step too much, by stating another number as the answer, or by answering what was not asked (the story's other
questions). A wrong value is carried on. `right` in another order (5 + 12 for 12 + 5) is among the candidates too, so
that not only the reference is right. Nothing says which are which: they are graded and labelled as samples are
(`recipes.prm_first.sampled`).
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from reasonflux_prm.traces.write import atomic_path
from recipes.student.form import respond
from recipes.words.write import value

_STEP = re.compile(r"(.*?)(\d+) ([-+*/]) (\d+) = <<[^<>]*>>(\d+)(.*)")
_NUMBER = re.compile(r"\d+")
SIGNS: Final = "+-*/"


class Step(NamedTuple):
    """A line of a solution: the words before and after `a sign b = result`."""

    before: str
    a: int
    sign: str
    b: int
    result: int
    after: str

    def __str__(self) -> str:
        return f"{self.before}{self.a} {self.sign} {self.b} = {self.result}{self.after}"


Steps = tuple[Step, ...]


def steps_of(solution: str) -> Steps:
    """Return the steps of a marked solution.

    Raises:
        ValueError: If a line has no marked calculation.
    """
    steps: list[Step] = []
    for line in solution.splitlines()[:-1]:
        found = _STEP.fullmatch(line)
        if found is None:
            raise ValueError(f"expected a calculation such as 12 + 5 = <<12+5=17>>17, found {line!r}")
        before, a, sign, b, result, after = found.groups()
        steps.append(Step(before, int(a), sign, int(b), int(result), after))
    return tuple(steps)


def carried(steps: Steps, at: int, wrong: Step) -> Steps | None:
    """Put a wrong step in, and work on with its result; None if that gives no value."""
    done, old = [*steps[:at], wrong], steps[at].result
    for step in steps[at + 1 :]:
        a, b = (wrong.result if operand == old else operand for operand in (step.a, step.b))
        result = value(a, step.sign, b)
        if result is None:
            return None
        done.append(step._replace(a=a, b=b, result=result))
    return tuple(done)


def slips(result: int) -> list[int]:
    """Return near misses of a result: a little off, a wrong carry, two digits exchanged, a digit too many."""
    digits = str(result)
    near = {result + d for d in (-10, -2, -1, 1, 2, 10)} | {result * 10}
    near |= {int(digits[:i] + digits[i + 1] + digits[i] + digits[i + 2 :]) for i in range(len(digits) - 1)}
    return sorted(n for n in near if n > 0 and n != result)


def changed(step: Step, given: set[int]) -> Iterator[tuple[str, Step]]:
    """Yield a step with another operation, with another number of the problem, and with slips in its result."""
    for sign in SIGNS:
        if sign != step.sign and (result := value(step.a, sign, step.b)):
            yield "operation", step._replace(sign=sign, result=result)
    for number in sorted(given - {step.a, step.b}):
        for new in (step._replace(a=number), step._replace(b=number)):
            if result := value(new.a, new.sign, new.b):
                yield "operand", new._replace(result=result)
    for result in slips(step.result):
        yield "slip", step._replace(result=result)


def versions(row: Mapping[str, Any]) -> Iterator[tuple[str, Steps, int]]:
    """Yield all wrong solutions, and right ones in another order: kind, steps, the answer that is stated."""
    steps, others = steps_of(row["solution"]), [steps_of(solution) for solution in row["others"]]
    given = {int(number) for number in _NUMBER.findall(row["problem"])}
    for at, step in enumerate(steps):
        for kind, new in changed(step, given):
            if done := carried(steps, at, new):
                yield kind, done, done[-1].result
        if step.sign in "+*":
            yield "right", (*steps[:at], step._replace(a=step.b, b=step.a), *steps[at + 1 :]), steps[-1].result
    for other in others:
        yield "other", other, other[-1].result
        yield "too far", (*steps, other[-1]), other[-1].result
    for at in range(1, len(steps)):
        yield "early", steps[:at], steps[at - 1].result
    for number in sorted(given | {step.result for step in steps[:-1]}):
        yield "stated", steps, number


KINDS: Final = {"operation": 3, "other": 3, "operand": 2, "slip": 2, "right": 2, "early": 1, "too far": 1, "stated": 1}
"""At most so many of each."""


def candidates(
    row: Mapping[str, Any], each: int, rng: random.Random, kinds: Collection[str] = tuple(KINDS)
) -> list[dict[str, str]]:
    """Return up to `each` different candidates, of as many of `kinds` as there are."""
    by_kind: dict[str, list[tuple[str, int]]] = {kind: [] for kind in KINDS}
    for kind, steps, answer in versions(row):
        if kind == "right" or answer != int(row["answer"]):
            by_kind[kind].append(("\n".join(map(str, steps)), answer))
    drawn: list[tuple[str, int]] = []
    for kind, most in KINDS.items():
        if kind not in kinds:
            continue
        found = list(dict.fromkeys(by_kind[kind]))
        drawn += rng.sample(found, min(most, len(found)))
    rng.shuffle(drawn)
    kept = dict.fromkeys(drawn[:each])
    return [{"thinking": thinking, "response": respond(str(answer))} for thinking, answer in kept]


def main() -> None:
    """Write the candidates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("problems", type=Path, help="what `recipes.words.write` wrote")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--each", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    args = parser.parse_args()
    rng, count = random.Random(args.seed), 0
    with atomic_path(args.output) as part, part.open("w", encoding="utf-8") as stream:
        for row in map(json.loads, args.problems.open(encoding="utf-8")):
            found = candidates(row, args.each, rng, args.kinds)
            count += len(found)
            kept = {name: row[name] for name in ("id", "problem", "answer", "source")}
            stream.write(json.dumps({**kept, "policy": "errors", "candidates": found}, ensure_ascii=False) + "\n")
    print(f"{count} candidates")


if __name__ == "__main__":
    main()
