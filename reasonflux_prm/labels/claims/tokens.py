r"""A text of prose, formulas and LaTeX into tokens, in one linear pass.

Everything is kept that could change what a formula next to it means: a word, a mark that is not understood, the end of
a line. Only what never does is dropped (dollar signs, `\left`, bold marks), and the token behind it remembers the edge.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

from reasonflux_prm.labels.claims.vocabulary import (
    COMMANDS,
    COUNTS,
    DROPPED,
    FUNCTIONS,
    PHRASES,
    SHARES,
    SUPERSCRIPTS,
    SYMBOLS,
    UNITS,
    VULGAR_FRACTIONS,
    WORD_FUNCTIONS,
    WORDS,
    Kind,
)
from reasonflux_prm.steps.protect import protected_spans

_LONGEST_NUMBER = 60
"""Digits; a longer run is STRANGE. Nobody states a claim about it, and reading it takes more than linear time."""


@dataclass(slots=True)  # frozen ones take three times as long to make
class Token:
    """One token and where it stands in the text."""

    kind: Kind
    text: str
    """The one spelling that the parser knows; of a WORD, its lower-case letters."""
    start: int
    stop: int
    gap: bool = False
    """White space, or a mark that was dropped, stands before it."""
    edge: bool = False
    """The border of a formula, or a bold mark, stands before it."""
    formula: bool = False
    """It stands inside LaTeX."""
    value: Fraction | None = None
    """Of a NUMBER."""
    decimals: int = 0
    """Digits that a NUMBER shows behind the point."""
    spoken: bool = False
    """An operator or a relation in words."""
    doubtful: bool = False
    """A times sign that may be a variable instead."""


_PHRASE = "|".join(re.escape(phrase) for phrase in sorted(PHRASES, key=len, reverse=True))
_SHARE = "|".join(sorted(SHARES, key=len, reverse=True))
_COUNT = "|".join(count for count in COUNTS if count)
_RAISED = "⁰¹²³⁴⁵⁶⁷⁸⁹"
_LETTER = rf"[^\W\d_{_RAISED}₀-₉ₐₑₙₘᵢⱼₖ{''.join(VULGAR_FRACTIONS)}]"
_TOKEN = re.compile(
    rf"""(?P<space>(?:[^\S\n]|\\[,;:!\ ]|[~&$€£¥"“”‘`])+)
    |(?P<line>\n|\\\\(?:\[[\w.\- ]{{0,12}}\])?)
    |(?P<environment>\\(?:begin|end)\s?\{{[^{{}}\n]{{0,20}}\}})
    |\\(?:text|textrm|textbf|textit|mathrm|mbox|operatorname)\s?\{{(?P<prose>[^{{}}\n]{{0,200}})\}}
    |\\log\s?_\s?(?:\{{(?P<base>\d{{1,6}})\}}|(?P<digit>\d))
    |\\(?P<command>[A-Za-z]+)(?:(?<=\\left)\.|(?<=\\right)\.)?
    |\\(?P<escape>.)
    |(?P<tag></?[A-Za-z][^<>\n]{{0,60}}>)
    |(?P<number>\d{{1,3}}(?:(?:,|\{{,\}}|\\,|\\!,|,\\!)\d{{3}}){{1,9}}+(?!,?\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)
     (?P<dots>\.{{3}}|…|\s?\\[lc]?dots\b)?
    |(?P<vulgar>[{"".join(VULGAR_FRACTIONS)}])
    |(?P<superscript>[{_RAISED}]+)
    |(?P<arrow>={{1,3}}>|-{{1,5}}>|<-{{1,5}}|-{{3,}})
    |(?P<dotted>\.\.+|…)
    |(?P<stars>\*\*)
    |(?P<sign>!=(?!=)|<=|>=|={{1,3}}|[-−–﹣+*×·∙⋅✕✖/÷⁄∕^%!°≈≃≅∼≡≠<>≤⩽≥⩾√π()\[\]{{}}.,;:?•—→⇒⟹⟶∴∵¢])
    |_(?:\{{(?P<group>[^{{}}\n]{{1,30}})\}}|(?P<subscript>[^\W_]))
    |(?P<phrase>(?<![^\W_])(?i:{_PHRASE})(?![^\W_]))
    |(?<![^\W_])(?i:(?:(?P<count>{_COUNT})[ -])?(?P<share>{_SHARE})\ of)(?=\ \$?[\d(])
    |(?P<lowered>[₀₁₂₃₄₅₆₇₈₉ₐₑₙₘᵢⱼₖ]+)
    |(?P<word>{_LETTER}+(?:['’]{_LETTER}+)*)
    |(?P<other>.)""",
    re.VERBOSE,
)
_BULLET = re.compile(
    r"^[^\S\n]*+(?:[-*•+][^\S\n]++|(?:\d{1,3}[.)]|\(\d{1,2}\)|\(?[a-zA-Z]\))[^\S\n]++(?![-+*/×÷=^<>\\]))", re.MULTILINE
)
_OPERAND_ENDS = frozenset({Kind.NUMBER, Kind.NAME, Kind.CLOSE})
_BARE_ARGUMENTS = {"frac": 2, "binom": 2, "sqrt": 1}
_GROUPING = re.compile(r"[^\d.]")
_TOLD_BY_NEIGHBOURS = frozenset({"x", "X", "a", "A", "I", "of"})
_STARTS_OPERAND = frozenset({Kind.NUMBER, Kind.NAME, Kind.OPEN, Kind.COMMAND})
_DROPS_NO_EDGE = frozenset("\\,;:!~& \t")


def tokenize(text: str) -> list[Token]:
    """Cut a text into tokens; time is linear in its length."""
    text = _BULLET.sub(lambda bullet: "\n".rjust(len(bullet[0])), text)
    formulas = protected_spans(text)
    starts = [start for start, _ in formulas]
    tokens: list[Token] = []
    gap = edge = False
    for match in _TOKEN.finditer(text):
        group = match.lastgroup or "other"
        if group == "space":
            gap, edge = True, edge or not _DROPS_NO_EDGE.issuperset(match[0])
            continue
        place = bisect_right(starts, match.start()) - 1 if starts else -1
        formula = place >= 0 and match.start() < formulas[place][1]
        found = tuple(_READERS[group](_Match(match, formula, tokens, gap, edge)))
        if found:
            gap = edge = False
            tokens.extend(found)
        else:
            gap, edge = gap or group != "command", edge or group != "command"
    return _settled(tokens, text)


@dataclass(slots=True)
class _Match:
    """One match of the pattern, and what stands before it."""

    match: re.Match[str]
    formula: bool
    before: list[Token]
    gap: bool
    edge: bool

    @property
    def sign(self) -> str:
        return self.match[0]

    @property
    def last(self) -> Token | None:
        """Return the token that this one touches."""
        touching = self.before and self.before[-1].stop == self.match.start()
        return self.before[-1] if touching else None

    def make(
        self, kind: Kind, text: str, value: Fraction | None = None, decimals: int = 0, spoken: bool = False
    ) -> Token:
        start, stop = self.match.span()
        gap, edge, self.gap, self.edge = self.gap, self.edge, False, False
        return Token(kind, text, start, stop, gap, edge, self.formula, value, decimals, spoken)


def _stop(found: _Match) -> Iterator[Token]:
    yield found.make(Kind.STOP, "\n" if found.match.lastgroup == "line" else "⇒")


def _strange(found: _Match) -> Iterator[Token]:
    yield found.make(Kind.STRANGE, found.sign)


def _environment(found: _Match) -> Iterator[Token]:
    table = re.search("matrix|array|cases|tabular", found.sign)
    yield found.make(Kind.STRANGE, found.sign) if table else found.make(Kind.STOP, "\n")


def _prose(found: _Match) -> Iterator[Token]:
    prose = found.match["prose"].strip().lower()
    plain = re.search(r"[^\W_]", prose) and not re.search(r"[\d=+*/^\\$]", prose)
    yield found.make(Kind.WORD if plain else Kind.STRANGE, prose)


def _logarithm(found: _Match) -> Iterator[Token]:
    yield found.make(Kind.COMMAND, "log", Fraction(found.match["base"] or found.match["digit"]))


def _command(found: _Match) -> Iterator[Token]:
    name = found.match["command"]
    if name in DROPPED:
        return
    if name in FUNCTIONS:
        yield found.make(Kind.COMMAND, name)
    else:
        kind, text = COMMANDS.get(name, (Kind.STRANGE, name))
        yield found.make(kind, text)


def _escape(found: _Match) -> Iterator[Token]:
    if found.sign[1] == "%":
        yield found.make(Kind.OPERATOR, "%")
    elif found.sign[1] not in "()[]$":
        yield found.make(Kind.STRANGE, found.sign)


def _number(found: _Match) -> Iterator[Token]:
    digits = _GROUPING.sub("", found.match["number"])
    last = found.last
    # 0900 is a time, 007 a name.
    coded = len(digits) > 1 and digits[0] == "0" and digits[1] != "."
    if coded or len(digits) > _LONGEST_NUMBER or (last is not None and last.kind is Kind.WORD):
        yield found.make(Kind.STRANGE, found.sign)
    elif last is not None and last.kind is Kind.NAME and last.text not in "xX" and not found.formula:
        found.before.pop()
        yield replace(last, text=last.text + digits, stop=found.match.end())
    elif last is not None and last.kind is Kind.COMMAND and last.text in _BARE_ARGUMENTS:
        yield from _bare_arguments(found, digits, _BARE_ARGUMENTS[last.text])
    else:
        decimals = len(digits.partition(".")[2])
        value = Fraction(int(digits)) if digits.isdigit() else Fraction(digits)
        yield found.make(Kind.NUMBER, digits, value, decimals)
        if found.match["dots"] and not decimals:
            yield found.make(Kind.STRANGE, "…")


def _bare_arguments(found: _Match, digits: str, count: int) -> Iterator[Token]:
    r"""Yield the digits behind a command without braces one by one: `\frac12` is a half, `\sqrt2` a root of 2."""
    if len(digits) > count:
        yield found.make(Kind.STRANGE, digits)
    else:
        yield from (found.make(Kind.NUMBER, digit, Fraction(digit)) for digit in digits)


def _vulgar(found: _Match) -> Iterator[Token]:
    yield found.make(Kind.NUMBER, found.sign, VULGAR_FRACTIONS[found.sign])


def _superscript(found: _Match) -> Iterator[Token]:
    digits = found.sign.translate(SUPERSCRIPTS)
    yield found.make(Kind.OPERATOR, "^")
    yield found.make(Kind.NUMBER, digits, Fraction(digits[:_LONGEST_NUMBER]))


def _stars(found: _Match) -> Iterator[Token]:
    """Two stars are a power where they touch what they stand between, and bold marks elsewhere."""
    last = found.last
    after = found.match.string[found.match.end() : found.match.end() + 1]
    if last is not None and last.kind in _OPERAND_ENDS and (after.isalnum() or after in ("(", "-")):
        yield found.make(Kind.OPERATOR, "^")


def _sign(found: _Match) -> Iterator[Token]:
    sign, last, text = found.sign, found.last, found.match.string
    start, stop = found.match.span()
    touches = last is not None and last.kind in _OPERAND_ENDS
    if sign == "!=" and touches and last is not None and last.kind is not Kind.NAME:
        yield found.make(Kind.OPERATOR, "!")
        yield found.make(Kind.RELATION, "=")
    elif sign == "!" and not touches:
        yield found.make(Kind.STOP, sign)
    elif sign == ":" and text[start - 1 : start].isdigit() and text[stop : stop + 1].isdigit():
        yield found.make(Kind.STRANGE, sign)
    elif sign == "¢":
        yield found.make(Kind.WORD, "cents")
    else:
        kind, spelling = SYMBOLS[sign]
        yield found.make(kind, spelling or sign)


def _subscript(found: _Match) -> Iterator[Token]:
    """Make a subscript part of its name; behind anything else it is strange (`101_2` is no plain number)."""
    last = found.last
    if last is None or last.kind not in (Kind.NAME, Kind.WORD):
        yield found.make(Kind.STRANGE, found.sign)
        return
    found.before.pop()
    inner = next(text for text in found.match.group("group", "subscript", "lowered") if text).strip()
    yield replace(last, kind=Kind.NAME, text=f"{last.text}_{inner}", stop=found.match.end())


def _phrase(found: _Match) -> Iterator[Token]:
    kind, text = PHRASES[found.sign.lower()]
    yield found.make(kind, text, spoken=True)


def _share(found: _Match) -> Iterator[Token]:
    """Read "half of", "two thirds of" as a number and a product."""
    value = Fraction(COUNTS[(found.match["count"] or "").lower()], SHARES[found.match["share"].lower()])
    yield found.make(Kind.NUMBER, found.sign, value)
    yield found.make(Kind.OPERATOR, "*", spoken=True)


def _word(found: _Match) -> Iterator[Token]:
    word, text, stop, last = found.sign, found.match.string, found.match.end(), found.last
    lower = word.lower()
    counted = last is not None and last.kind in (Kind.NUMBER, Kind.CLOSE)
    if counted and lower in ("st", "nd", "rd", "th"):
        found.before.pop()
        yield found.make(Kind.STRANGE, word)
        return
    if lower in WORD_FUNCTIONS and text[stop : stop + 1] == "(":
        yield found.make(Kind.COMMAND, WORD_FUNCTIONS[lower])
    elif lower in WORDS:
        kind, spelling = WORDS[lower]
        yield found.make(kind, spelling, spoken=True)
    elif len(word) == 1 or (found.formula and len(word) <= 3 and word.isupper()):
        yield found.make(Kind.NAME, word)
    elif len(word) <= 3 and word.isascii() and ((found.formula and word.islower()) or (counted and lower not in UNITS)):
        start, gap, edge = found.match.start(), found.gap, found.edge
        yield Token(Kind.NAME, word[0], start, start + 1, gap, edge, found.formula)
        for place, letter in enumerate(word[1:], start + 1):
            yield Token(Kind.NAME, letter, place, place + 1, formula=found.formula)
    else:
        yield found.make(Kind.WORD, lower)


_READERS: dict[str, Callable[[_Match], Iterator[Token]]] = {
    "line": _stop,
    "environment": _environment,
    "prose": _prose,
    "base": _logarithm,
    "digit": _logarithm,
    "command": _command,
    "escape": _escape,
    "tag": _stop,
    "number": _number,
    "dots": _number,
    "vulgar": _vulgar,
    "superscript": _superscript,
    "arrow": _stop,
    "dotted": _strange,
    "stars": _stars,
    "sign": _sign,
    "group": _subscript,
    "subscript": _subscript,
    "lowered": _subscript,
    "phrase": _phrase,
    "share": _share,
    "word": _word,
    "other": _strange,
}


def _settled(tokens: list[Token], text: str) -> list[Token]:
    """Decide what only a token's neighbours tell: the x of "3 x 4", the article of "a 5", "three times"."""
    nothing = Token(Kind.STOP, "\n", 0, 0)
    padded = [nothing, *tokens, nothing]
    settled: list[Token] = []
    for before, token, after in zip(padded, tokens, padded[2:], strict=False):
        if not token.spoken and token.text not in _TOLD_BY_NEIGHBOURS:
            pass
        elif _is_times_sign(before, token, after) or _is_share_of(settled, token, after):
            doubtful = _touches_as_times(before, token, after)
            token = replace(token, kind=Kind.OPERATOR, text="*", spoken=token.kind is Kind.WORD, doubtful=doubtful)
        elif _is_article(token, after) or _is_plain_word(before, token, after):
            token = replace(token, kind=Kind.WORD, text=text[token.start : token.stop].lower())
        settled.append(token)
    return settled


def _ends_operand(token: Token) -> bool:
    return token.kind in _OPERAND_ENDS or token.kind is Kind.WORD or token.text in ("%", "°", "!")


def _is_times_sign(before: Token, token: Token, after: Token) -> bool:
    if token.kind is not Kind.NAME or token.text not in "xX" or not _ends_operand(before):
        return False
    if token.gap and after.gap:
        return after.kind in (Kind.NUMBER, Kind.OPEN, Kind.COMMAND)
    return _touches_as_times(before, token, after)


def _touches_as_times(before: Token, token: Token, after: Token) -> bool:
    """Tell whether an x stands right between two numbers: a product, or a variable whose exponent lost its place."""
    touching = before.kind is Kind.NUMBER and not token.gap and (not after.gap or after.edge)
    return touching and after.kind is Kind.NUMBER


def _is_article(token: Token, after: Token) -> bool:
    alone = token.kind is Kind.NAME and token.text in "aAI" and not token.formula and after.gap
    return alone and after.kind in (Kind.WORD, Kind.NUMBER)


def _is_plain_word(before: Token, token: Token, after: Token) -> bool:
    """Tell a word that could be an operator from one: "3 times 4" and "three times as many"."""
    if not token.spoken or token.kind is not Kind.OPERATOR:
        return False
    starts = after.kind in _STARTS_OPERAND or after.text == "-"
    return not _ends_operand(before) or not (starts or token.text in ("%", "°", "²", "³"))


def _is_share_of(before: list[Token], token: Token, after: Token) -> bool:
    """Tell the product in "20% of 50" and "2/3 of 12" from the "of" in "3 of 12" and "a cup of 5"."""
    if token.text != "of" or token.kind is not Kind.WORD or not before or after.kind not in _STARTS_OPERAND:
        return False
    last = before[-1]
    slash = len(before) > 1 and before[-2].text == "/" and last.kind is Kind.NUMBER
    return last.text in ("%", "}") or slash
