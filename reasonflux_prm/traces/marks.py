"""Split the text of a policy into thinking and response, by the marks that models and data sets put into it.

Three kinds are known: think tags (R1, Qwen3, Magistral, Kimi), OpenThoughts marks, and the channels of gpt-oss. Only
marks, and white space at the two ends of each part, are ever dropped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

THINK_PAIRS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
)
"""Opening and closing marks around thinking; the first pair that a text has is used."""

THOUGHT_PAIR = ("<|begin_of_thought|>", "<|end_of_thought|>")
"""OpenThoughts' marks around the thinking."""

SOLUTION_PAIR = ("<|begin_of_solution|>", "<|end_of_solution|>")
"""OpenThoughts' marks around the response."""

PROMPT_ROLES = ("system", "developer", "user")
"""The roles whose messages the policy read and did not write."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The two parts of a text; `closed` is False if the thinking has no end."""

    thinking: str
    response: str
    closed: bool = True


@dataclass(frozen=True, slots=True)
class ChannelMessage:
    """One message of a gpt-oss text; `closed` is False if the text ends inside it."""

    role: str
    channel: str
    text: str
    closed: bool


def split_marks(text: str) -> Parts | None:
    """Split `text` by whichever marks it has; None if it has none."""
    return split_channels(text) or split_thought(text) or split_think(text)


def split_think(text: str) -> Parts | None:
    """Split at think tags; None if there are none.

    - The thinking begins at the first opening tag. If a closing tag comes before any opening one, the chat template
      had put the opening tag into the prompt, and the thinking begins with the text. Text before the opening tag is
      put in front of the thinking.
    - The thinking ends at the last closing tag that closes something: one with an unmatched opening tag before it. So
      with nested or repeated tags everything up to the last one is thinking and the inner tags stay in it as text, a
      doubled opening tag does no harm, and a closing tag that the response only quotes is text.
    - Without a closing tag the thinking is unfinished: all of the text is thinking.
    - Once thinking was closed, an opening tag that is never closed is text.
    """
    for opening, closing in THINK_PAIRS:
        if opening in text or closing in text:
            return _split_pair(text, opening, closing)
    return None


def split_thought(text: str) -> Parts | None:
    """Split at OpenThoughts' marks, by the rules of `split_think`; None if there are none.

    The mark that begins the solution ends the thinking too, should the thinking's own mark be missing.
    """
    opening, closing = THOUGHT_PAIR
    if opening in text or closing in text:
        parts = _split_pair(text, opening, closing)
        if parts.closed:
            return Parts(parts.thinking, _unwrap_solution(parts.response))
        text = parts.thinking
    elif SOLUTION_PAIR[0] not in text:
        return None
    thinking, mark, solution = text.partition(SOLUTION_PAIR[0])
    return Parts(thinking.strip(), _unwrap_solution(mark + solution), closed=bool(mark))


def _split_pair(text: str, opening: str, closing: str) -> Parts:
    marks = list(re.finditer(f"{re.escape(opening)}|{re.escape(closing)}", text))
    first_opens = marks[0].group() == opening
    opened = 0 if first_opens else 1
    end = None
    for mark in marks:
        if mark.group() == opening:
            opened += 1
        elif opened:
            opened -= 1
            end = mark
    thinking = text if end is None else text[: end.start()]
    if first_opens:
        # An opening tag straight after the first goes with it: templates and models both write one.
        thinking = re.sub(rf"{re.escape(opening)}(\s*{re.escape(opening)})?", "", thinking, count=1)
    if end is None:
        return Parts(thinking.strip(), "", closed=False)
    return Parts(thinking.strip(), text[end.end() :].strip())


def _unwrap_solution(text: str) -> str:
    """Drop the solution marks that enclose a response; marks inside it are text."""
    return text.strip().removeprefix(SOLUTION_PAIR[0]).removesuffix(SOLUTION_PAIR[1]).strip()


_CHANNEL_MESSAGE = re.compile(
    r"(?:<\|start\|>(?P<role>[^<]*))?(?:<\|channel\|>(?P<channel>[^<]*))?(?:<\|constrain\|>[^<]*)?"
    r"<\|message\|>(?P<text>.*?)(?P<end><\|(?:end|return|call)\|>|(?=<\|(?:start|channel)\|>)|\Z)",
    re.DOTALL,
)
_CHANNEL = re.compile(r"<\|channel\|>[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>")
_STRIPPED_CHANNELS = re.compile(r"analysis(?P<thinking>.*?)assistantfinal(?P<response>.*)", re.DOTALL)


def channel_messages(text: str) -> list[ChannelMessage]:
    """Return the messages of a gpt-oss text, in order; a message that names no role is the assistant's.

    Text outside all messages comes as the assistant's `analysis`, so that nothing is lost.
    """
    messages = []
    position = 0
    for match in _CHANNEL_MESSAGE.finditer(text):
        if stray := text[position : match.start()].strip():
            messages.append(ChannelMessage("assistant", "analysis", stray, closed=True))
        position = match.end()
        role = _first_word(match["role"]) or "assistant"
        closed = bool(match["end"]) or position < len(text)
        messages.append(ChannelMessage(role, _first_word(match["channel"]), match["text"].strip(), closed))
    if stray := text[position:].strip():
        messages.append(ChannelMessage("assistant", "analysis", stray, closed=False))
    return messages


def split_channels(text: str) -> Parts | None:
    """Split the channels of gpt-oss; None if there are none.

    Also known are texts whose control tokens were removed in decoding, which begin with `analysis` and hold
    `assistantfinal`. What the prompt roles say is left out here: see `channel_messages`.
    """
    if _CHANNEL.search(text):
        return join_channels(message for message in channel_messages(text) if message.role not in PROMPT_ROLES)
    if match := _STRIPPED_CHANNELS.fullmatch(text):
        return Parts(match["thinking"].strip(), match["response"].strip())
    return None


def join_channels(messages: Iterable[ChannelMessage]) -> Parts:
    """Join messages into the two parts, a blank line between two messages.

    The assistant's `final` channel, and a message of its that names none, is the response; all the rest - analysis,
    commentary with tool calls, what the tools gave back - is thinking.
    """
    thinking: list[str] = []
    response: list[str] = []
    closed = True
    for message in messages:
        final = message.role == "assistant" and message.channel in ("final", "")
        (response if final else thinking).append(message.text)
        closed = final or message.closed
    return Parts("\n\n".join(thinking), "\n\n".join(response), closed or bool(response))


def _first_word(text: str | None) -> str:
    """`assistant to=functions.f` -> `assistant`."""
    return (text or "").partition(" ")[0].strip()
