"""Records with several traces of one problem: candidates, OpenR1-Math's generations, s1K's trajectories.

The traces are named `{id}#{k}` and have the record's id as their group.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from reasonflux_prm.errors import InputError
from reasonflux_prm.records import Trace
from reasonflux_prm.traces.columns import ID, RESPONSE, THINKING, Columns, column_list, expect, missing
from reasonflux_prm.traces.marks import Parts, split_marks

VERDICTS = ("correctness_math_verify", "correctness_llama")
"""OpenR1-Math's verdicts on its generations, in the order of preference."""
PER_GENERATION = (*VERDICTS, "is_reasoning_complete", "finish_reasons")
"""OpenR1-Math's columns with one value for each generation."""


def is_candidates(row: Mapping[str, Any]) -> bool:
    """Whether the record has a list of candidates."""
    return isinstance(row.get("candidates"), list)


def candidates(row: Mapping[str, Any], where: str) -> list[Trace]:
    """Read a candidates file: `id, problem, answer?, candidates: [{text | thinking, response, correct?, ...}]`.

    A candidate may also be no more than its text. Marks in a text are known. Its other columns go to `meta` beside the
    problem's own; where a name is in both, the candidate's columns go to `meta["candidate"]`.
    """
    columns = Columns(row, where)
    found = _non_empty(columns.take("candidates"), "candidates")
    shared = columns.trace(columns.take_problem())
    return [_named(shared, str(k), _candidate(shared, candidate, k)) for k, candidate in enumerate(found)]


def is_openr1(row: Mapping[str, Any]) -> bool:
    """Whether the record has a list of generations."""
    return isinstance(row.get("generations"), list)


def openr1(row: Mapping[str, Any], where: str) -> list[Trace]:
    """Read OpenR1-Math: `problem, answer, generations: [text], correctness_math_verify: [bool]`.

    The verdict is Math-Verify's, or the Llama judge's where that is missing. `messages`, which repeats the problem and
    one of the generations, is left out.
    """
    columns = Columns(row, where)
    texts = _non_empty(columns.take("generations"), "generations")
    columns.take("messages")
    own = {name: columns.take(name) for name in PER_GENERATION if _is_list_of(row.get(name), len(texts))}
    shared = columns.trace(columns.take_problem())
    traces = []
    for k, text in enumerate(texts):
        parts = _parts(expect(text, str, f"generation {k}"))
        verdicts = (own[name][k] for name in VERDICTS if name in own)
        trace = replace(
            shared,
            thinking=parts.thinking,
            response=parts.response,
            thinking_closed=parts.closed,
            correct=next((verdict for verdict in verdicts if isinstance(verdict, bool)), shared.correct),
            meta={**shared.meta, **{name: values[k] for name, values in own.items()}},
        )
        traces.append(_named(shared, str(k), trace))
    return traces


_S1K_THINKING = re.compile(r"(?P<policy>\w+)_thinking_trajectory")


def is_s1k(row: Mapping[str, Any]) -> bool:
    """Whether the record has `thinking_trajectories` and `attempt`, or such a pair that names its policy."""
    return next(_s1k_pairs(row), None) is not None


def s1k(row: Mapping[str, Any], where: str) -> list[Trace]:
    """Read s1K (`question, thinking_trajectories, attempt, solution`) and s1K-1.1 (`deepseek_...` and `gemini_...`).

    The parts of `thinking_trajectories` are one thinking, joined by a newline as s1's own training script does. A pair
    that names its policy gives a trace of that policy, with the verdict of its `..._grade`; where there are several,
    they are named `{id}#{policy}`.
    """
    columns = Columns(row, where)
    pairs = list(_s1k_pairs(row))
    if not pairs:
        raise InputError(
            "expected thinking_trajectories and attempt, or deepseek_thinking_trajectory and deepseek_attempt; "
            f"the record has {column_list(row)}"
        )
    own = {policy: _s1k_own(columns, policy) for policy, _, _ in pairs}
    texts = [(policy, columns.take(thinking), columns.take(attempt)) for policy, thinking, attempt in pairs]
    shared = columns.trace(columns.take_problem())
    if shared.answer is None and isinstance(row.get("solution"), str):
        meta = {name: value for name, value in shared.meta.items() if name != "solution"}
        shared = replace(shared, answer=row["solution"], meta=meta)
    traces = []
    for policy, thinking, attempt in texts:
        trace = replace(
            shared,
            thinking="\n".join(thinking) if isinstance(thinking, list) else thinking,
            response=attempt or "",
            policy=policy or shared.policy,
            correct={"Yes": True, "No": False}.get(str(own[policy].get(f"{policy}_grade")), shared.correct),
            meta={**shared.meta, **own[policy]},
        )
        traces.append(_named(shared, policy, trace) if len(texts) > 1 else trace)
    return traces


def _s1k_pairs(row: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield policy (empty if not named), column of the thinking, column of the response."""
    for name, value in row.items():
        if (
            name == "thinking_trajectories"
            and isinstance(value, list)
            and value
            and all(isinstance(x, str) for x in value)
        ):
            policy = ""
        elif isinstance(value, str) and (match := _S1K_THINKING.fullmatch(name)):
            policy = match["policy"]
        else:
            continue
        attempt = f"{policy}_attempt" if policy else "attempt"
        if isinstance(row.get(attempt), str | None):
            yield policy, name, attempt


def _s1k_own(columns: Columns, policy: str) -> dict[str, Any]:
    """Take the other columns that speak of one policy."""
    names = [name for name in columns.row if policy and name in (f"{policy}_grade", f"{policy}_grade_reason")]
    return {name: columns.take(name) for name in names}


def _candidate(shared: Trace, candidate: Any, k: int) -> Trace:
    if isinstance(candidate, str):
        candidate = {"text": candidate}
    columns = Columns(expect(candidate, dict, f"candidate {k}"), shared.id)
    thinking, response = columns.take_text(THINKING), columns.take_text(RESPONSE)
    if thinking is None and response is None:
        raise InputError(f"candidate {k}: {missing('text', ('thinking', *RESPONSE), candidate, 'candidates')}")
    parts = Parts(thinking, response or "") if thinking else _parts(response or "")
    closed = columns.take_closed(parts.thinking, parts.response) and parts.closed
    own = columns.trace(shared.problem, parts.thinking, parts.response, closed=closed)
    own_meta = {**own.meta, **{name: candidate[name] for name in ID if name in candidate}}
    clash = own_meta.keys() & shared.meta.keys()
    return replace(
        own,
        answer=shared.answer if own.answer is None else own.answer,
        source=own.source or shared.source,
        policy=own.policy or shared.policy,
        correct=shared.correct if own.correct is None else own.correct,
        meta={**shared.meta, "candidate": own_meta} if clash else {**shared.meta, **own_meta},
    )


def _named(shared: Trace, suffix: str, trace: Trace) -> Trace:
    return replace(trace, id=f"{shared.id}#{suffix}", group=shared.group or shared.id)


def _parts(text: str) -> Parts:
    return split_marks(text) or Parts("", text)


def _non_empty(values: Any, column: str) -> list[Any]:
    if not expect(values, list, f"`{column}`"):
        raise InputError(f"expected `{column}` to have at least one entry, got an empty list")
    return list(values)


def _is_list_of(value: Any, length: int) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and len(value) == length
