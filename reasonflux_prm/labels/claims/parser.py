r"""Tokens into expressions: a recursive descent that evaluates nothing and gives up early.

Some notation has two readings ("1/2x", "2½ as 2\frac12", "-3^2", "5 (3 + 2)"). The parser takes the one of `Reading`
and notes which doubts it met, so that a caller can try the others before it calls a claim false.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Flag, auto
from fractions import Fraction

from reasonflux_prm.labels.claims.expressions import Call, Expr, Name, Num
from reasonflux_prm.labels.claims.tokens import Token
from reasonflux_prm.labels.claims.vocabulary import FUNCTION_LETTERS, FUNCTIONS, SCALES, UNIT_ENDS, Kind

DEEPEST = 40
LONGEST = 300
"""Tokens of one expression; a longer one is no claim that a person makes."""
_MOST_UNIT_WORDS = 8


class Reading(Flag):
    """Second readings of doubtful notation; no flag is the usual reading."""

    USUAL = 0
    MIXED_PRODUCT = auto()
    r"""`2\frac{1}{2}` is 1, not two and a half."""
    LOOSE_SLASH = auto()
    """`1/2x` is 1/(2x), not half of x."""
    FRACTION_LAST = auto()
    """`25 / 1/3` is 75: the numbers that touch their slash, or the last two, are a fraction."""
    TIGHT_MINUS = auto()
    """`-3^2` is 9, not -9."""
    TEXT_BRACKETS = auto()
    """`10 (5 + 5)` is 10 and a remark, not 100."""
    PLAIN_PERCENT = auto()
    """`20%` is 20, not a fifth."""
    MARKUP = auto()
    """`600 + 30%` is 780: the percentage is of the number before it."""
    LETTER_X = auto()
    """`36x2` is 36 x^2 and no product of numbers; it has no second value, for x is unknown."""
    FLAT_POWER = auto()
    """`62 + 62 = 72` is 6^2 + 6^2: all exponents 2 and 3 have lost their place."""
    WIDE_SLASH = auto()
    """`7*6*5 / 3*2*1` is 35: everything behind the slash divides."""
    RESULT_FIRST = auto()
    """`= 1/3 of $150` is a third, and of what is said behind it."""
    DEGREES = auto()
    """`sin 30` is a half: the argument is in degrees."""
    COMMON_LOG = auto()
    """`log 100` is 2: the base is 10."""
    UNIT_SCALE = auto()
    """`20 million` is 20, the million being its unit."""
    NO_FACTORIAL = auto()
    """`= 24!` is 24, said with emphasis."""


class NotParsed(Exception):
    """The tokens are no expression that the parser knows."""


@dataclass
class Parser:
    """Parses `tokens[position:stop]`; `position` moves on."""

    tokens: Sequence[Token]
    position: int
    stop: int
    reading: Reading = Reading.USUAL
    doubts: Reading = Reading.USUAL
    """Second readings that would make a difference."""
    units: set[str] = field(default_factory=set)
    """Words that stood behind numbers."""
    measured: int = 0
    """How many times some did."""
    depth: int = 0

    def expression(self) -> Expr:
        """Parse the longest expression from `position` on.

        Raises:
            NotParsed: There is none.
        """
        if self.stop - self.position > LONGEST:
            self.stop = self.position + LONGEST
        return self._sum()

    def doubt(self, reading: Reading) -> bool:
        """Note a doubt, and return whether it is read the second way."""
        self.doubts |= reading
        return reading in self.reading

    def peek(self, ahead: int = 0) -> Token | None:
        """Return a token to come, or None behind the end."""
        place = self.position + ahead
        return self.tokens[place] if place < self.stop else None

    def at(self, *texts: str, ahead: int = 0) -> bool:
        """Tell whether the token to come is an operator or a bracket of one of these spellings."""
        token = self.peek(ahead)
        return token is not None and token.text in texts and token.kind in (Kind.OPERATOR, Kind.OPEN, Kind.CLOSE)

    def _touches(self, text: str) -> bool:
        """Tell whether an operator to come touches the operand before it and the number behind it."""
        after = self.peek(1)
        if after is None or after.kind is not Kind.NUMBER or after.gap:
            return False
        return self.at(text) and not self.tokens[self.position].gap

    def _sum(self) -> Expr:
        self.depth += 1
        if self.depth > DEEPEST:
            raise NotParsed
        left = self._product()
        while self.at("+", "-") and self._goes_on():
            sign = self.tokens[self.position].text
            self.position += 1
            right = self._product()
            if isinstance(right, Call) and right.op == "%" and self.doubt(Reading.MARKUP):
                right = Call("*", (left, right))
            left = Call(sign, (left, right))
        self.depth -= 1
        return left

    def _goes_on(self) -> bool:
        """Tell whether an operand follows the operator to come; "= 5 - which is" ends before it."""
        after = self.peek(1)
        if after is None or after.kind in (Kind.STOP, Kind.WORD, Kind.STRANGE, Kind.RELATION, Kind.CLOSE):
            return False
        return after.kind is not Kind.OPERATOR or after.text in "+-"

    def _product(self) -> Expr:
        left = self._factor()
        while True:
            if self.at("*", "/", "mod") and self._goes_on():
                operator = self.tokens[self.position]
                if operator.spoken and operator.text == "*" and self.doubt(Reading.RESULT_FIRST):
                    return left
                sign = operator.text
                self.position += 1
                if operator.doubtful:
                    self.doubt(Reading.LETTER_X)
                right = self._factor()
                while sign == "/" and operator.gap and self.at("*") and self.doubt(Reading.WIDE_SLASH):
                    self.position += 1
                    right = Call("*", (right, self._factor()))
                if sign == "/" and self.at("/") and self._goes_on() and self.doubt(Reading.FRACTION_LAST):
                    self.position += 1
                    right = Call("/", (right, self._factor()))
                while sign == "/" and self._juxtaposed() and self.doubt(Reading.LOOSE_SLASH):
                    right = Call("*", (right, self._power()))
                left = Call(sign, (left, right))
            elif self.at("/") and self._word_at(1):
                self.position += 1
                self._unit()
            elif self._juxtaposed():
                left = Call("*", (left, self._power()))
            else:
                return left

    def _juxtaposed(self) -> bool:
        """Tell whether what comes is multiplied without a sign: 2x, 3(4), 2 sqrt(3)."""
        token, last = self.peek(), self.tokens[self.position - 1]
        if token is None or token.edge:
            return False
        if token.kind is Kind.NUMBER:
            return last.text in (")", "]") and not token.gap
        if token.kind is Kind.OPEN:
            if token.text == "{" or (token.text == "[" and token.gap):
                return False
            if last.kind is Kind.NAME and not token.gap and (last.text[0] in FUNCTION_LETTERS or last.text.isupper()):
                raise NotParsed
            return not token.gap or not self.doubt(Reading.TEXT_BRACKETS)
        if token.kind is Kind.NAME:
            return token.formula or not token.gap
        return token.kind is Kind.COMMAND and token.text != "pmod" and (token.formula or not token.gap)

    def _factor(self) -> Expr:
        if not self.at("+", "-"):
            return self._power()
        self.depth += 1
        if self.depth > DEEPEST:
            raise NotParsed
        sign = self.tokens[self.position].text
        self.position += 1
        if sign == "+":
            value = self._factor()
        else:
            squared = self.at("^", ahead=1)
            if squared and self.doubt(Reading.TIGHT_MINUS):
                value = self._raised(Call("neg", (self._postfix(),)))
            else:
                value = Call("neg", (self._factor(),))
        self.depth -= 1
        return value

    def _power(self) -> Expr:
        return self._raised(self._postfix())

    def _raised(self, base: Expr) -> Expr:
        if not self.at("^"):
            return base
        self.position += 1
        if self.at("°"):
            self.position += 1
            return Call("degrees", (base,))
        if self.at("{") and self.at("°", ahead=1) and self.at("}", ahead=2):
            self.position += 3
            return Call("degrees", (base,))
        self.depth += 1
        if self.depth > DEEPEST:
            raise NotParsed
        raised = Call("^", (base, self._factor()))
        self.depth -= 1
        return raised

    def _postfix(self) -> Expr:
        value = self._primary()
        while True:
            if self.at("!"):
                self.position += 1
                if self.position < self.stop or not self.doubt(Reading.NO_FACTORIAL):
                    value = Call("!", (value,))
            elif self.at("%"):
                self.position += 1
                value = value if self.doubt(Reading.PLAIN_PERCENT) else Call("%", (value,))
            elif self.at("°"):
                self.position += 1
                value = Call("degrees", (value,))
            elif self.at("²", "³"):
                value = Call("^", (value, Num(Fraction(2 if self.at("²") else 3))))
                self.position += 1
            elif (scale := self._scale()) is not None:
                self.position += 1
                value = value if self.doubt(Reading.UNIT_SCALE) else Call("scale", (value, Num(scale)))
            else:
                self._unit()
                return value

    def _scale(self) -> Fraction | None:
        token = self.peek()
        scale = SCALES.get(token.text) if token is not None and token.kind is Kind.WORD else None
        return None if scale is None else Fraction(scale)

    def _word_at(self, ahead: int) -> bool:
        token = self.peek(ahead)
        return token is not None and token.kind is Kind.WORD

    def _unit(self) -> None:
        """Pass over the words of a unit, if what follows them lets the expression go on or end."""
        words = 0
        while words < _MOST_UNIT_WORDS and (token := self.peek(words)) is not None and is_unit(token, words):
            words += 1
        if not words:
            return
        if self.at("^", ahead=words) and (power := self.peek(words + 1)) is not None and power.text in ("2", "3"):
            words += 2
        after = self.peek(words)
        if after is None or after.kind in (Kind.RELATION, Kind.CLOSE) or after.kind is Kind.OPERATOR:
            self.units.update(token.text for token in self.tokens[self.position : self.position + words])
            self.position += words
            self.measured += 1

    def _primary(self) -> Expr:
        token = self.peek()
        if token is None:
            raise NotParsed
        if token.kind is Kind.NUMBER:
            self.position += 1
            base, power = token.text[:-1], token.text[-1]
            flat = base not in ("", "1", ".") and power in "23" and token.text.replace(".", "").isdigit()
            if flat and self.doubt(Reading.FLAT_POWER):
                return Call("^", (Num(Fraction(base)), Num(Fraction(power))))
            number = self._mixed(Num(token.value or Fraction(0), token.decimals))
            if Reading.FRACTION_LAST in self.reading and self._touches("/") and isinstance(number, Num):
                self.position += 1
                return Call("/", (number, self._primary()))
            return number
        if token.kind is Kind.NAME:
            self.position += 1
            return Name(token.text)
        if token.kind is Kind.OPEN:
            return self._group()
        if token.kind is Kind.COMMAND:
            self.position += 1
            return self._command(token)
        raise NotParsed

    def _mixed(self, whole: Num) -> Expr:
        r"""Read "1 1/2" and `1\frac{1}{2}` as one number."""
        if whole.decimals or whole.value.denominator != 1:
            return whole
        first, slash, second, behind = (self.peek(ahead) for ahead in range(4))
        if first is None or first.edge:
            return whole
        share = self._plain_fraction()
        if share is not None and not self.doubt(Reading.MIXED_PRODUCT):
            tokens, value = share
            self.position += tokens
            return Call("+", (whole, Num(value)))
        if first.kind is Kind.NUMBER and first.gap and slash is not None and second is not None:
            proper = slash.text == "/" and second.kind is Kind.NUMBER and (first.value or 0) < (second.value or 0)
            if proper and (behind is None or behind.text not in ("/", "^")):
                self.position += 3
                return Call("+", (whole, Num((first.value or Fraction(0)) / (second.value or Fraction(1)))))
        if first.text in "½⅓⅔¼¾⅕⅖⅗⅘⅙⅛⅜⅝⅞" and first.value is not None:
            self.position += 1
            return Call("+", (whole, Num(first.value)))
        return whole

    def _plain_fraction(self) -> tuple[int, Fraction] | None:
        r"""Look for a `\frac{1}{2}` or `\frac12` below 1: how many tokens it takes, and its value."""
        for places, length in (((2, 5), 7), ((1, 2), 3)):
            top, bottom = (self.peek(place) for place in places)
            if not self._is_command("frac") or top is None or bottom is None:
                return None
            braces = length == 3 or (self.at("{", ahead=1) and self.at("}", ahead=3) and self.at("}", ahead=6))
            if braces and top.value is not None and bottom.value is not None and top.value < bottom.value:
                return length, top.value / bottom.value
        return None

    def _is_command(self, text: str) -> bool:
        token = self.peek()
        return token is not None and token.kind is Kind.COMMAND and token.text == text

    def _group(self) -> Expr:
        """Parse what stands in brackets, and pass over them."""
        pair = {"(": ")", "[": "]", "{": "}"}[self.tokens[self.position].text]
        self.position += 1
        inner = self._sum()
        if not self.at(pair):
            raise NotParsed
        self.position += 1
        return inner

    def _argument(self) -> Expr:
        r"""Parse one argument of a LaTeX command: a group, or one digit or letter."""
        if self.at("{", "("):
            return self._group()
        token = self.peek()
        if token is None or token.kind not in (Kind.NUMBER, Kind.NAME) or len(token.text) > 1:
            raise NotParsed
        self.position += 1
        return Num(token.value) if token.value is not None else Name(token.text)

    def _command(self, token: Token) -> Expr:
        if token.text in ("frac", "binom"):
            top = self._argument()
            return Call("/" if token.text == "frac" else "binom", (top, self._argument()))
        if token.text == "sqrt":
            if self.at("["):
                index = self._group()
                return Call("root", (self._argument(), index))
            # A root sign without braces ("√16") takes the number behind it.
            plain = self.peek()
            if plain is not None and plain.kind is Kind.NUMBER:
                self.position += 1
                return Call("sqrt", (Num(plain.value or Fraction(0), plain.decimals),))
            return Call("sqrt", (self._argument(),))
        if token.text in FUNCTIONS:
            return self._function(token)
        raise NotParsed

    def _function(self, token: Token) -> Expr:
        exponent = None
        if self.at("^"):
            self.position += 1
            exponent = self._argument()
        argument = self._group() if self.at("(", "{", "[") else self._power()
        if token.text == "log":
            base: tuple[Expr, ...] = (Num(token.value),) if token.value is not None else ()
            if not base and self.doubt(Reading.COMMON_LOG):
                base = (Num(Fraction(10)),)
            call = Call("log", (argument, *base))
        elif token.text in ("sin", "cos", "tan", "cot", "sec", "csc") and self.doubt(Reading.DEGREES):
            call = Call(token.text, (Call("degrees", (argument,)),))
        else:
            call = Call(token.text, (argument,))
        if exponent is None:
            return call
        if exponent == Call("neg", (Num(Fraction(1)),)):
            raise NotParsed  # sin^-1 is the inverse, not the reciprocal
        return Call("^", (call, exponent))


def is_unit(token: Token, place: int) -> bool:
    """Tell whether a token may be the place-th word (0 the first) of a unit."""
    return token.kind is Kind.WORD and (token.text not in UNIT_ENDS or (place > 0 and token.text == "of"))
