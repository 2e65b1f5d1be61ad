"""The answer within a sentence that gives it: `Erin has **14 lollipops** left`."""

from __future__ import annotations

import re

from reasonflux_prm.grading.keys import FUNCTIONS
from reasonflux_prm.grading.numbers import read_number

_PROSE = re.compile(r"(?<![\\a-zA-Z])[A-Za-z]{3,}(?![a-zA-Z(])")
_LONG = 4
_TRAILING = re.compile(r"\\(?:text|mathrm|mbox)\s*\{[^{}]*\}(?:\^\{?\d\}?)?\s*\.?\s*$")
_ENVIRONMENT = re.compile(r"\\(?:begin|end)\s*\{[^{}]*\}")
_CONNECTIVES = frozenset({"and", "for", "where"})
_MATHS = re.compile(r"(?<!\\)\$(?=\S)([^$]+?)(?<=\S)\$(?!\d)|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_BOLD = re.compile(r"\*\*(?=\S)(.+?)(?:\*\*|$)")


def is_sentence(answer: str) -> bool:
    r"""Whether an answer has words in it, beside a unit in `\text{}` at its end: two, or a long one.

    Names of functions, commands of LaTeX and products of up to three letters (`6abc`) or of capitals are no words.
    """
    words = [word for word in _PROSE.findall(_ENVIRONMENT.sub("", _TRAILING.sub("", answer))) if not word.isupper()]
    words = [word for word in map(str.casefold, words) if word not in _CONNECTIVES and not FUNCTIONS.fullmatch(word)]
    return len(words) > 1 or any(len(word) >= _LONG for word in words)


def singled_out(answer: str) -> str | None:
    """Return the answer that a sentence gives: its only formula, its only bold text, or its only number.

    An answer that is no sentence is returned as it is; None if the sentence singles nothing out.
    """
    return answer if not is_sentence(answer) else _settled(answer)


def _settled(answer: str) -> str | None:
    if not is_sentence(answer):
        return answer
    for marked in (_MATHS, _BOLD):
        spans = {next(filter(None, span.groups())).strip() for span in marked.finditer(answer)}
        if len(spans) == 1 and (inner := _settled(spans.pop())) is not None:
            return inner
    number = read_number(answer)
    return None if number is None else f"{number.value}{number.unit if number.unit == '%' else ''}"
