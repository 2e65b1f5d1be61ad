"""Where a text holds the program that it was asked for."""

from __future__ import annotations

import re
from collections.abc import Collection

_THOUGHT = re.compile(r"^.*</think>", re.DOTALL)
_TAGGED = re.compile(r"<output>(.*?)(?:</output>|\Z)", re.DOTALL | re.IGNORECASE)
_FENCE = re.compile(r"^[ \t]*(?P<fence>`{3,}|~{3,})[ \t]*(?P<language>[\w+.-]*)[^\n`]*$", re.MULTILINE)
_PYTHON = frozenset({"python", "python3", "py", "py3"})
_CODE_LINE = re.compile(r"^(?:async\s+def|def|class|import|from|@\w)", re.MULTILINE)


def stated_program(text: str, names: Collection[str] = ()) -> str | None:
    """Return the program that a text states, as it is written there; None if it states none.

    It is looked for behind the thinking, in `<output>` tags if there are some, and there in the first of these that is
    found: the last fenced block of Python that defines one of `names`; the last block of Python; the last block that
    names no language; the text itself, if it reads like a program. A block that was cut off before its end counts.

    Args:
        text: What a policy wrote.
        names: Functions or classes that the program has to define; a later block often only shows how to use them.
    """
    text = _THOUGHT.sub("", text)
    if tagged := [found for found in _TAGGED.findall(text) if found.strip()]:
        text = tagged[-1]
    blocks = _blocks(text)
    python = [code for language, code in blocks if language in _PYTHON]
    plain = [code for language, code in blocks if not language]
    for choices in ([code for code in python or plain if defines(code, names)], python, plain):
        if choices:
            return choices[-1]
    if blocks or not text.strip():
        return None
    return text.strip("\n") if _CODE_LINE.search(text) or text.lstrip("\n")[0] in " \t" else None


def defines(program: str, names: Collection[str]) -> bool:
    """Return whether a program defines one of `names` at its outermost level, as its lines begin."""
    return any(
        re.search(rf"^(?:(?:async\s+)?def|class)\s+{re.escape(name)}\b|^{re.escape(name)}\s*[:=]", program, re.M)
        for name in names
    )


def _blocks(text: str) -> list[tuple[str, str]]:
    """Return language and content of every fenced block, in order."""
    blocks = []
    opening: re.Match[str] | None = None
    for fence in _FENCE.finditer(text):
        if opening is None:
            opening = fence
        elif fence["fence"].startswith(opening["fence"]) and not fence["language"]:
            blocks.append((opening["language"].lower(), text[opening.end() : fence.start()].strip("\n")))
            opening = None
    if opening is not None:
        blocks.append((opening["language"].lower(), text[opening.end() :].strip("\n")))
    return [(language, code) for language, code in blocks if code.strip()]
