r"""DABStep's rules for when an answer is right, so that numbers compare with its leaderboard.

Written from the rules of dabstep_benchmark/evaluation/scorer.py in the space adyen/DABstep, and wrong wherever those
are: a sign is not read (-5 is 5), `0,99` is 99, and a single word is right if it is one of the other answer's words.
Case and white space at the ends never matter. The first rule that applies decides:

1. One of the two is a number with a decimal sign or groups of thousands (`1,234.5`, `$0.99`): the first number in each
   is compared.
2. One of the two has a comma or semicolon: both are lists. They are right if, in alphabetical order, they have the same
   length and each pair is right by these rules.
3. Both have a number: the first ones are compared.
4. Texts: the same but for punctuation and white space, or one is a single word that the other has, or alike by more
   than 0.95 (`difflib`).

Two numbers are the same if they are equal, or, unless both are below 1, equal when rounded to the fewer decimals of
the two, or within 1e-4 of each other, relatively or absolutely.
"""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any, Final

from reasonflux_prm.grading.grader import Grader
from reasonflux_prm.grading.verdict import NO_ANSWER, Grade, Verdict

VERSION: Final = 1
_CLOSE: Final = 1e-4
_ALIKE: Final = 0.95
_PLAIN_NUMBER = re.compile(r"\$?(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+[.,]\d+)")
_FIRST_NUMBER = re.compile(r"\d*\.\d+|\d+\.?")
_SEPARATOR = re.compile(r"[,;]")
_FINAL = re.compile(r"^[ \t*#]*final[ \t]+answer[ \t*]*:[ \t*]*(\S.*?)[ \t*]*$", re.MULTILINE | re.IGNORECASE)


def same_dabstep_answer(one: str, other: str) -> bool:
    """Return whether two answers are the same by the benchmark's rules.

    Example:
        >>> [same_dabstep_answer(*pair) for pair in (("NL, BE", "be; nl"), ("12.345", "12.35"), ("yes", "no"))]
        [True, True, False]
    """
    one, other = one.strip().lower(), other.strip().lower()
    plain = _PLAIN_NUMBER.fullmatch(one) or _PLAIN_NUMBER.fullmatch(other)
    if not plain and (_SEPARATOR.search(one) or _SEPARATOR.search(other)):
        return _same_list(_items(one), _items(other))
    numbers = _first_number(one), _first_number(other)
    if numbers[0] is not None and numbers[1] is not None:
        return _same_number(numbers[0], numbers[1])
    return not plain and _same_text(one, other)


class DABStepGrader(Grader):
    """Judges answers by the rules of DABStep.

    The answer is what stands behind the last `Final Answer:`, or else the whole text if it is one line.
    """

    name = "dabstep"

    def identity(self) -> Mapping[str, Any]:
        """Return the grader's name and version."""
        return {"grader": self.name, "version": VERSION}

    def find(self, text: str, reference: str) -> str | None:
        """Return the final answer that a text states; None if it states none."""
        if marked := _FINAL.findall(text):
            return str(marked[-1])
        text = text.strip()
        return text if text and "\n" not in text else None

    def decide(self, answer: str | None, reference: str) -> Verdict:
        """Return the verdict."""
        if answer is None:
            return Verdict(Grade.UNPARSED, None, NO_ANSWER)
        return Verdict(Grade.RIGHT if same_dabstep_answer(answer, reference) else Grade.WRONG, answer)

    def key(self, answer: str) -> Hashable:
        """Return the answer without case, and without white space at its ends."""
        return answer.strip().lower()

    def alike(self, answers: Sequence[str]) -> Iterator[tuple[int, int]]:
        """Yield indices of answers that are the same by the rules."""
        for index, answer in enumerate(answers):
            for earlier in range(index):
                if same_dabstep_answer(answers[earlier], answer):
                    yield earlier, index


def _items(text: str) -> list[str]:
    text = text.removeprefix("[").removesuffix("]")
    return sorted(item for part in _SEPARATOR.split(text) if (item := part.strip()))


def _same_list(one: Sequence[str], other: Sequence[str]) -> bool:
    if len(one) != len(other):
        return False
    return all(first == second or same_dabstep_answer(first, second) for first, second in zip(one, other, strict=True))


def _first_number(text: str) -> float | None:
    found = _FIRST_NUMBER.search(text.replace(",", "").replace("$", ""))
    return float(found[0]) if found else None


def _same_number(one: float, other: float) -> bool:
    if one == other or math.isclose(one, other, rel_tol=_CLOSE, abs_tol=_CLOSE):
        return True
    if one < 1 and other < 1:
        return False
    places = min(_places(one), _places(other))
    return round(one, places) == round(other, places)


def _places(number: float) -> int:
    _, point, decimals = str(number).partition(".")
    return len(decimals) if point else 0


def _same_text(one: str, other: str) -> bool:
    if re.sub(r"\W", "", one) == re.sub(r"\W", "", other):
        return True
    words, others = re.findall(r"\w+", one), re.findall(r"\w+", other)
    if words and others and 1 in (len(words), len(others)):
        return set(words) <= set(others) or set(others) <= set(words)
    matcher = SequenceMatcher(None, one, other)
    # Bounds first: a long text against a short one takes no time then.
    return all(ratio() > _ALIKE for ratio in (matcher.real_quick_ratio, matcher.quick_ratio, matcher.ratio))
