"""What a judge's answer says: the scores of the steps that were asked for, and what is wrong with the others.

Nothing is guessed or clipped. A number out of range, a step that is missing, a step scored twice with different
numbers: each is a fault of that step, to be asked about again.

Text under review can get into an answer, where the judge quotes it. Entries must stand in the judge's own structure: if
an object that holds any bears the mark of the request, which the text cannot know, then only such objects are read. And
behind an entry that went wrong, others count only against what was read before.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reasonflux_prm.labels.lenient_json import FlatObject, Leaf, flat_objects

OVERALL = "overall"
CRITERIA = ("correctness", "coherence", "progress", OVERALL)
"""What every step is scored by, each in [0, 1]."""

_PERCENT = re.compile(r"([-+]?\d{1,9}(?:\.\d{1,20})?)\s*%")
_QUOTIENT = re.compile(r"([-+]?\d{1,9}(?:\.\d{1,20})?)\s*/\s*(\d{1,9}(?:\.\d{1,20})?)")
_DECIMAL = re.compile(r"[-+]?(?:\d{1,9}(?:\.\d{0,20})?|\.\d{1,20})(?:[eE][-+]?\d{1,2})?")
_STEP = re.compile(r"(?:step\s*)?#?(\d{1,6})", re.IGNORECASE)
_NOTE_CHARS = 200


@dataclass(frozen=True, slots=True)
class StepScores:
    """One step's scores as far as they can be used."""

    values: Mapping[str, float]
    """Criterion -> number in [0, 1]; criteria without a usable number are absent."""
    note: str = ""

    @property
    def complete(self) -> bool:
        """Whether no criterion is absent."""
        return len(self.values) == len(CRITERIA)


@dataclass(frozen=True, slots=True)
class Reading:
    """What an answer says about the steps that were asked for."""

    scores: Mapping[int, StepScores]
    """Step number -> scores, perhaps incomplete."""
    faults: Mapping[int, str]
    """Step number -> why its scores are not complete."""


def read_scores(text: str, asked: Sequence[int], mark: str) -> Reading:
    """Read a judge's answer.

    Args:
        text: The answer: JSON as asked for, or something like it.
        asked: The numbers of the steps to be scored. Entries for others are left out.
        mark: The request's mark.
    """
    entries = [
        one for one in flat_objects(text) if "step" in one.fields or any(name in one.fields for name in CRITERIA)
    ]
    entries = [one for one in entries if mark in (one.around.get("review"), one.fields.get("review"))] or entries
    numbers = _step_numbers(entries, asked)
    if isinstance(numbers, str):
        return Reading({}, dict.fromkeys(asked, numbers))
    scores: dict[int, StepScores] = {}
    faults: dict[int, str] = {}
    for step in asked:
        given = [entry for number, entry in zip(numbers, entries, strict=True) if number == step]
        if not given or not given[0].sound:
            faults[step] = "there is no entry for it"
            continue
        (read, fault), *others = [_read_entry(entry) for entry in given]
        if any(other.values != read.values for other, _ in others):
            faults[step] = "it is scored twice, with different numbers"
            continue
        if read.values:
            scores[step] = read
        if fault:
            faults[step] = fault
    return Reading(scores, faults)


def read_unit(value: Leaf) -> float | None:
    """Return a score in [0, 1]: a number, or a text that is one (`0.8`, `80%`, `4/5`); None if it is none."""
    if isinstance(value, bool) or value is None:
        return None
    number = value if isinstance(value, float) else _number(value.strip())
    return number if number is not None and 0 <= number <= 1 else None


def short(value: Leaf) -> str:
    """Return a value as a fault names it."""
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, str):
        return repr(value if len(value) <= 30 else value[:30] + "...")
    return "null" if value is None else str(value).lower()


def note_of(entry: FlatObject) -> str:
    """Return an entry's note on one line, cut to a length that a record can carry."""
    note = entry.fields.get("note")
    line = " ".join(note.split()) if isinstance(note, str) else ""
    return line if len(line) <= _NOTE_CHARS else line[: _NOTE_CHARS - 3] + "..."


def _read_entry(entry: FlatObject) -> tuple[StepScores, str | None]:
    values: dict[str, float] = {}
    wrong = []
    for name in CRITERIA:
        if name not in entry.fields:
            wrong.append(f"{name} is missing")
        elif (value := read_unit(entry.fields[name])) is None:
            wrong.append(f"{name} is {short(entry.fields[name])} and must be a number between 0 and 1")
        else:
            values[name] = value
    return StepScores(values, note_of(entry)), ", ".join(wrong) or None


def _step_numbers(entries: Sequence[FlatObject], asked: Sequence[int]) -> list[int | None] | str:
    """Return each entry's step, None where it names none; or why the answer's numbers mean nothing.

    Two misnumberings leave no doubt and are put right: no numbers at all in as many entries as were asked for, and all
    steps of a trace counted from 0.
    """
    numbers = [_step_number(entry.fields.get("step")) for entry in entries]
    if len(entries) == len(asked) and all("step" not in entry.fields for entry in entries):
        return list(asked)
    if 0 in numbers:
        if numbers == list(range(len(asked))) and list(asked) == list(range(1, len(asked) + 1)):
            return list(asked)
        return "the steps are numbered from 0, and not as they were given"
    return numbers


def _step_number(value: Leaf) -> int | None:
    if isinstance(value, float):
        return int(value) if value.is_integer() and 0 <= value < 1e6 else None
    found = _STEP.fullmatch(value.strip()) if isinstance(value, str) else None
    return int(found[1]) if found else None


def _number(text: str) -> float | None:
    if found := _PERCENT.fullmatch(text):
        return float(found[1]) / 100
    if (found := _QUOTIENT.fullmatch(text)) and float(found[2]):
        return float(found[1]) / float(found[2])
    if _DECIMAL.fullmatch(text) and math.isfinite(number := float(text)):
        return number
    return None
