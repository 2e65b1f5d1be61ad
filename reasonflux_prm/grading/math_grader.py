r"""Answers to mathematical problems: numbers at once, everything else by math-verify in worker processes.

The rules, in their order:

1. Equal keys (`grading.keys`) are right: `0.5`, `1/2` and `\frac{1}{2}`; `18 dollars` and `\$18`.
2. Two numbers are right or wrong by `keys.same_number`: exactly, or as a decimal that is right to six places (`0.33` is
   not `1/3`); `50%` is `50` and `0.5`. Numbers of different measures (`10 hours`, `10 minutes`) are different; other
   units are not compared.
3. A reference in words (`Tuesday`) wants these words, whatever their case and article.
4. Of an answer that is a sentence, what it singles out counts (`grading.sentences`).
5. The rest is parsed as LaTeX and compared by math-verify, the reference as its gold: `x = 5` and `9 - 4 = 5` answer
   `5`, `2, 1` answers `1, 2`, `x \le 3` answers `(-\infty, 3]`, `(2, 1)` does not answer `(1, 2)`.

What does not parse, or takes longer than the time limit, is `unparsed` and not wrong.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations, islice
from typing import Any, Final

from reasonflux_prm.errors import MissingExtra
from reasonflux_prm.grading.grader import Grader, Pair, bare_reference
from reasonflux_prm.grading.keys import Key, answer_key, is_words, read_answer, same_answer, same_number
from reasonflux_prm.grading.sentences import is_sentence, singled_out
from reasonflux_prm.grading.verdict import ANSWER_UNREAD, NO_ANSWER, REFERENCE_UNREAD, Grade, Verdict
from reasonflux_prm.grading.workers import Result, WorkerPool

VERSION: Final = 2
TIMEOUT_S: Final = 5.0
LONGEST: Final = 1000
"""Characters of the longest answer or reference that is parsed."""
MOST_COMPARISONS: Final = 500
"""Pairs of answers that one call of `groups` has compared; answers beyond them are the same by their keys only."""

_ARTICLE = re.compile(r"^(?:the|an?)\s+", re.IGNORECASE)
_INSTALL: Final = "pip install 'reasonflux-prm[grade]'"


def can_do_algebra() -> bool:
    """Whether math-verify is installed."""
    return importlib.util.find_spec("math_verify") is not None


class MathGrader(Grader):
    """Judges answers by math-verify, in worker processes that are killed when they take too long.

    Args:
        size: Worker processes.
        timeout_s: Most time for one comparison, in seconds.

    Raises:
        MissingExtra: math-verify is not installed.
    """

    name = "math"

    def __init__(self, size: int = 2, timeout_s: float = TIMEOUT_S) -> None:
        if not can_do_algebra():
            raise MissingExtra(
                f"expected math-verify for the grader {self.name}, but it is not installed: {_INSTALL}, or take the "
                "grader string, numeric or choice"
            )
        self._pool = WorkerPool("reasonflux_prm.grading.algebra:compare", size, timeout_s)

    def identity(self) -> Mapping[str, Any]:
        """Return the grader's name, its version and its packages', and the time limit."""
        from importlib.metadata import version

        packages = {package: version(package) for package in ("math-verify", "latex2sympy2_extended", "sympy")}
        return {"grader": self.name, "version": VERSION, "timeout_s": self._pool.timeout_s, **packages}

    def decide(self, answer: str | None, reference: str) -> Verdict | None:
        """Return the verdict by rules 1 to 4, or why there can be none."""
        reference = bare_reference(reference)
        if answer is None or not answer.strip():
            return Verdict(Grade.UNPARSED, None, NO_ANSWER)
        if not reference:
            return Verdict(Grade.UNPARSED, answer, REFERENCE_UNREAD)
        if same_answer(answer, reference):
            return Verdict(Grade.RIGHT, answer)
        if (same := same_number(read_answer(answer), read_answer(reference))) is not None:
            return Verdict(Grade.RIGHT if same else Grade.WRONG, answer)
        for text, unread in ((reference, REFERENCE_UNREAD), (answer, ANSWER_UNREAD)):
            if len(text) > LONGEST:
                return Verdict(Grade.UNPARSED, answer, f"{unread}: it has {len(text):,} characters")
        if is_words(reference):
            return _in_words(answer, reference)
        core = singled_out(answer)
        if core is None or is_words(answer):
            return Verdict(Grade.UNPARSED, answer, ANSWER_UNREAD)
        if core != answer and (verdict := self.decide(core, reference)) is not None:
            return replace(verdict, answer=answer)
        return None

    def key(self, answer: str) -> Key:
        """Return the key of the answer, or of what it singles out if it is a sentence."""
        return answer_key(_core(answer))

    def settle(self, pairs: Iterable[Pair]) -> Iterator[Verdict]:
        """Yield the verdicts by rule 5."""
        pairs = list(pairs)
        results = self._pool.map((bare_reference(reference), _core(answer), False) for answer, reference in pairs)
        for (answer, _), result in zip(pairs, results, strict=True):
            yield _verdict(answer, result)

    async def asettle(self, pair: Pair) -> Verdict:
        """Return the verdict by rule 5."""
        answer, reference = pair
        return _verdict(answer, await self._pool.arun((bare_reference(reference), _core(answer), False)))

    def alike(self, answers: Sequence[str]) -> Iterator[tuple[int, int]]:
        """Yield indices of answers that are the same expression though their keys differ."""
        answers = [_core(answer) for answer in answers]
        apart = [_apart(answer) for answer in answers]
        comparable = (
            (one, other)
            for one, other in combinations(range(len(answers)), 2)
            # Two numbers with different keys are different answers, and a text is no expression.
            if not (apart[one] and apart[other]) and "text" not in (apart[one], apart[other])
        )
        pairs = list(islice(comparable, MOST_COMPARISONS))
        results = self._pool.map((answers[one], answers[other], True) for one, other in pairs)
        for pair, result in zip(pairs, results, strict=True):
            if result.value == "same":
                yield pair

    def close(self) -> None:
        """End the workers."""
        self._pool.close()


def _core(answer: str | None) -> str:
    return "" if answer is None else singled_out(answer[: LONGEST + 1]) or answer


def _in_words(answer: str, reference: str) -> Verdict:
    """Compare an answer with a reference in words; a sentence that has them may give or refuse them."""
    wanted = _ARTICLE.sub("", reference)
    for text in (answer, singled_out(answer)):
        if text is not None and same_answer(_ARTICLE.sub("", text.strip()), wanted):
            return Verdict(Grade.RIGHT, answer)
    if is_sentence(answer) and re.search(rf"\b{re.escape(wanted)}\b", answer, re.IGNORECASE):
        return Verdict(Grade.UNPARSED, answer, ANSWER_UNREAD)
    return Verdict(Grade.WRONG, answer)


def _apart(answer: str) -> str | None:
    """Return what keeps an answer from being compared by algebra: `number`, `text`, or None if nothing does."""
    if not isinstance(answer_key(answer), str):
        return "number"
    return "text" if is_words(answer) or len(answer) > LONGEST or not answer.strip() else None


def _verdict(answer: str | None, result: Result) -> Verdict:
    if result.error is not None:
        return Verdict(Grade.UNPARSED, answer, result.error)
    return {
        "same": Verdict(Grade.RIGHT, answer),
        "different": Verdict(Grade.WRONG, answer),
        "answer unread": Verdict(Grade.UNPARSED, answer, ANSWER_UNREAD),
        "reference unread": Verdict(Grade.UNPARSED, answer, REFERENCE_UNREAD),
    }[result.value]
