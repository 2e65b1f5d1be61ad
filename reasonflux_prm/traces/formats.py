"""The formats: which columns tell each one, and the function that reads it.

`detect` asks record by record, by structure alone and in the order of `FORMATS`, so a file may mix formats, and the
same record is always read the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from reasonflux_prm.errors import InputError
from reasonflux_prm.records import Trace
from reasonflux_prm.traces.agents import agent, is_agent
from reasonflux_prm.traces.chats import chat, is_chat
from reasonflux_prm.traces.columns import column_list
from reasonflux_prm.traces.native import is_native, native
from reasonflux_prm.traces.samples import candidates, is_candidates, is_openr1, is_s1k, openr1, s1k
from reasonflux_prm.traces.step_lists import (
    is_math_shepherd,
    is_prm800k,
    is_steps,
    is_trl,
    math_shepherd,
    prm800k,
    steps,
    trl,
)
from reasonflux_prm.traces.texts import (
    gpt_oss,
    is_gpt_oss,
    is_openthoughts,
    is_plain,
    is_think,
    openthoughts,
    plain,
    think,
)


@dataclass(frozen=True, slots=True)
class Format:
    """One format.

    `fits` says whether a record has its structure; `read` turns the record into traces, or raises `InputError` with
    the reason. The second argument of `read` names the record if it has no id. `columns` is what the format looks for,
    in words.
    """

    fits: Callable[[Mapping[str, Any]], bool]
    read: Callable[[Mapping[str, Any], str], list[Trace]]
    columns: str


FORMATS: Mapping[str, Format] = MappingProxyType(
    {
        "native": Format(is_native, native, "problem, thinking, response"),
        "candidates": Format(is_candidates, candidates, "problem, candidates: [text or {text or thinking, response}]"),
        "prm800k": Format(is_prm800k, prm800k, "question.problem, label.steps[].completions[].{text, rating}"),
        "math-shepherd": Format(
            is_math_shepherd, math_shepherd, "input with ки after each step, label with + or - instead"
        ),
        "trl": Format(is_trl, trl, "prompt, completions: [step], labels: [bool]"),
        "agent": Format(is_agent, agent, "problem, trajectory: [{thought, action or code, observation}]"),
        "steps": Format(is_steps, steps, "problem, steps: [text], labels: [number] or label: first wrong step"),
        "openr1": Format(is_openr1, openr1, "problem, generations: [text], correctness_math_verify: [bool]"),
        "s1k": Format(is_s1k, s1k, "question, thinking_trajectories: [text], attempt"),
        "messages": Format(
            is_chat, chat, "messages: [{role, content, reasoning_content}] or conversations: [{from, value}]"
        ),
        "openthoughts": Format(
            is_openthoughts, openthoughts, "problem, response with <|begin_of_thought|> and <|begin_of_solution|>"
        ),
        "gpt-oss": Format(is_gpt_oss, gpt_oss, "problem, response with <|channel|>analysis and <|channel|>final"),
        "think": Format(is_think, think, "problem, response with <think> and </think>"),
        "plain": Format(is_plain, plain, "problem, and thinking or response"),
    }
)
"""Every format by its name, in the order in which `detect` asks."""


def detect(row: Mapping[str, Any]) -> str | None:
    """Return the name of the first format whose structure the record has; None if it has none's."""
    return next((name for name, candidate in FORMATS.items() if candidate.fits(row)), None)


def read_row(row: Mapping[str, Any], where: str, format: str = "auto") -> list[Trace]:
    """Read one record.

    Args:
        row: The record.
        where: Names the record if it has no id.
        format: One of `FORMATS`, or `auto` to detect it.

    Raises:
        InputError: The record has no format, or not the one that was named; the message is the reason alone.
    """
    name = detect(row) if format == "auto" else format
    if name is None:
        raise InputError(
            "expected a problem, and a response, thinking, messages, steps or candidates; the record has "
            f"{column_list(row)}. Name your columns with --map problem=COLUMN,response=COLUMN, or name the format "
            "with --format"
        )
    return FORMATS[name].read(row, where)
