"""What every loaded PRM offers: its contract (`PRMSpec`), traces into pieces, packed tokens into raw rewards.

A family is a subclass that says how a problem opens the input, what tokens a step adds, and how hidden states become
rewards. Everything else - packing, windows, sessions, aggregation - is done once, in `scoring/`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from reasonflux_prm.prm.cache import KVCache
from reasonflux_prm.prm.decoder import Decoder
from reasonflux_prm.prm.encoding import TRAJECTORY, EncodedTrace, Piece, TokenSequence
from reasonflux_prm.prm.tokenizer import TextTokenizer
from reasonflux_prm.records import Part, SegmentedTrace, Trace

TrajectoryKind = Literal["marker", "whole-response", "only", "verdict", "none"]


@dataclass(frozen=True, slots=True)
class PRMSpec:
    """The contract of a PRM: what its numbers mean and what it can read."""

    name: str
    family: str
    revision: str
    score_range: tuple[float, float]
    meaning: str
    """What a step reward says, in one clause."""
    aggregation: str
    """Default way from step rewards to one number: `mean`, `min`, `product`, `last` or `sum`."""
    context_length: int
    """Tokens of the longest input the PRM takes in one reading."""
    layout: Literal["causal", "response_first"] = "causal"
    has_steps: bool = True
    trajectory: TrajectoryKind = "whole-response"
    """Where the trajectory reward comes from: `marker`, a token of its own at the end of the one reading;
    `whole-response`, a second reading in which thinking and response are one step (the released practice); `only`, the
    PRM gives nothing else; `verdict`, a generative verifier's final word; `none`."""


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """Several token sequences laid end to end, and the positions to read."""

    tokens: Tensor
    """(T,) int64"""
    starts: Sequence[int]
    """B + 1 offsets: sequence b is `tokens[starts[b]:starts[b + 1]]`."""
    reads: Tensor
    """(R,) int64, positions in `tokens` whose output is read, rising."""
    spans: Sequence[tuple[int, int]]
    """R pairs: the piece that is read at `reads[r]` is `tokens[spans[r][0]:spans[r][1]]`."""


Caches = tuple[KVCache, ...]
"""The past of one sequence, one cache for each body the PRM has."""


class PRMInput(ABC):
    """How traces become the tokens that a PRM reads. It needs no weights, so training builds its input with it too."""

    def __init__(self, spec: PRMSpec, tokenizer: TextTokenizer) -> None:
        self.spec, self.tokenizer = spec, tokenizer

    @abstractmethod
    def head(self, problem: str) -> tuple[int, ...]:
        """Return the tokens that open the input: template and problem."""

    @abstractmethod
    def step_piece(self, text: str, index: int, part: Part, previous: Part | None) -> Piece:
        """Return what step `index` adds to the input.

        Args:
            text: The step's characters, as they stand in the trace.
            index: The step's number, from 0; the piece's target.
            part: The part the step is in.
            previous: The part of the step before it in the input; None if it is the first.
        """

    def trajectory_sequence(self, trace: Trace) -> TokenSequence | None:
        """Return the separate reading for the trajectory reward, or None if there is none.

        The default is the released practice (Gen-Verse/ReasonFlux at 8980b8b, and the TRM authors' client): thinking
        and response are one step, scored at its end.
        """
        if self.spec.trajectory != "whole-response":
            return None
        text = "\n\n".join(part.strip() for part in (trace.thinking, trace.response) if part.strip())
        whole = self.step_piece(text, 0, "response", None)
        return TokenSequence(self.head(trace.problem), (), (Piece(whole.tokens, TRAJECTORY, whole.read),))

    def trajectory_piece(self) -> Piece | None:
        """Return the marker that ends the one reading and carries the trajectory reward, or None without one."""
        return None

    def encode(self, segmented: SegmentedTrace, *, trajectory: bool = True) -> EncodedTrace:
        """Build all readings of a trace.

        Args:
            segmented: The trace and its steps.
            trajectory: False leaves out a second reading that only the trajectory reward needs (it costs as much as the
                first).
        """
        sequences: list[TokenSequence] = []
        if self.spec.has_steps:
            sequences.append(self._step_sequence(segmented))
        if trajectory and (separate := self.trajectory_sequence(segmented.trace)) is not None:
            sequences.append(separate)
        return EncodedTrace(tuple(sequences))

    def _step_sequence(self, segmented: SegmentedTrace) -> TokenSequence:
        # A step of nothing but blank space has nothing to judge, and gets no reward.
        order = [(index, step) for index, step in enumerate(segmented.steps) if segmented.text(step).strip()]
        if self.spec.layout == "response_first":
            order.sort(key=lambda item: item[1].part == "thinking")
        pieces: list[Piece] = []
        previous: Part | None = None
        for index, step in order:
            pieces.append(self.step_piece(segmented.text(step), index, step.part, previous))
            previous = step.part
        # Thinking steps are scored given the response; without thinking, windows slide over the response itself.
        keeps = self.spec.layout == "response_first" and any(step.part == "thinking" for _, step in order)
        kept = sum(step.part == "response" for _, step in order) if keeps else 0
        marker = self.trajectory_piece()
        tail = (marker,) if marker is not None else ()
        return TokenSequence(self.head(segmented.trace.problem), tuple(pieces[:kept]), (*pieces[kept:], *tail))


class PRM(PRMInput):
    """A discriminative PRM with one decoder. Subclasses are the families."""

    def __init__(self, spec: PRMSpec, decoder: Decoder, tokenizer: TextTokenizer) -> None:
        super().__init__(spec, tokenizer)
        self.decoder = decoder

    @abstractmethod
    def read_out(self, hidden: Tensor) -> Tensor:
        """Turn hidden states at read positions, (R, d), into rewards in the family's range, (R,) float32."""

    def forward(self, batch: PackedBatch) -> Tensor:
        """Return the rewards at all read positions of a pack, (R,) float32."""
        hidden = self.decoder(batch.tokens, batch.starts, reads=batch.reads)
        with torch.inference_mode():
            return self.read_out(hidden)

    def finish(self, rewards: Sequence[float]) -> list[float]:
        """Turn the raw rewards of all steps of a trace, in order, into step rewards; identity unless cumulative."""
        return list(rewards)

    def finish_trajectory(self, rewards: Sequence[float], read: float) -> float:
        """Turn what was read for the trajectory into the trajectory reward.

        Args:
            rewards: The raw rewards of the trace's steps, in order.
            read: The raw reward of the marker, or of the separate reading.
        """
        return read

    # --- sessions ----------------------------------------------------------------------------------------------------

    def new_caches(self) -> Caches:
        """Return an empty past for one sequence."""
        return (self.decoder.new_cache(),)

    def extend(self, batch: PackedBatch, pasts: Sequence[Caches]) -> Tensor:
        """Append each sequence of the pack to its past; return the rewards at the read positions, (R,) float32."""
        hidden = self.decoder(batch.tokens, batch.starts, [caches[0] for caches in pasts], batch.reads)
        with torch.inference_mode():
            return self.read_out(hidden)
