"""Agent trajectories: a list of turns of thought, action or code, and observation."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from reasonflux_prm.errors import InputError
from reasonflux_prm.records import Step, Trace
from reasonflux_prm.traces.columns import RESPONSE, Columns, column_list
from reasonflux_prm.traces.step_lists import join_steps

CONTAINERS = ("trajectory", "turns", "steps", "messages")
FIELDS = ("thought", "action", "code", "observation")
"""What a turn is made of, in reading order."""
FINAL = ("final_answer", *RESPONSE)


def is_agent(row: Mapping[str, Any]) -> bool:
    """Whether the record has a list of turns with thought, action, code or observation."""
    return _container(row) is not None


def agent(row: Mapping[str, Any], where: str) -> list[Trace]:
    """Read an agent's trajectory: its turns are the thinking, each turn one step, and its final answer is the response.

    A turn reads `Thought: ...`, then `Action: ...`, `Code: ...` and `Observation: ...`, one below the other. The final
    answer stands in `final_answer` or a column of the response, or in `final_answer` of the last turn; `answer` is the
    reference. Other entries of the turns go to `meta`, one object a turn, under the name of the list.
    """
    name = _container(row)
    if name is None:
        raise InputError(
            f"expected a list of turns with thought, action, code or observation in one of the columns "
            f"{', '.join(CONTAINERS)}; the record has {column_list(row)}"
        )
    columns = Columns(row, where)
    turns = [dict(turn) for turn in columns.take(name)]
    response = columns.take_text(FINAL)
    if response is None and isinstance(turns[-1].get("final_answer"), str):
        response = turns[-1].pop("final_answer")
    texts = [_text(turn) for turn in turns]
    thinking, stops = join_steps([text for text in texts if text])
    steps = [Step("thinking", start, stop) for start, stop in zip((0, *stops), stops, strict=False)]
    trace = columns.trace(
        columns.take_problem(),
        thinking,
        response or "",
        closed=columns.take_closed(thinking, response or ""),
        steps=steps,
    )
    return [replace(trace, meta={**trace.meta, name: turns}) if any(turns) else trace]


def _container(row: Mapping[str, Any]) -> str | None:
    return next((name for name in CONTAINERS if _is_turns(row.get(name))), None)


def _is_turns(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(turn, dict) and any(f in turn for f in (*FIELDS, "final_answer")) for turn in value)
    )


def _text(turn: dict[str, Any]) -> str:
    """Take the fields of a turn and return them as text."""
    lines = []
    for field in FIELDS:
        value = turn.pop(field, None)
        if value not in (None, ""):
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            lines.append(f"{field.capitalize()}: {text}" if field != "code" else f"Code:\n{text}")
    return "\n".join(lines)
