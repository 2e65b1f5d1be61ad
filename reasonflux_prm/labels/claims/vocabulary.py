"""The words, signs and LaTeX commands that claims are made of, and those that make a formula next to them doubtful."""

from __future__ import annotations

from enum import Enum, auto
from fractions import Fraction


class Kind(Enum):
    """What a token is."""

    NUMBER = auto()
    NAME = auto()
    """A letter, perhaps with a subscript: a variable or a constant."""
    WORD = auto()
    OPERATOR = auto()
    RELATION = auto()
    OPEN = auto()
    CLOSE = auto()
    COMMAND = auto()
    """A function or a LaTeX command that takes arguments."""
    STOP = auto()
    """The end of a phrase or a line: what stands on both sides of it is not one formula."""
    STRANGE = auto()
    """A mark that is not understood: nothing next to it is judged."""


_OP, _REL, _CMD, _STOP, _NAME = Kind.OPERATOR, Kind.RELATION, Kind.COMMAND, Kind.STOP, Kind.NAME


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


SYMBOLS: dict[str, tuple[Kind, str]] = {
    **dict.fromkeys("+", (_OP, "+")),
    **dict.fromkeys("-−–﹣", (_OP, "-")),
    **dict.fromkeys("*×·∙⋅✕✖", (_OP, "*")),
    **dict.fromkeys("/÷⁄∕", (_OP, "/")),
    **dict.fromkeys(("^", "**"), (_OP, "^")),
    "%": (_OP, "%"),
    "!": (_OP, "!"),
    "°": (_OP, "°"),
    **dict.fromkeys(("=", "==", "==="), (_REL, "=")),
    **dict.fromkeys(("≈", "≃", "≅", "∼"), (_REL, "≈")),
    "≡": (_REL, "≡"),
    **dict.fromkeys(("≠", "!=", "=/="), (_REL, "≠")),
    "<": (_REL, "<"),
    ">": (_REL, ">"),
    **dict.fromkeys(("≤", "<=", "⩽"), (_REL, "≤")),
    **dict.fromkeys(("≥", ">=", "⩾"), (_REL, "≥")),
    "√": (_CMD, "sqrt"),
    "π": (_NAME, "π"),
    **dict.fromkeys(("(", "[", "{"), (Kind.OPEN, "")),
    **dict.fromkeys((")", "]", "}"), (Kind.CLOSE, "")),
    **dict.fromkeys(".,;:?•—→⇒⟹⟶∴∵\n", (_STOP, "")),
}
"""Sign -> kind and the one spelling that the parser knows ("" keeps the sign as it is)."""

COMMANDS: dict[str, tuple[Kind, str]] = {
    **dict.fromkeys(("times", "cdot", "ast", "bullet"), (_OP, "*")),
    "div": (_OP, "/"),
    **dict.fromkeys(("bmod", "mod"), (_OP, "mod")),
    "pmod": (_CMD, "pmod"),
    **dict.fromkeys(("circ", "degree"), (_OP, "°")),
    **dict.fromkeys(("approx", "simeq", "cong", "doteq"), (_REL, "≈")),
    "equiv": (_REL, "≡"),
    **dict.fromkeys(("ne", "neq"), (_REL, "≠")),
    **dict.fromkeys(("lt",), (_REL, "<")),
    **dict.fromkeys(("gt",), (_REL, ">")),
    **dict.fromkeys(("le", "leq", "leqslant"), (_REL, "≤")),
    **dict.fromkeys(("ge", "geq", "geqslant"), (_REL, "≥")),
    **dict.fromkeys(("frac", "dfrac", "tfrac", "cfrac"), (_CMD, "frac")),
    **dict.fromkeys(("binom", "dbinom", "tbinom"), (_CMD, "binom")),
    "sqrt": (_CMD, "sqrt"),
    "pi": (_NAME, "π"),
    **dict.fromkeys(
        ("Rightarrow", "rightarrow", "to", "implies", "iff", "Leftrightarrow", "Longrightarrow", "longrightarrow"),
        (_STOP, "⇒"),
    ),
    **dict.fromkeys(("therefore", "because", "newline", "land", "lor", "par", "item"), (_STOP, ";")),
    **{
        name: (_NAME, name)
        for name in _words(
            "alpha beta gamma delta epsilon varepsilon theta lambda mu rho sigma tau phi varphi omega psi"
        )
    },
}
"""LaTeX command -> kind and spelling. A command in neither this table nor DROPPED is STRANGE."""

DROPPED = _words(
    """left right big Big bigg Bigg bigl bigr Bigl Bigr biggl biggr Biggl Biggr displaystyle textstyle scriptstyle quad
    qquad boxed fbox bold limits nonumber notag hfill cancel underline small large Large"""
)
"""LaTeX commands that change how a formula looks and not what it says."""

FUNCTIONS = _words("sin cos tan cot sec csc log ln exp")
FUNCTION_LETTERS = "fghpqFGHPQ"
"""Letters that are applied to the bracket behind them and not multiplied by it, as all capitals are."""
WORD_FUNCTIONS = {"sqrt": "sqrt", "log": "log", "ln": "ln", "sin": "sin", "cos": "cos", "tan": "tan"}

VULGAR_FRACTIONS = {
    "½": Fraction(1, 2),
    "⅓": Fraction(1, 3),
    "⅔": Fraction(2, 3),
    "¼": Fraction(1, 4),
    "¾": Fraction(3, 4),
    "⅕": Fraction(1, 5),
    "⅖": Fraction(2, 5),
    "⅗": Fraction(3, 5),
    "⅘": Fraction(4, 5),
    "⅙": Fraction(1, 6),
    "⅛": Fraction(1, 8),
    "⅜": Fraction(3, 8),
    "⅝": Fraction(5, 8),
    "⅞": Fraction(7, 8),
}
SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789")

COUNTS = {"": 1, "a": 1, "one": 1, "two": 2, "three": 3, "four": 4}
SHARES = {"half": 2, "halves": 2, "third": 3, "thirds": 3, "quarter": 4, "quarters": 4, "fourth": 4, "fourths": 4}

PHRASES: dict[str, tuple[Kind, str]] = {
    "divided by": (_OP, "/"),
    "multiplied by": (_OP, "*"),
    "to the power of": (_OP, "^"),
    "raised to the power of": (_OP, "^"),
    **dict.fromkeys(("is equal to", "are equal to", "which equals", "which is", "that is", "that's"), (_REL, "=")),
    **dict.fromkeys(("is approximately equal to", "is approximately", "is roughly", "is about"), (_REL, "≈")),
}
"""Words that are an operator or a relation wherever they stand between numbers."""
WORDS: dict[str, tuple[Kind, str]] = {
    "plus": (_OP, "+"),
    "minus": (_OP, "-"),
    "times": (_OP, "*"),
    "percent": (_OP, "%"),
    **dict.fromkeys(("degree", "degrees"), (_OP, "°")),
    "mod": (_OP, "mod"),
    "modulo": (_OP, "mod"),
    "squared": (_OP, "²"),
    "cubed": (_OP, "³"),
    **dict.fromkeys(("is", "equals", "gives", "makes", "are"), (_REL, "=")),
}

SCALES = {
    "dozen": 12,
    "hundred": 100,
    "thousand": 1000,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
}
"""Words behind a number that multiply it, unless they are read as its unit."""

_MEASURES = """second sec s minute min hour hr h day week fortnight month year decade century
    mm cm m km meter metre kilometer kilometre centimeter inch in foot feet ft yard yd mile mi
    mg g kg gram kilogram ounce oz pound lb ton tonne
    ml l liter litre milliliter cup pint quart gallon teaspoon tablespoon tsp tbsp
    cent penny pennies nickel dime quarter dollar buck pence
    degree radian point inning pair dozen bit byte kb mb gb tb"""
MEASURES = frozenset(word for unit in _words(_MEASURES) for word in (unit, unit + "s", unit + "es")) | {"inches"}
"""Units that other units can be turned into: a false equation between two of them may be a conversion."""
UNITS = MEASURES | _words("mph rpm kmh usd eur gbp pm am")
"""What may touch its number without being a product of letters: 10ml, but 3ab."""
FACTORS = frozenset(
    Fraction(n) for n in (100, 1000, 60, 3600, 24, 1440, 7, 30, 365, 52, 12, 3, 36, 16, 2000, 4, 2, 8, 10, 20, 10**6)
) | {Fraction(5280), Fraction(1760), Fraction(25), Fraction(5), Fraction(14), Fraction(4, 3), Fraction(1024)}
"""How many of one unit make another (also cents in coins), and the hundred of a percentage."""

DOUBTFUL_BEFORE = _words(
    """times twice thrice half double triple quadruple quarter third minus plus less more fewer greater than
    over per root squared cubed log ln sin cos tan gcd lcm gcf max min average mean median mod modulo
    factorial remainder power base digits digit ratio square cube as"""
)
"""Words that may take the formula behind them as an argument: "the average of 3 and", "twice", "less than"."""
DOUBTFUL_AFTER_NUMBER = _words("to by from into between with and")
"""Words that may do so if a number stands shortly before them: "adding 3 to 4 * 2", but "that comes to 4 * 2"."""
OF_FUNCTIONS = _words(
    """root roots square cube half third thirds fourth fourths quarter quarters fifth percent percentage average mean
    median mode factorial log logarithm digit digits multiple multiples factor factors divisor divisors fraction
    part out remainder power powers reciprocal inverse negative opposite sine cosine tangent absolute derivative
    integral gcd lcm gcf maximum minimum max min most some one each all rest none any both two three four five times
    ratio product difference quotient range set order magnitude"""
)
"""Words that take what is behind their "of" as an argument; behind others it is an apposition ("a cost of 3 * 4")."""
STATING = _words("so that then thus hence therefore have has get gets is are know since because and was")
"""Words behind which a lone number begins an equation ("so 12 = 3 * 4"); behind others it is a label ("day 2 = ")."""
DOUBTFUL_AFTER = _words("remainder r rem or modulo mod am pm a.m p.m o'clock factorial th st nd rd")
"""Words behind a result that change it: "3 remainder 2", "3 or 4", "2 pm"."""
DOUBTFUL_AFTER_IS = _words(
    """more less fewer times greater smaller larger higher lower than of away percent and plus minus to over out
    further short too not still also bigger lesser older younger ahead behind above below as if when because"""
)
"""Words behind "is 5" that make it no equation: "3 * 4 is 2 more than"."""
UNIT_ENDS = _words(
    """of because then so would will was were is are if when since and or but times than more less fewer as has had have
    he she they it ago equals from minus plus the that which who to get gets"""
)
"""Words that no unit holds; "10 ml of oil" is one, for "of" may stand behind its first word."""
LABELLED = _words(
    """day days week weeks month months year years step number person question part case grade level page pages chapter
    round section type group phase room table equation eq line row column figure no option item hour minute class set"""
)
"""Words whose number is a label: "on day 1 * 2 = 20"."""
