"""Texts for the tests of steps/: strategies, and the pieces a rule never cuts."""

import string

from hypothesis import strategies as st

# Any text, but rich in what the rules look at.
_TELLING = [
    *("\n", "\r\n", "\n\n", "\n \n", " ", "  ", "\t", "\u00a0", "\u2028", ". ", "? ", "! ", "... ", ": ", ", ", "。"),
    *("$", "$$", "\\(", "\\)", "\\[", "\\]", "\\begin{a}", "\\end{a}", "```", "~~~", "\n```\n", "\\", "$5 and "),
    *("1. ", "\n2) ", "\nStep 1: ", "\n## 3. ", "e.g. ", "No. 3", "3.14", "Wait. ", "\n- ", "Thought: ", "\nAction: "),
    *("\nObservation: ", "<code>", "</code>", "<observation>", "</observation>", "é", "中文", "🙂", "x = 3", "word "),
]
texts = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=60),
    st.lists(st.one_of(st.sampled_from(_TELLING), st.text(string.ascii_letters, max_size=9)), max_size=60).map("".join),
)

_WORDS = st.sampled_from(
    ["so", "the", "Sum", "Is", "it", "Wait,", "Hmm.", "equal.", "right?", "total:", "of;", "Then", "x"]
)
FORMULAS = [
    "$x. Y + 1 = 2$",
    "$n = 2,$",
    "$$a = b. C\n= d$$",
    "\\( f(x) = 3. Then \\)",
    "\\[\na = 1. B\n\n= 2\n\\]",
    "\\begin{cases} a. B & c \\\\[2pt]\n\nd ? E \\end{cases}",
    "\\begin{a*} x. Y \\begin{a*} z. W \\end{a*} v. U \\end{a*}",
    "\n```python\nx = 1. \n\nprint('A. B? C')\n```\n",
    "\n~~~\nStep 1. A\n\n2. B\n~~~\n",
]
UNCUT = [
    *(
        "3.14",
        "1,000",
        "1e-5",
        "No. 3",
        "1,234,567.89",
        "Fig. 2",
        "Eq. (4)",
        "e.g. this",
        "i.e. that",
        "Dr. Fu",
        "vs. b",
    ),
    *("https://example.org/a.b?c=d!e", "x.y.z", "$5", "$10.50", "\\$7"),
]
PIECES = [*FORMULAS, *UNCUT]


@st.composite
def with_pieces(draw: st.DrawFn) -> tuple[str, list[tuple[int, int]]]:
    """Words and pieces, parted by white space; and the spans of the pieces."""
    text, spans = "", []
    for _ in range(draw(st.integers(0, 14))):
        text += " ".join(draw(st.lists(_WORDS, max_size=12))) + draw(
            st.sampled_from([" ", "\n", "\n\n", " \\( \n\n", " \\[ "])
        )
        piece = draw(st.sampled_from(PIECES))
        inner = len(piece) - len(piece.lstrip())
        spans.append((len(text) + inner, len(text) + len(piece.rstrip())))
        text += piece + draw(st.sampled_from([" ", "\n", ". ", ".\n\n", ", "]))
    return text, spans


def pieces_of(text: str, ends: list[int]) -> list[str]:
    """The steps' texts."""
    return [text[start:stop] for start, stop in zip([0, *ends], ends, strict=False)]


def cut_inside(ends: list[int], spans: list[tuple[int, int]]) -> list[int]:
    """Those ends that lie inside a span."""
    return [end for end in ends for start, stop in spans if start < end < stop]
