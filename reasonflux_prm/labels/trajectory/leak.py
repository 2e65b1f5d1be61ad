r"""What gives a solution away in a template: a number in any form, or the final answer.

If a template holds the answer, attempts that follow it are right whatever the strategy is worth, and the trajectory
reward measures nothing. So the filter is strict: any number counts, not only those of the solution, and a template with
one is written again.

It knows digits of every script, fractions, percentages, LaTeX, numbers in English words and runs of Chinese numerals,
and the final answer as it is written and in the forms that `grading.keys` takes for the same. The word "one" counts
only where it is the answer, and "first" or "second" never do: they order things. What it cannot see: an answer in other
words ("the smallest even prime"), numbers in words of other languages, and actions that lead to the answer by name
alone.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from reasonflux_prm.grading.grader import bare_reference
from reasonflux_prm.grading.keys import read_answer

_TEENS = "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
_ORDINALS = "fifth sixth seventh eighth ninth tenth"
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_WORDS = {
    word: value for value, word in enumerate(f"zero one two three four five six seven eight nine {_TEENS}".split())
}
_WORDS |= {word: 10 * tens for tens, word in enumerate(_TENS.split(), 2)}
_SCALES = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "dozen": 12}
_ANY_WORD = "|".join([*_WORDS, *_SCALES])
_IN_WORDS = re.compile(rf"\b(?:{_ANY_WORD})(?:[\s-]+(?:and\s+)?(?:{_ANY_WORD}))*\b")
_PARTS = {"halves": 2, "fourth": 4} | {
    word: parts for parts, word in enumerate(f"half third quarter {_ORDINALS}".split(), 2)
}
_PART = rf"(?:{'|'.join(_PARTS)})"
_PARTS_IN_WORDS = re.compile(
    rf"\bone[\s-](?P<one>{_PART})\b|\ban?\s(?P<of>{_PART})\s+of\b"
    r"|\b(?P<half>half|halves)\b(?![\s-](?:plane|angle|space|line|life|way|open|closed|integer))"
)

_PLAIN = r"\d+(?:,\d{3})*(?:\.\d+)?|\.\d+"
_IN_DIGITS = re.compile(
    rf"(?:\\[dtc]?frac\s*\{{?\s*(?P<top>{_PLAIN})\s*\}}?\s*\{{?\s*(?P<bottom>{_PLAIN})\s*\}}?"
    rf"|(?P<over>{_PLAIN})\s*/\s*(?P<under>{_PLAIN})|(?P<plain>{_PLAIN}))(?P<percent>\s*(?:\\?%|per\s?cent\b))?"
)
_CHINESE = re.compile("[〇零一二两三四五六七八九十百千万亿]{2,}")
_VULGAR = re.compile("(?=[\u00bc-\u00be\u2150-\u215e])")
_MOST_DIGITS = 100
"""A longer number is compared as text."""

_BOX = re.compile(r"\\(?:boxed|fbox)\b")
_FRACTION = re.compile(r"\\[dtc]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
_WRAPPER = re.compile(r"\\(?:text(?:bf|it|rm)?|math(?:rm|bf|it)|mbox|operatorname|left|right)(?![a-zA-Z])")
_NAMES = str.maketrans({"π": " pi ", "√": " sqrt ", "∞": " infty ", "\u2212": "-", "\u2044": "/"})
_TOKEN = re.compile(r"[^\W\d_]+|\d+|[^\w\s{}()$\\]")
_BETWEEN = r"[\s{}()$\\]*+"
_MOST_TOKENS = 60
"""So much is looked for of the beginning of a longer answer."""

_Key = Fraction | str


@dataclass(frozen=True, slots=True)
class _Number:
    text: str
    keys: frozenset[_Key]
    """The values that it may stand for."""
    certain: bool = True
    """False for the word "one", which is a pronoun more often than a number."""


def find_leaks(text: str, answer: str, problem: str | None = None) -> tuple[str, ...]:
    """Return what a template gives away, each as a phrase; empty if it is clean.

    Args:
        text: The template.
        answer: The reference answer, in any form that a grader takes.
        problem: Where given, numbers that stand in it are allowed, unless they are the answer.
    """
    final = bare_reference(answer)
    secret = _answer_keys(final)
    allowed = frozenset(key for number in _numbers(problem or "") for key in number.keys)
    leaks = ["a box for the answer"] if _BOX.search(text) else []
    for number in _numbers(text):
        if number.keys & secret:
            leaks.append(f"the final answer as {number.text!r}")
        elif number.certain and not number.keys & allowed:
            leaks.append(f"the number {number.text!r}")
    if not secret and (said := _stated(text, final)):
        leaks.append(f"the final answer as {said!r}")
    return tuple(dict.fromkeys(leaks))


def _answer_keys(final: str) -> frozenset[_Key]:
    """Return the values of an answer that is a number, whatever its sign; empty if it is none."""
    reading = read_answer(final)
    if not isinstance(reading.value, Fraction):
        return frozenset()
    value = abs(reading.value)
    return frozenset([value, value / 100] if reading.unit == "%" else [value])


def _numbers(text: str) -> Iterator[_Number]:
    """Yield every number in a text, in whatever form."""
    for sign in text:
        if unicodedata.category(sign) == "Nl":
            yield _Number(sign, frozenset([Fraction(unicodedata.numeric(sign))]))
    # Vulgar fractions become 1/2, superscripts and full-width digits plain ones.
    plain = unicodedata.normalize("NFKC", _VULGAR.sub(" ", text)).translate(_NAMES).casefold()
    for sign in plain:
        if unicodedata.category(sign) == "No":
            yield _Number(sign, frozenset([Fraction(unicodedata.numeric(sign)).limit_denominator(1000)]))
    for found in _CHINESE.finditer(plain):
        yield _Number(found[0], frozenset([found[0]]))
    for found in _IN_DIGITS.finditer(plain):
        yield _Number(found[0].strip(), _digit_keys(found))
    for found in _PARTS_IN_WORDS.finditer(plain):
        part = found["one"] or found["of"] or found["half"]
        yield _Number(found[0], frozenset([Fraction(1, _PARTS[part])]))
    for found in _IN_WORDS.finditer(plain):
        for words, value in _read_words(re.split(r"[\s-]+", found[0])):
            yield _Number(words, frozenset([Fraction(value)]), certain=words != "one")


def _digit_keys(found: re.Match[str]) -> frozenset[_Key]:
    top, bottom = found["top"] or found["over"] or found["plain"], found["bottom"] or found["under"] or "1"
    if len(top) + len(bottom) > _MOST_DIGITS or not Fraction(below := bottom.replace(",", "")):
        return frozenset([found[0]])
    value = Fraction(top.replace(",", "")) / Fraction(below)
    return frozenset([value, value / 100] if found["percent"] else [value])


def _read_words(words: Sequence[str]) -> Iterator[tuple[str, int]]:
    """Yield the numbers that a run of number words says: "two hundred and five six" is 205 and 6."""
    said: list[str] = []
    total = current = below = 0
    for word in words:
        if word == "and":
            # It joins "two hundred and five", and parts "two and three".
            below = below if said[-1] in _SCALES else 0
            continue
        if word in _SCALES and said:
            current = max(current, 1) * _SCALES[word]
        elif said and _value(word) < below:
            current += _value(word)
        else:
            if said:
                yield " ".join(said), total + current
            said, total, current = [], 0, _value(word)
        said.append(word)
        # What may follow and still belong to the number: units behind tens, anything below behind a scale.
        below = 100 if word in _SCALES else 10 if _WORDS.get(word, 0) >= 20 else 0
        if _SCALES.get(word, 0) >= 1000:
            total, current = total + current, 0
    yield " ".join(said), total + current


def _value(word: str) -> int:
    return _SCALES[word] if word in _SCALES else _WORDS[word]


def _stated(text: str, final: str) -> str | None:
    """Return where a text states an answer that is no number, as it is written there; None if it does not."""
    shown = _unwrapped(text)
    for form in dict.fromkeys([final, str(read_answer(final).value)]):
        plain = _unwrapped(form)
        tokens = _TOKEN.findall(plain.casefold())[:_MOST_TOKENS]
        if not tokens:
            continue
        if len(tokens) == 1 and len(tokens[0]) == 1 and tokens[0].isalpha():
            # A letter alone may name a point or be an article: it is the answer where it is said to be.
            letter = next(sign for sign in plain if sign.isalpha())
            named = r"\b(?i:option|choice|answer|alternative)(?:\s+(?i:is))?[\s:]*[({$]*"
            found = re.search(rf"\({letter}\)|{named}{letter}\b", shown)
        else:
            start, stop = r"(?<!\w)" if tokens[0].isalnum() else "", r"(?!\w)" if tokens[-1].isalnum() else ""
            found = re.search(start + _BETWEEN.join(map(re.escape, tokens)) + stop, shown.casefold())
        if found:
            return found[0]
    return None


def _unwrapped(text: str) -> str:
    """Return a text without the wrappers of LaTeX, its fractions with a slash."""
    plain = unicodedata.normalize("NFKC", text).translate(_NAMES)
    return _FRACTION.sub(r"\1/\2", _WRAPPER.sub("", plain))
