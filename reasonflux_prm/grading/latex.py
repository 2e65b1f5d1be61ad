"""Plain text and Unicode in answers, as the LaTeX that math-verify reads."""

from __future__ import annotations

import re

_SYMBOLS = str.maketrans(
    {
        "\u221e": r"\infty ",
        "\u03c0": r"\pi ",
        "\u03b8": r"\theta ",
        "\u2264": r"\le ",
        "\u2265": r"\ge ",
        "\u2260": r"\ne ",
        "\u00d7": r"\times ",
        "\u00b7": r"\cdot ",
        "\u22c5": r"\cdot ",
        "\u00f7": r"\div ",
        "\u00b1": r"\pm ",
        "\u222a": r"\cup ",
        "\u2229": r"\cap ",
        "\u2208": r"\in ",
        "\u2205": r"\emptyset ",
        "\u00b0": "",
        **dict.fromkeys("\u2212\u2010\u2011\u2012\u2013\ufe63\uff0d", "-"),
        **dict.fromkeys("\u2044\u2215", "/"),
    }
)
_MARKS = re.compile(r"\\?\$|\\[()\[\]]|\*\*(?=[A-Za-z\\\s]|$)|[\s\x00]+")
_ROOT = re.compile(r"(?:\u221a|(?<![\\a-zA-Z])sqrt)\s*(?:\(([^()]*)\)|(\w+))")
_SUPERSCRIPTS = re.compile("[\u2070\u00b9\u00b2\u00b3\u2074-\u2079\u207b]+")
_SUBSCRIPTS = re.compile("[\u2080-\u2089]+")
_RAISED = str.maketrans("\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079\u207b", "0123456789-")
_LOWERED = str.maketrans("\u2080\u2081\u2082\u2083\u2084\u2085\u2086\u2087\u2088\u2089", "0123456789")
_COMMANDS = re.compile(r"(?<![\\a-zA-Z])(pi|sin|cos|tan|log|ln|exp|infty)(?![a-zA-Z])")
_SCIENTIFIC = re.compile(r"(?<=\d)[eE](?P<power>[-+]?\d+)(?!\w)")
_POWER = re.compile(r"(?:\*\*|\^)\s*(-?\d+)(?![\d.])")
_SPACED_I = re.compile(r"(?<=\d)\s+(?=i\b)")


def to_latex(text: str) -> str:
    """Return an answer as LaTeX: no marks of mathematics around it, no Unicode, no Python.

    Who writes x^10 or x**10 does not mean what TeX reads there, x^1 times 0.
    """
    text = _ROOT.sub(lambda root: rf"\sqrt{{{root[1] or root[2]}}}", text)
    text = _SUPERSCRIPTS.sub(lambda found: f"^{{{found[0].translate(_RAISED)}}}", text)
    text = _SUBSCRIPTS.sub(lambda found: f"_{{{found[0].translate(_LOWERED)}}}", text)
    text = _POWER.sub(r"^{\1}", text.translate(_SYMBOLS))
    text = _SCIENTIFIC.sub(r" \\times 10^{\g<power>}", text)
    return _SPACED_I.sub("", _COMMANDS.sub(r"\\\1 ", _MARKS.sub(" ", text)).replace("**", "^")).strip()
