"""The graders by name.

| name | right is |
|---|---|
| `math` | the same number or expression, by math-verify where keys do not decide; see `grading.math_grader` |
| `numeric` | the same number, to the rounding of `grading.keys`, whatever words and units stand around it |
| `choice` | the same letter (A to J), however it is written |
| `string` | the same text but for the habits of LaTeX, case, units and the form of numbers: equal keys |
| `exact` | the same text, but for white space at its ends |
| `auto` | by the reference: a letter wants `choice`, several lines or over 1,000 characters `string`, the rest `math` |
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from reasonflux_prm.errors import UsageError
from reasonflux_prm.grading.answers import stated_answer
from reasonflux_prm.grading.choice import read_choice, stated_choice
from reasonflux_prm.grading.grader import Grader, Pair, bare_reference
from reasonflux_prm.grading.keys import Reading, answer_key, read_answer, same_number, same_reading
from reasonflux_prm.grading.math_grader import LONGEST, MathGrader, can_do_algebra
from reasonflux_prm.grading.numbers import read_number
from reasonflux_prm.grading.verdict import ANSWER_UNREAD, NO_ANSWER, REFERENCE_UNREAD, Grade, Verdict

VERSION: Final = 1
NAMES: Final = ("auto", "math", "numeric", "choice", "string", "exact")


class ReadingGrader(Grader):
    """Judges answers by what they read as, and needs nothing that is not always there."""

    def __init__(
        self,
        name: str,
        read: Callable[[str], Any],
        same: Callable[[Any, Any], bool | None],
        find: Callable[[str], str | None] = stated_answer,
    ) -> None:
        """Build a grader from how to read an answer (None: it does not parse), compare readings, and find an answer."""
        self.name, self._read, self._same, self._find = name, read, same, find

    def identity(self) -> Mapping[str, Any]:
        """Return the grader's name and version."""
        return {"grader": self.name, "version": VERSION}

    def find(self, text: str, reference: str) -> str | None:
        """Return the final answer that a text states; None if it states none."""
        return self._find(text)

    def decide(self, answer: str | None, reference: str) -> Verdict:
        """Return the verdict."""
        if answer is None or not answer.strip():
            return Verdict(Grade.UNPARSED, None, NO_ANSWER)
        reference = bare_reference(reference)
        gold = self._read(reference) if reference else None
        if gold is None:
            return Verdict(Grade.UNPARSED, answer, REFERENCE_UNREAD)
        given = self._read(answer)
        if given is None:
            return Verdict(Grade.UNPARSED, answer, ANSWER_UNREAD)
        return Verdict(Grade.RIGHT if self._same(given, gold) else Grade.WRONG, answer)

    def key(self, answer: str) -> Hashable:
        """Return what the answer reads as, or its text's key where it cannot be read."""
        reading = self._read(answer)
        return answer_key(answer) if reading is None else reading.value if isinstance(reading, Reading) else reading


class AutoGrader(Grader):
    """Picks the grader by the reference: `choice` for a letter, `string` for a long text, or else `math`.

    Raises:
        MissingExtra: math-verify is not installed.
    """

    name = "auto"

    def __init__(self) -> None:
        self._math, self._choice, self._string = MathGrader(), _choice(), _string()

    def identity(self) -> Mapping[str, Any]:
        """Return the grader's name and version, and what `math` depends on, whose own version is `math`."""
        math = self._math.identity()
        return {**math, "grader": self.name, "version": VERSION, "math": math["version"]}

    def pick(self, reference: str) -> Grader:
        """Return the grader for a reference."""
        reference = bare_reference(reference)
        if _is_letter(reference):
            return self._choice
        return self._string if len(reference) > LONGEST or "\n" in reference else self._math

    def find(self, text: str, reference: str) -> str | None:
        """Return the final answer that a text states; None if it states none."""
        return self.pick(reference).find(text, reference)

    def decide(self, answer: str | None, reference: str) -> Verdict | None:
        """Return the verdict of the grader for this reference, where it has one at once."""
        return self.pick(reference).decide(answer, reference)

    def settle(self, pairs: Iterable[Pair]) -> Iterator[Verdict]:
        """Yield the verdicts of `math`, the only one that leaves anything undecided."""
        return self._math.settle(pairs)

    async def asettle(self, pair: Pair) -> Verdict:
        """Return the verdict of `math`, the only one that leaves anything undecided."""
        return await self._math.asettle(pair)

    def key(self, answer: str) -> Hashable:
        """Return the letter, if the answer is one, or else its key."""
        return read_choice(answer) if _is_letter(answer) else answer_key(answer)

    def alike(self, answers: Sequence[str]) -> Iterator[tuple[int, int]]:
        """Yield indices of answers that are the same expression though their keys differ."""
        return self._math.alike(answers)

    def close(self) -> None:
        """End the workers."""
        self._math.close()


def open_grader(name: str) -> Grader:
    """Open a grader by its name, one of `NAMES`; close it when done.

    Raises:
        UsageError: There is none of that name.
        MissingExtra: It needs math-verify, which is not installed.
    """
    openers: dict[str, Callable[[], Grader]] = {
        "auto": AutoGrader,
        "math": MathGrader,
        "numeric": _numeric,
        "choice": _choice,
        "string": _string,
        "exact": _exact,
    }
    if name not in openers:
        raise UsageError(f"unknown grader {name!r}; there are {', '.join(NAMES)}")
    return openers[name]()


def default_grader() -> str:
    """Return the name of the grader to take where none is asked for: `auto`, or `string` without math-verify."""
    return "auto" if can_do_algebra() else "string"


def _numeric() -> Grader:
    return ReadingGrader("numeric", read_number, same_number)


def _choice() -> Grader:
    return ReadingGrader("choice", read_choice, _equal, stated_choice)


def _string() -> Grader:
    return ReadingGrader("string", read_answer, same_reading)


def _exact() -> Grader:
    return ReadingGrader("exact", str.strip, _equal)


def _equal(one: Any, other: Any) -> bool:
    return bool(one == other)


def _is_letter(text: str) -> bool:
    r"""Whether a text is one letter from A to J and nothing else: `B`, `(B)`, `\text{B}`."""
    key = answer_key(text)
    return isinstance(key, str) and key.strip("()") in tuple("abcdefghij")
