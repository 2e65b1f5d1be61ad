"""One trace in text columns: thinking and response apart, or together in one text with marks between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from reasonflux_prm.errors import InputError
from reasonflux_prm.records import Trace
from reasonflux_prm.traces.chats import chat, conversation, is_chat
from reasonflux_prm.traces.columns import RESPONSE, THINKING, Columns, column_list, missing, text_column
from reasonflux_prm.traces.marks import (
    PROMPT_ROLES,
    Parts,
    channel_messages,
    join_channels,
    split_channels,
    split_think,
    split_thought,
)

MARKED = (*RESPONSE, "answer", "solution")
"""Where a marked text may stand: only marks tell that `answer` or `solution` was written by the policy."""
REASONING_PAIR = ("deepseek_reasoning", "deepseek_solution")
"""The text columns of OpenThoughts' `metadata` subset."""


def is_plain(row: Mapping[str, Any]) -> bool:
    """Whether the record has a column for the thinking or for the response."""
    return text_column(row, (*THINKING, *RESPONSE)) is not None


def plain(row: Mapping[str, Any], where: str) -> list[Trace]:
    """Read a problem with thinking, response or both in columns of their own. Marks in them are text."""
    columns = Columns(row, where)
    problem = columns.take_problem()
    thinking, response = columns.take_text(THINKING), columns.take_text(RESPONSE)
    if thinking is None and response is None:
        raise InputError(missing("a response", RESPONSE, row, "response"))
    thinking, response = thinking or "", response or ""
    return [columns.trace(problem, thinking, response, closed=columns.take_closed(thinking, response))]


def is_think(row: Mapping[str, Any]) -> bool:
    """Whether a text column has think tags and no column has the thinking apart."""
    return _marked_column(row, split_think) is not None


def think(row: Mapping[str, Any], where: str) -> list[Trace]:
    """Read text with think tags (`split_think` has the rules), in a column or in messages.

    Where the format was named and a text has no tag at all, it is unfinished thinking: R1's chat template puts the
    opening tag into the prompt, and the policy was cut off before it wrote the closing one.
    """
    return _read_marked(row, where, lambda text: split_think(text) or Parts(text.strip(), "", closed=False))


def is_openthoughts(row: Mapping[str, Any]) -> bool:
    """Whether a text column has OpenThoughts' marks, or the record has the columns of its `metadata` subset."""
    return text_column(row, REASONING_PAIR[:1]) is not None or _marked_column(row, split_thought) is not None


def openthoughts(row: Mapping[str, Any], where: str) -> list[Trace]:
    """Read OpenThoughts: marked text in a column or in messages, or the columns of its `metadata` subset."""
    if text_column(row, REASONING_PAIR[:1]) is None:
        return _read_marked(row, where, split_thought)
    columns = Columns(row, where)
    problem = columns.take_problem()
    thinking, response = (columns.take_text((name,)) or "" for name in REASONING_PAIR)
    return [columns.trace(problem, thinking, response, closed=columns.take_closed(thinking, response))]


def is_gpt_oss(row: Mapping[str, Any]) -> bool:
    """Whether a text column has gpt-oss channels."""
    return _marked_column(row, split_channels) is not None


def gpt_oss(row: Mapping[str, Any], where: str) -> list[Trace]:
    """Read gpt-oss channels (`join_channels` has the rules), in a column or in messages.

    A whole transcript brings its own problem: all before the assistant's last turn, as in `chat`; it then stays in
    `meta` too.
    """
    name = _marked_column(row, split_channels)
    if name is None or "<|start|>user" not in row[name]:
        return _read_marked(row, where, split_channels)
    messages = channel_messages(row[name])
    begin = 1 + max(index for index, message in enumerate(messages) if message.role in PROMPT_ROLES)
    said = [
        (m.role, m.text)
        for m in messages[:begin]
        if m.role == "user" or (m.role == "assistant" and m.channel in ("final", ""))
    ]
    columns = Columns(row, where)
    problem = columns.take("problem") if isinstance(row.get("problem"), str) else conversation(said)
    parts = join_channels(messages[begin:])
    transcript = {name: columns.take(name)}
    trace = columns.trace(problem, parts.thinking, parts.response, closed=parts.closed)
    return [replace(trace, meta={**trace.meta, **transcript})]


def _read_marked(row: Mapping[str, Any], where: str, split: Callable[[str], Parts | None]) -> list[Trace]:
    name = _marked_column(row, split) or text_column(row, RESPONSE)

    def must_split(text: str) -> Parts:
        if (parts := split(text)) is None:
            raise InputError(
                f"expected marks between thinking and response, found none; the record has {column_list(row)}"
            )
        return parts

    if name is None and is_chat(row):
        return chat(row, where, must_split)
    if name is None:
        raise InputError(missing("a response", RESPONSE, row, "response"))
    parts = must_split(row[name])
    columns = Columns(row, where)
    columns.take(name)
    if columns.take_text(THINKING):
        raise InputError(
            f"expected the thinking between marks in the column {name}, but another column has it: {column_list(row)}"
        )
    closed = columns.take_closed(parts.thinking, parts.response) and parts.closed
    return [columns.trace(columns.take_problem(), parts.thinking, parts.response, closed=closed)]


def _marked_column(row: Mapping[str, Any], split: Callable[[str], Parts | None]) -> str | None:
    """Return the first text column that `split` finds marks in; None if the thinking stands in a column of its own."""
    if any(isinstance(row.get(name), str) and row[name] for name in THINKING):
        return None
    return next((name for name in MARKED if isinstance(row.get(name), str) and split(row[name]) is not None), None)
