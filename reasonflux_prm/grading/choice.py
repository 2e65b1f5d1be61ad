r"""The letter of a multiple-choice answer, in the ways in which models write it."""

from __future__ import annotations

import re

from reasonflux_prm.grading.answers import stated_answer

_MAX_CHARACTERS = 1000
_WRAPPED = re.compile(r"\\(?:text(?:bf|it|rm|sf)?|math(?:rm|bf|sf|it)|mbox|boxed|fbox)\s*\{([^{}]*)\}")
_DROPPED = re.compile(r"\\(?:left|right)(?![a-zA-Z])|\\[,;:! ()\[\]]|\$|\*\*|[{}\"'`_]")
_LEAD = re.compile(
    r"\W*(?:the\s+)?(?:(?:correct|best|final|right)\s+)*(?:option|choice|answer)s?\b(?:\s+is\b)?\W*", re.I
)
_LETTER = r"(?:\(\s*[A-Ja-j]\s*\)|[A-J](?![\w'\u2019])|[a-j](?=\s*[).:]|\s*$))"
_LETTERS = re.compile(
    rf"[\s(\[]*(?P<first>{_LETTER})(?P<more>(?:[\s)]*(?:,|;|&|/|\band\b|\bor\b)+\s*{_LETTER})*)(?P<rest>.*)", re.S
)
_WORD_BEHIND = re.compile(r"\s+(?!(?:because|since|as|is|and|with|which|due|for|from|by|based)\b)[a-z]")
"""A small word behind a bare `A` or `I`, which makes it an article or the writer, unless it gives a reason."""
_RUN = re.compile("[A-J]{2,10}")
_MENTION = re.compile(
    r"\b(?:option|choice|answer)\s+(?:is\s+)?\(?(?P<named>[A-J])\b(?![\w'\u2019])|\((?P<closed>[A-J])\)", re.I
)


def read_choice(answer: str) -> str | None:
    r"""Return the letter, or the letters in order, that an answer gives; None if it gives none.

    Letters are A to J, in either case.

    Example:
        >>> [read_choice(answer) for answer in (r"\text{(B)}", "B. because it floats", "(c) and (a)", "a dog")]
        ['B', 'B', 'AC', None]
    """
    text = _bare(answer[:_MAX_CHARACTERS])
    if lead := _LEAD.match(text):
        text = text[lead.end() :]
    if _RUN.fullmatch(text) and list(text) == sorted(set(text)):
        return text
    found = _LETTERS.fullmatch(text)
    if found and not (found["first"] in ("A", "I") and not found["more"] and _WORD_BEHIND.match(found["rest"])):
        return "".join(sorted(set(re.findall(r"\b[A-J]\b", (found["first"] + found["more"]).upper()))))
    named = {(mention["named"] or mention["closed"]).upper() for mention in _MENTION.finditer(text)}
    return named.pop() if len(named) == 1 else None


def stated_choice(text: str) -> str | None:
    """Return the part of a text that states its choice, as it is written there; None if it states none.

    Where there is no final answer as in `stated_answer`, it is the last line, if that is or begins with a letter, or
    the last `option X` or `(X)`.
    """
    if (stated := stated_answer(text)) is not None:
        return stated
    lines = text.strip()[-_MAX_CHARACTERS:].splitlines()
    if not lines:
        return None
    if _LETTERS.fullmatch(_bare(lines[-1])) and read_choice(lines[-1]) is not None:
        return lines[-1].strip()
    mentions = list(_MENTION.finditer(text[-_MAX_CHARACTERS:]))
    return mentions[-1][0] if mentions else None


def _bare(text: str) -> str:
    while (bare := _WRAPPED.sub(r"\1", text)) != text:
        text = bare
    return _DROPPED.sub("", text).strip()
