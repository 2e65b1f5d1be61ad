"""Problems of a small world: sums told as stories, with worked solutions in the form of GSM8K's.

Somebody has some things, and what happens to them next adds, takes away, multiplies or halves. A model of some
400,000 parameters learns to think such a story through in minutes of one core, and errs as larger ones do on larger
problems: it misreads the story, and slips in the arithmetic. Training and test problems are all different.

    python -m recipes.small_world.world DATA
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final

from reasonflux_prm.traces.write import atomic_path

NAMES: Final = ("Ann", "Ben", "Cleo", "Dan", "Eve", "Finn", "Gina", "Hugo")
THINGS: Final = ("coins", "cards", "shells", "pens", "stamps", "beads")
GAINS: Final = ("finds {}", "buys {}", "gets {}")
LOSSES: Final = ("loses {}", "sells {}", "drops {}")
DOUBLE: Final = "doubles them"
HALF: Final = "keeps half"
PLACES: Final = ("First", "Second", "Third", "Fourth", "Fifth", "Sixth", "Seventh", "Eighth")
"""What the events of a story are told by: a model of this size does not count."""
MOST: Final = 60
"""No number on the way is larger."""


@dataclass(frozen=True, slots=True)
class Split:
    """One file of problems."""

    file: str
    """As the recipes on GSM8K call theirs."""
    source: str
    """Its name in records and tables."""
    problems: int
    events: tuple[int, int]
    """Least and most things that happen in a story."""


SPLITS: Final = (
    Split("gsm8k_train.jsonl", "small-world-train", 24_000, (3, 4)),
    Split("gsm8k_test.jsonl", "small-world-test", 500, (3, 4)),
    Split("svamp.jsonl", "small-world-longer", 500, (5, 6)),
)
"""The last is out of what is trained on: longer stories, as a benchmark of another kind."""


def write_problems(folder: Path, seed: int = 0) -> None:
    """Write every split's file; files that are there are kept, since the same seed makes the same."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, told = Random(seed), set[str]()
    for split in SPLITS:
        rows = list(_problems(split, rng, told))
        path = folder / split.file
        if not path.exists():
            with atomic_path(path) as part:
                part.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def _problems(split: Split, rng: Random, told: set[str]) -> Iterator[dict[str, str]]:
    """Yield the problems of a split, none of which has been told before."""
    number = 0
    while number < split.problems:
        problem, solution, answer = _story(rng, rng.randint(*split.events))
        if problem in told:
            continue
        told.add(problem)
        yield {
            "id": f"{split.source}-{number}",
            "problem": problem,
            "answer": str(answer),
            "solution": f"{solution}\n#### {answer}",
            "source": split.source,
        }
        number += 1


def _story(rng: Random, events: int) -> tuple[str, str, int]:
    """Return a problem, its solution a line a step, and its answer."""
    name, thing, held = rng.choice(NAMES), rng.choice(THINGS), rng.randint(10, 30)
    sentences, lines = [f"{name} has {held} {thing}."], list[str]()
    for place in PLACES[:events]:
        event, sign, by = _event(rng, held)
        before, held = held, worked_out(held, sign, by)
        told, worked = event.format(by), f"{before}{sign}{by}"
        sentences.append(f"{place} {told}.")
        lines.append(f"{place} {told}: {worked}=<<{worked}={held}>>{held}")
    sentences.append(f"How many {thing} does {name} have now?")
    return "\n".join(sentences), "\n".join(lines), held


def _event(rng: Random, held: int) -> tuple[str, str, int]:
    """Return how an event is told, its operation and its number."""
    may_be = {"+": held + 6 <= MOST, "-": held > 8, "*": held * 2 <= MOST, "/": held % 2 == 0 and held >= 20}
    kind = rng.choice([kind for kind, possible in may_be.items() if possible])
    if kind == "+":
        return rng.choice(GAINS), kind, rng.randint(2, 6)
    if kind == "-":
        return rng.choice(LOSSES), kind, rng.randint(2, 6)
    if kind == "*":
        return DOUBLE, kind, 2
    return HALF, kind, 2


def worked_out(held: int, sign: str, by: int) -> int:
    """Return the result of a step."""
    return {"+": held + by, "-": held - by, "*": held * by, "/": held // 2}[sign]


def main() -> None:
    """Write the problems."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    args = parser.parse_args()
    write_problems(args.data)


if __name__ == "__main__":
    main()
