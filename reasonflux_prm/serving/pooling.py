"""vLLM's `/pooling` of a token classifier: which tokens are read, and the labels that stand for their rewards.

Followed: vLLM 0.32, task `token_classify`. ALL pooling gives the labels of every token, STEP pooling those at every
token that closes a step; `Qwen2ForProcessRewardModel` is served with STEP by default, everything else with ALL. A
head of one label gives its sigmoid, one of two labels their softmax, so the last label is always P(good).

One departure: `messages` are read as a trace and laid out as the PRM's own input, separators included, where vLLM would
render the chat template, which writes none. Steps that the assistant's text closes itself, with the separator's name,
are kept; a text without it is cut by the service's step rule.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from reasonflux_prm.errors import ContextError, InputError, ReasonFluxError, UsageError
from reasonflux_prm.prm.base import PRM
from reasonflux_prm.prm.encoding import TokenSequence
from reasonflux_prm.records import SegmentedTrace, Status, Step, Trace
from reasonflux_prm.scoring.engine import Work
from reasonflux_prm.scoring.windows import Read, Window
from reasonflux_prm.steps.split import split
from reasonflux_prm.traces.chats import chat

Pooling = Literal["all", "step"]
POOLINGS: tuple[Pooling, ...] = ("all", "step")
_STEP_BY_DEFAULT = ("qwen-math", "reasonflux")
"""Families with the architecture Qwen2ForProcessRewardModel."""
_TWO_LABELS = ("qwen-math", "reasonflux", "token-classification", "pure")

Labels = list[list[float]]
"""For each token or step, its labels."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What one part of a request asks about, and what to read of it."""

    tokens: tuple[int, ...]
    reads: tuple[int, ...]
    """Positions, in the order in which they are answered."""


@dataclass(slots=True, kw_only=True)
class PromptWork(Work):
    """A prompt on its way through the PRM."""

    prompt: Prompt


class Pooler:
    """Turns prompts into windows, and what was read in them into labels.

    Args:
        prm: A PRM that vLLM serves as a token classifier.
        pooling: `all` or `step`; None takes what vLLM does with this architecture.
        step_tag_id: The token that closes a step; None takes the PRM's separator.
        steps: The step rule for messages.

    Raises:
        UsageError: The PRM is no token classifier, or STEP pooling has no token to go by.
    """

    def __init__(
        self, prm: PRM, pooling: Pooling | None = None, step_tag_id: int | None = None, steps: str = "adaptive"
    ) -> None:
        family = prm.spec.family
        if family != "native" and family not in _TWO_LABELS:
            raise UsageError(f"{prm.spec.name} is no token classifier (family {family}): it has no /pooling")
        self.prm = prm
        self.pooling: Pooling = pooling or ("step" if family in _STEP_BY_DEFAULT else "all")
        self.labels = 2 if family in _TWO_LABELS else int(prm.weight.shape[0])  # type: ignore[attr-defined]
        separator: int | None = getattr(prm, "separator", None)
        self.step_tag_id = separator if step_tag_id is None else step_tag_id
        self._vocabulary = len(prm.decoder.embedding)
        self._steps = steps
        if self.pooling == "step" and self.step_tag_id is None:
            raise UsageError(f"{prm.spec.name} closes steps with ordinary text: name their token with --step-tag-id")

    def of_tokens(self, tokens: Sequence[int], truncate: int | None) -> Prompt:
        """Return the prompt of token ids.

        Args:
            tokens: The ids.
            truncate: Keep so many from the end; -1 as many as the PRM takes, None all.

        Raises:
            InputError: No tokens, or ids that the PRM does not have.
            ContextError: More than the PRM takes.
        """
        most = self.prm.spec.context_length
        if truncate is not None:
            kept = most if truncate == -1 else truncate
            tokens = tokens[max(0, len(tokens) - kept) :]
        if not tokens:
            raise InputError("expected at least one token, got none: the input is empty")
        if not 0 <= min(tokens) <= max(tokens) < self._vocabulary:
            wrong = min(tokens) if min(tokens) < 0 else max(tokens)
            raise InputError(f"expected token ids from 0 to {self._vocabulary - 1:,}, got {wrong:,}")
        if len(tokens) > most:
            raise ContextError(
                f"expected at most {most:,} tokens, the PRM's context, got {len(tokens):,}; shorten the input, pass "
                "truncate_prompt_tokens, or send the trace to /score, which scores it in windows"
            )
        reads = range(len(tokens))
        if self.pooling == "step":
            return Prompt(tuple(tokens), tuple(at for at in reads if tokens[at] == self.step_tag_id))
        return Prompt(tuple(tokens), tuple(reads))

    def of_text(self, text: str, truncate: int | None, special: bool) -> Prompt:
        """Return the prompt of a text, in which names of control tokens count as such.

        Args:
            text: A whole input, as the PRM's template writes it.
            truncate: See `of_tokens`.
            special: Add what the tokenizer puts around a text of its own accord.

        Raises:
            InputError: It has no tokens.
            ContextError: More than the PRM takes.
        """
        return self.of_tokens(self.prm.tokenizer.parsed(text, opening=special), truncate)

    def of_messages(self, messages: Sequence[Mapping[str, Any]]) -> Prompt:
        """Return the prompt of a conversation that ends with the trace.

        Raises:
            InputError: It does not, or the trace holds no text.
            ContextError: More tokens than the PRM takes.
        """
        segmented = self._cut(chat({"messages": list(messages)}, "messages")[0])
        sequence: TokenSequence = self.prm.encode(segmented, trajectory=False).sequences[0]
        tokens, at = list(sequence.head), {}
        for piece in (*sequence.kept, *sequence.pieces):
            if piece.target is not None:
                at[piece.target] = len(tokens) + piece.read_offset()
            tokens.extend(piece.tokens)
        prompt = self.of_tokens(tokens, None)
        if self.pooling == "all":
            return prompt
        return Prompt(prompt.tokens, tuple(at[step] for step in range(len(segmented.steps)) if step in at))

    def _cut(self, trace: Trace) -> SegmentedTrace:
        name = self.prm.tokenizer.controls.get(-1 if self.step_tag_id is None else self.step_tag_id)
        if name is None or name not in trace.thinking + trace.response:
            segmented = split(trace, self._steps)
        else:
            parts = {
                part: [piece for piece in trace.text(part).split(name) if piece.strip()]
                for part in ("thinking", "response")
            }
            segmented = _joined(trace.problem, parts)
        if not any(segmented.text(step).strip() for step in segmented.steps):
            raise InputError("expected text from the assistant, got none")
        return segmented

    def work(self, prompt: Prompt) -> PromptWork:
        """Return what the batcher runs."""
        work = PromptWork(prompt=prompt)
        ordered = sorted(prompt.reads)
        starts = [0, *(at + 1 for at in ordered[:-1])]
        reads = tuple(Read(at, at, start, at + 1) for start, at in zip(starts, ordered, strict=False))
        if reads:
            work.windows.append(Window(prompt.tokens, reads))
        return work

    def data(self, work: PromptWork) -> Labels:
        """Return the labels of what was read.

        Raises:
            ReasonFluxError: It could not be read.
        """
        if work.status is not Status.SCORED:
            raise ReasonFluxError(work.problem or work.status.value)
        return [self._labels(work.rewards[at]) for at in work.prompt.reads]

    def _labels(self, reward: float) -> list[float]:
        if self.labels == 1:
            return [reward]
        good = (1 + reward) / 2 if self.prm.spec.family == "pure" else reward
        return [1 - good, good]


def pooler_for(prm: PRM, pooling: str | None, step_tag_id: int | None, steps: str) -> Pooler | None:
    """Return a PRM's pooler, or None where there is none and none was asked for.

    Raises:
        UsageError: One was asked for, or STEP pooling has no token to go by.
    """
    family = prm.spec.family
    if pooling is None and step_tag_id is None and family != "native" and family not in _TWO_LABELS:
        return None
    return Pooler(prm, cast(Pooling | None, pooling), step_tag_id, steps)


def _joined(problem: str, parts: Mapping[str, Sequence[str]]) -> SegmentedTrace:
    """Return the trace whose steps are these texts."""
    steps: list[Step] = []
    for part in ("thinking", "response"):
        start = 0
        for text in parts[part]:
            steps.append(Step(part, start, start + len(text)))
            start += len(text)
    thinking, response = ("".join(parts[part]) for part in ("thinking", "response"))
    return SegmentedTrace(Trace("messages", problem, thinking, response), tuple(steps), "given")


def base64_of(data: Labels) -> str:
    """Return the labels as little-endian float32 in base64, token by token."""
    flat = [label for labels in data for label in labels]
    return base64.b64encode(struct.pack(f"<{len(flat)}f", *flat)).decode()
