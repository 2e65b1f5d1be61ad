"""Thinking that a model left in its text, told apart from what it says."""

from __future__ import annotations

_OPEN, _CLOSE = "<think>", "</think>"


def is_thinking(written: str) -> bool:
    """Whether the thinking is open where an unfinished answer breaks off."""
    return written.lstrip().startswith(_OPEN) and _CLOSE not in written


def split_thinking(content: str, prefix: str = "") -> tuple[str, str]:
    """Split what a model wrote into (text, thinking).

    With a prefix, which the model went on from, what was written is thinking as long as the prefix left it open.

    The opening mark may be missing, as chat templates put it into the prompt; the closing one, if the thinking was cut.
    A text that only speaks of the marks is left whole.
    """
    before, closed, after = content.partition(_CLOSE)
    if prefix.strip():
        if not is_thinking(prefix):
            return content, ""
        return (after.lstrip("\n"), before.rstrip("\n")) if closed else ("", before)
    opened = before.lstrip().startswith(_OPEN)
    if not opened and (not closed or _OPEN in before):
        return content, ""
    thinking = before.lstrip().removeprefix(_OPEN) if opened else before
    return after.lstrip("\n"), thinking.strip("\n")
