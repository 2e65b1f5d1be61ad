"""OpenRLHF's remote rewards: from the text that a trainer decoded to a trace, and from its record to their numbers.

Contract, from `openrlhf/utils/agent.py` of OpenRLHF 0.11.2: `query` is the whole text, decoded with its special tokens,
that the policy read and wrote; `prompts` holds what it read, which is not always how the query begins, character for
character: tokenizers put a bos token or a space in front, and decoding may change spaces. `rewards` and `scores` hold a
number for each query, in no way None: a query without a reward gets the lowest one, and is counted in `extra_logs`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from reasonflux_prm.records import ScoredTrace, Status, Trace
from reasonflux_prm.traces.chats import ROLES, conversation
from reasonflux_prm.traces.marks import THINK_PAIRS, split_marks

_OPENING: Final = re.compile(
    r"<\|im_start\|>(?P<chatml>\w+)\n?"
    r"|<\|start_header_id\|>(?P<llama3>\w+)<\|end_header_id\|>\s*"
    r"|<start_of_turn>(?P<gemma>\w+)\n?"
    r"|<\|(?P<phi>user|assistant|system|observation)\|>\n?"
    r"|<[|｜](?P<deepseek>User|Assistant)[|｜]>"
    r"|(?P<mistral>\[/?INST\])"
)
"""Where a turn begins, in the chat templates of today's open models; the group names the speaker."""
_CONTROL: Final = re.compile(
    r"<[|｜][^<>|｜\s]{1,40}[|｜]>|</?s>|<(?:bos|eos|pad|unk)>|<(?:start|end)_of_turn>|\[/?(?:INST|PAD)\]"
)
"""Control tokens by their look."""
_LAST: Final = re.compile(rf"(?:{_CONTROL.pattern})\Z")
_LONGEST_CONTROL: Final = 48
"""Characters that `_CONTROL` can match, at most."""
_EDGE: Final = re.compile(rf"\A(?:\s*(?:{_CONTROL.pattern}))+\s*")
_BLANK_OR_CONTROL: Final = re.compile(rf"{_CONTROL.pattern}|\s+")


@dataclass(frozen=True, slots=True)
class Rewards:
    """The answer to one request; one number a query in every list."""

    rewards: list[float]
    """The traces' rewards; the lowest of the PRM's range for a trace without one."""
    scores: list[float]
    """The means of the step rewards on a scale of 0 to 1, the trajectory reward where there are no steps."""
    extra_logs: dict[str, list[float]]


def trace_of(query: str, prompt: str | None, *, id: str, answer: str | None = None) -> Trace:
    """Return the trace that a decoded text holds.

    Args:
        query: Prompt and completion as the trainer decoded them.
        prompt: What the policy read, rendered by a chat template or plain; None if it is not known.
        id: The trace's id.
        answer: The reference answer.
    """
    read, written = _split(query, prompt)
    written = _without_end(written)
    for opening, closing in THINK_PAIRS:
        # Templates of thinking models write the opening mark themselves, so it stands in the prompt.
        if read.rstrip().endswith(opening) and not written.lstrip().startswith(opening):
            written = opening + written
            break
        if closing in written:
            break
    parts = split_marks(written)
    if parts is None:
        return Trace(id, _problem(read), response=written.strip(), answer=answer)
    return Trace(id, _problem(read), parts.thinking, parts.response, answer=answer, thinking_closed=parts.closed)


def _split(query: str, prompt: str | None) -> tuple[str, str]:
    """Return what was read and what was written."""
    if prompt:
        if query.startswith(prompt):
            return prompt, query[len(prompt) :]
        if (end := _end_of(prompt, query)) is not None:
            return prompt, query[end:]
    turns = [turn for turn in _OPENING.finditer(query) if _speaker(turn) == "assistant"]
    if turns:
        return query[: turns[-1].end()], query[turns[-1].end() :]
    return prompt or "", query


def _end_of(prompt: str, query: str) -> int | None:
    """Return where the prompt ends in the query, blank space and control tokens left out of the comparison."""
    wanted = _BLANK_OR_CONTROL.sub("", prompt)
    if not wanted:
        return None
    pieces: list[str] = []
    found = at = 0
    for gap in (*_BLANK_OR_CONTROL.finditer(query), None):
        stop = len(query) if gap is None else gap.start()
        pieces.append(query[at:stop])
        if found + stop - at >= len(wanted) or gap is None:
            break
        found += stop - at
        at = gap.end()
    if not "".join(pieces).startswith(wanted):
        return None
    return _after_template(query, at + len(wanted) - found, prompt)


def _after_template(query: str, at: int, prompt: str) -> int:
    """Skip the control tokens that end the prompt, and what a template puts between the user's words and the answer."""
    for control in _CONTROL.finditer(prompt, len(_without_end(prompt))):
        start = at + _blank(query, at)
        at = start + len(control.group()) if query.startswith(control.group(), start) else at
    while turn := _OPENING.search(query, at):
        if _BLANK_OR_CONTROL.sub("", query[at : turn.start()]):
            break
        at = turn.end()
    return at


def _blank(text: str, start: int) -> int:
    stop = start
    while stop < len(text) and text[stop].isspace():
        stop += 1
    return stop - start


def _without_end(text: str) -> str:
    """Drop control tokens and blank space from the end; in linear time, whatever the policy wrote a thousand times."""
    stop = len(text)
    while True:
        while stop and text[stop - 1].isspace():
            stop -= 1
        last = _LAST.search(text, max(0, stop - _LONGEST_CONTROL), stop)
        if last is None:
            return text[:stop]
        stop = last.start()


def _speaker(turn: re.Match[str]) -> str:
    name = next(group for group in turn.groupdict().values() if group).lower()
    return {"[inst]": "user", "[/inst]": "assistant"}.get(name) or ROLES.get(name, name)


def _problem(read: str) -> str:
    """Return what the user asked: the turns of a rendered prompt without the system's, or the text as it is."""
    turns = list(_OPENING.finditer(read))
    ends = [*(turn.start() for turn in turns[1:]), len(read)]
    said = [
        (_speaker(turn), _without_end(read[turn.end() : end]).strip()) for turn, end in zip(turns, ends, strict=False)
    ]
    while said and said[-1][0] == "assistant":  # the turn that the policy is to write
        said.pop()
    said = [(role, text) for role, text in said if role != "system" and text]
    if said:
        return conversation(said)
    return _without_end(_EDGE.sub("", read)).strip()


def rewards_of(scored: Sequence[ScoredTrace], score_range: tuple[float, float]) -> Rewards:
    """Return the answer for some records.

    Args:
        scored: One for each query, in order.
        score_range: Of the PRM's step rewards.
    """
    low, high = score_range

    def unit(value: float) -> float:
        return min(1.0, max(0.0, (value - low) / (high - low)))

    def mean(record: ScoredTrace) -> float:
        known = [reward for reward in record.step_rewards if reward is not None]
        known = known or [low if record.trajectory_reward is None else record.trajectory_reward]
        return sum(known) / len(known)

    def least(record: ScoredTrace) -> float:
        return min((reward for reward in record.step_rewards if reward is not None), default=low)

    logs: dict[str, list[float]] = {
        "prm_mean_step": [mean(record) for record in scored],
        "prm_min_step": [least(record) for record in scored],
        "prm_steps": [float(len(record.steps)) for record in scored],
        "prm_unscored": [float(record.status is not Status.SCORED) for record in scored],
    }
    if any(record.trajectory_reward is not None for record in scored):
        logs["prm_trajectory"] = [low if r.trajectory_reward is None else r.trajectory_reward for r in scored]
    return Rewards(
        [low if record.reward is None else record.reward for record in scored],
        [unit(mean(record)) for record in scored],
        logs,
    )


def reference_answer(label: Any) -> str | None:
    """Return a label as a reference answer, or None if it is not one text or number."""
    return str(label) if isinstance(label, str | int | float) and not isinstance(label, bool) else None
