"""Chat messages: a list of turns, the last one of the assistant being the trace."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from reasonflux_prm.errors import InputError
from reasonflux_prm.records import Trace
from reasonflux_prm.traces.columns import CHAT, RESPONSE, Columns, column_list, expect
from reasonflux_prm.traces.marks import Parts, split_marks

ROLES = {"human": "user", "gpt": "assistant", "model": "assistant", "developer": "system"}
"""Other words for the roles."""
MESSAGE_THINKING = ("reasoning_content", "reasoning", "thinking")


@dataclass(frozen=True, slots=True)
class Turn:
    """One message: who speaks, the thinking recorded apart, and the text."""

    role: str
    thinking: str
    text: str


def is_chat(row: Mapping[str, Any]) -> bool:
    """Whether the record has a column of messages, or a prompt of messages and a completion (TRL)."""
    return any(_is_messages(row.get(name)) for name in (*CHAT, "prompt"))


def chat(row: Mapping[str, Any], where: str, split: Callable[[str], Parts | None] = split_marks) -> list[Trace]:
    """Read messages, as `role` and `content` or ShareGPT's `from` and `value`.

    The last message is the assistant's and is the trace; its thinking stands in `reasoning_content`, `reasoning` or
    `thinking`, in content parts of type `thinking`, or in its text between marks, which `split` knows. The problem is
    what the user says before it; if more than one turn stands before it, the problem is all of them, each after its
    role, without their thinking. A column `problem` is preferred to a single user turn. The system message is no part
    of the problem. Where the trace does not hold all of the messages (several turns, a system message, another wording
    of the problem) they stay in `meta`.
    """
    columns = Columns(row, where)
    name, messages = _find_messages(row)
    turns = [_turn(message, index) for index, message in enumerate(messages)]
    original = {name: columns.take(name)}
    if name == "prompt":
        completion, answers = _completion(row)
        original[completion] = columns.take(completion)
        turns += answers
    if len(turns) < 2 or turns[-1].role != "assistant":
        roles = ", ".join(turn.role for turn in turns) or "none"
        raise InputError(
            f"expected messages that end with one of the assistant after one of the user, got the roles {roles}"
        )
    asked = [turn for turn in turns[:-1] if turn.role != "system"]
    problem = conversation([(turn.role, turn.text) for turn in asked])
    whole = len(turns) == 2
    if len(asked) == 1 and isinstance(row.get("problem"), str):
        whole = whole and row["problem"] == problem
        problem = columns.take("problem")
    parts = _parts(turns[-1], split)
    closed = columns.take_closed(parts.thinking, parts.response) and parts.closed
    trace = columns.trace(problem, parts.thinking, parts.response, closed=closed)
    return [trace if whole else replace(trace, meta={**trace.meta, **original})]


def conversation(turns: Sequence[tuple[str, str]]) -> str:
    """Return what was said before the trace: one turn as it is, several each after its role, a blank line between them.

    Raises:
        InputError: There are no turns.
    """
    if not turns:
        raise InputError("expected a message of the user before the assistant's, got none")
    if len(turns) == 1:
        return turns[0][1]
    return "\n\n".join(f"{role.capitalize()}: {text}" for role, text in turns)


def _is_messages(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(
            isinstance(x, dict) and ("role" in x or "from" in x) and not isinstance(x.get("role"), dict) for x in value
        )
    )


def _find_messages(row: Mapping[str, Any]) -> tuple[str, list[dict[str, Any]]]:
    """Return the column of messages; where there are several, the first whose last message has thinking."""
    found = [(name, row[name]) for name in (*CHAT, "prompt") if _is_messages(row.get(name))]
    if not found:
        raise InputError(
            "expected a list of messages with role and content (or from and value) in one of the columns "
            f"{', '.join(CHAT)}; the record has {column_list(row)}. Name yours with --map messages=COLUMN"
        )
    if len(found) > 1:
        for name, messages in found:
            if _parts(_turn(messages[-1], len(messages) - 1), split_marks).thinking:
                return name, messages
    return found[0]


def _completion(row: Mapping[str, Any]) -> tuple[str, list[Turn]]:
    """Return the column with the assistant's part of a conversational prompt (messages, or a text), and its turns."""
    for name in RESPONSE:
        if isinstance(row.get(name), str):
            return name, [Turn("assistant", "", row[name])]
        if _is_messages(row.get(name)):
            return name, [_turn(message, index) for index, message in enumerate(row[name])]
    return "completion", []


def _turn(message: Mapping[str, Any], index: int) -> Turn:
    role = str(message.get("role") or message.get("from") or "").lower()
    content = message["content"] if "content" in message else message.get("value")
    recorded = (message.get(name) for name in MESSAGE_THINKING)
    thinking = next((text for text in recorded if isinstance(text, str) and text), "")
    if isinstance(content, list):
        pieces = [piece for piece in content if isinstance(piece, dict)]
        thinking = thinking or "\n\n".join(
            piece["thinking"] for piece in pieces if isinstance(piece.get("thinking"), str)
        )
        content = "".join(piece["text"] for piece in pieces if isinstance(piece.get("text"), str))
    text = "" if content is None else expect(content, str, f"the content of message {index}")
    return Turn(ROLES.get(role, role), thinking, text)


def _parts(turn: Turn, split: Callable[[str], Parts | None]) -> Parts:
    if turn.thinking:
        return Parts(turn.thinking, turn.text)
    return split(turn.text) or Parts("", turn.text)
