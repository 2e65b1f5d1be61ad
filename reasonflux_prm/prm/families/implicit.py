"""Implicit PRMs: the log-likelihood ratio of two causal language models, one trained on outcomes from the other.

Checkpoints: `PRIME-RL/EurusPRM-Stage1` and `-Stage2`, each with the reference `Qwen/Qwen2.5-Math-7B-Instruct`; all
`Qwen2ForCausalLM`.

Input: the ChatML template with the system message of Qwen2.5-Math; user turn: the problem; assistant turn: the steps,
joined with blank lines. A step is followed by a blank line if more text follows it, which shows without looking ahead:
every thinking step, and every response step that ends with white space (the splitter leaves the space between two
steps with the first).
Reward of a step: beta * sum over its tokens of [log pi(token | past) - log pi_ref(token | past)], beta 0.001 as
published.
Values: `single`, the step's own sum (the process reward r_t = q_t - q_(t-1)); `accumulative`, the sum up to its end
(q_t).
Range: unbounded; 0 says that both models find the text equally likely. Not to be compared with families of range 0 to
1.
Meaning: change (or level) of the expected outcome reward, arXiv:2412.01981, proposition 3.1.
Default aggregation: the least step reward; the authors use minimum and sum, and the sum is the trajectory reward.
Trajectory reward: the outcome reward that the model was trained with, beta * log [pi(y) / pi_ref(y)] over the whole
assistant turn: the sum of all step rewards and of the turn's closing token, from the same reading.
Context: the shorter of the two models' (4,096 tokens for EurusPRM).

Matched source: model card of EurusPRM-Stage2; `eval/prm_eval_utils.py` of PRIME-RL/ImplicitPRM at c044175.
Departures, which move numbers: each token counts for the step it stands in. The model card's index arithmetic lets a
step's sum run on over one or two tokens of the next step, counts the line break of the assistant header as response,
and gives the closing token to the last step, which an open session could not do. Blank space around the problem and
around a step is dropped. Log-probabilities are taken in float32.

Two bodies run over the same tokens. Vocabulary logits exist for response tokens only and a slice at a time.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from reasonflux_prm.errors import CheckpointError, UsageError
from reasonflux_prm.prm.base import PRM, Caches, PackedBatch, PRMSpec
from reasonflux_prm.prm.cache import KVCache
from reasonflux_prm.prm.checkpoint import Checkpoint
from reasonflux_prm.prm.decoder import Decoder
from reasonflux_prm.prm.encoding import TRAJECTORY, Piece
from reasonflux_prm.prm.lm_head import lm_head
from reasonflux_prm.prm.tokenizer import TextTokenizer
from reasonflux_prm.records import Part

BETA = 0.001
Values = Literal["single", "accumulative"]

_START, _END = "<|im_start|>", "<|im_end|>"
_SYSTEM = f"{_START}system\nPlease reason step by step, and put your final answer within \\boxed{{}}.{_END}\n"
_JOINT = "\n\n"
_LOGITS = 1 << 25
"""Vocabulary logits in memory at once: 128 MiB in float32."""


class TailCache(KVCache):
    """A cache that also keeps the last hidden state of each extension: it predicts the first token of the next one."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__(decoder.config, decoder.devices, decoder.dtype)
        self.tails: dict[int, Tensor] = {}
        """By length at the end of an extension: the hidden state (d,) of the last token."""

    def fork(self) -> TailCache:
        """Return a cache with the same past; the two go separate ways from here."""
        twin = copy(self)
        twin.tails = dict(self.tails)
        twin._storage.users.add(twin)
        return twin

    def rollback(self, length: int) -> None:
        """Forget all tokens after the first `length`."""
        super().rollback(length)
        self.tails = {end: tail for end, tail in self.tails.items() if end <= length}

    def tail(self) -> Tensor:
        """Return the hidden state of the last token, (d,).

        Raises:
            ValueError: The cache was rolled back into the middle of an extension.
        """
        if self.length not in self.tails:
            raise ValueError(f"no hidden state is kept at length {self.length}; roll back to where a step began")
        return self.tails[self.length]


@dataclass(frozen=True, slots=True)
class LanguageModel:
    """A body and its output matrix."""

    decoder: Decoder
    head: Tensor
    """(vocabulary, d)"""

    @classmethod
    def load(cls, checkpoint: Checkpoint) -> LanguageModel:
        """Read both from a checkpoint folder."""
        decoder = checkpoint.decoder()
        return cls(decoder, lm_head(checkpoint, decoder))

    def log_probabilities(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        """Return the log-probability of each token after the position whose hidden state is given.

        Args:
            hidden: (N, d).
            tokens: (N,) int64.

        Returns:
            (N,) float32, on the CPU.
        """
        rows = max(1, _LOGITS // len(self.head))
        parts = []
        for states, targets in zip(torch.split(hidden, rows), torch.split(tokens.to(hidden.device), rows), strict=True):
            logits = F.linear(states, self.head).float()
            parts.append(logits.gather(1, targets[:, None]).squeeze(1) - logits.logsumexp(dim=1))
        return torch.cat(parts).cpu()


class ImplicitPRM(PRM):
    """An implicit PRM; see the module's text for the contract."""

    def __init__(
        self,
        spec: PRMSpec,
        policy: LanguageModel,
        reference: LanguageModel,
        tokenizer: TextTokenizer,
        *,
        beta: float = BETA,
        values: Values = "single",
    ) -> None:
        super().__init__(spec, policy.decoder, tokenizer)
        self.models = (policy, reference)
        self.beta, self.values = beta, values
        self.end = tokenizer.control(_END)
        tokenizer.control(_START)
        self._open = tokenizer.template(f"{_SYSTEM}{_START}user\n")
        self._close = tokenizer.template(f"{_END}\n{_START}assistant\n")

    @classmethod
    def load(
        cls, checkpoint: Checkpoint, reference: Checkpoint, *, beta: float = BETA, values: Values = "single"
    ) -> ImplicitPRM:
        """Build the PRM from the folders of its two models.

        Args:
            checkpoint: The trained model; its tokenizer is used.
            reference: The model it was trained from.
            beta: Scale of the rewards.
            values: Whether a step's reward is its own (`single`) or that of everything up to its end (`accumulative`).

        Raises:
            CheckpointError: An output matrix is wrong, the tokenizer has no ChatML, or the vocabularies differ.
            UsageError: Unknown `values`.
        """
        if values not in ("single", "accumulative"):
            raise UsageError(f"values must be 'single' or 'accumulative', got {values!r}")
        tokenizer = checkpoint.tokenizer()
        _expect_one_vocabulary(checkpoint, reference)
        policy, base = LanguageModel.load(checkpoint), LanguageModel.load(reference)
        of = "change in" if values == "single" else "level of"
        spec = PRMSpec(
            name=checkpoint.name,
            family="implicit",
            revision=f"{checkpoint.revision}/{reference.revision}",
            score_range=(-math.inf, math.inf),
            meaning=f"{of} the expected outcome reward, {beta:g} * log-likelihood ratio to {reference.name}; unbounded",
            aggregation="min",
            context_length=min(policy.decoder.config.context, base.decoder.config.context),
            trajectory="marker",
        )
        return cls(spec, policy, base, tokenizer, beta=beta, values=values)

    # --- input -------------------------------------------------------------------------------------------------------

    def head(self, problem: str) -> tuple[int, ...]:
        """Return template and problem, up to the header of the assistant turn."""
        return (*self._open, *self.tokenizer.continuation(problem.strip()), *self._close)

    def step_piece(self, text: str, index: int, part: Part, previous: Part | None) -> Piece:
        """Return the step, and a blank line if more text follows it."""
        joint = _JOINT if part == "thinking" or text[-1:].isspace() else ""
        return Piece(tuple(self.tokenizer.continuation(text.strip() + joint)), index)

    def trajectory_piece(self) -> Piece:
        """Return the token that closes the assistant turn."""
        return Piece((self.end,), TRAJECTORY)

    # --- output ------------------------------------------------------------------------------------------------------

    def read_out(self, hidden: Tensor) -> Tensor:
        """Turn log ratios into rewards: this family reads no hidden state of a piece but the sum of its log ratios.

        Args:
            hidden: Those sums, (R, 1).

        Returns:
            (R,) float32.
        """
        return (self.beta * hidden[:, 0]).float()

    def forward(self, batch: PackedBatch) -> Tensor:
        """Return the rewards of all pieces of a pack, (R,) float32."""
        positions = _positions(batch)
        before = [model.decoder(batch.tokens, batch.starts)[positions - 1] for model in self.models]
        return self._rewards(batch, positions, before)

    def finish(self, rewards: Sequence[float]) -> list[float]:
        """Return the steps' own rewards, or their running sums."""
        return list(rewards) if self.values == "single" else list(accumulate(rewards))

    def finish_trajectory(self, rewards: Sequence[float], read: float) -> float:
        """Return the outcome reward: all steps and the closing token."""
        return sum(rewards) + read

    def _rewards(self, batch: PackedBatch, positions: Tensor, before: Sequence[Tensor]) -> Tensor:
        """Return rewards (R,), given for each model the hidden states (N, d) in front of the N positions."""
        tokens = batch.tokens[positions]
        with torch.inference_mode():
            policy, reference = (
                model.log_probabilities(states, tokens) for model, states in zip(self.models, before, strict=True)
            )
            # Summed on the CPU, piece by piece: the order is fixed, so a sum does not depend on the rest of the pack.
            ratios = torch.split((policy - reference).double(), [stop - start for start, stop in batch.spans])
            return self.read_out(torch.stack([ratio.sum() for ratio in ratios])[:, None]) if ratios else torch.empty(0)

    # --- sessions ----------------------------------------------------------------------------------------------------

    def new_caches(self) -> Caches:
        """Return an empty past for one sequence: a cache for each model."""
        return tuple(TailCache(model.decoder) for model in self.models)

    def extend(self, batch: PackedBatch, pasts: Sequence[Caches]) -> Tensor:
        """Append each sequence of the pack to its past; return the rewards of the pieces read, (R,) float32."""
        positions = _positions(batch)
        before = []
        for number, model in enumerate(self.models):
            caches = [cast(TailCache, past[number]) for past in pasts]
            before.append(_extended(model.decoder, batch, caches)[positions])
        return self._rewards(batch, positions, before)


def _positions(batch: PackedBatch) -> Tensor:
    """Return the positions of all tokens of the pieces that are read, (N,)."""
    spans = [torch.arange(start, stop) for start, stop in batch.spans]
    return torch.cat(spans) if spans else torch.empty(0, dtype=torch.long)


def _extended(decoder: Decoder, batch: PackedBatch, caches: Sequence[TailCache]) -> Tensor:
    """Append to the caches; return the hidden state in front of every token of the pack, (T, d)."""
    # The first token of a past has nothing in front of it. It belongs to the head, where nothing is read.
    tails = [cache.tail() if cache.length else None for cache in caches]
    hidden = decoder(batch.tokens, batch.starts, caches)
    with torch.inference_mode():
        before = hidden.roll(1, dims=0)
        for (start, stop), cache, tail in zip(pairwise(batch.starts), caches, tails, strict=True):
            cache.tails[cache.length] = hidden[stop - 1].clone()
            if tail is not None:
                before[start] = tail
    return before


def _expect_one_vocabulary(checkpoint: Checkpoint, reference: Checkpoint) -> None:
    """Raise a CheckpointError unless both models number the same tokens in the same way."""
    sizes = checkpoint.config.get("vocab_size"), reference.config.get("vocab_size")
    if sizes[0] != sizes[1]:
        raise CheckpointError(
            f"the reference model {reference.where} has a vocabulary of {sizes[1]}, "
            f"{checkpoint.where} one of {sizes[0]}; "
            "pass the model that the PRM was trained from"
        )
    if (theirs := _vocabulary(reference.folder)) and theirs != _vocabulary(checkpoint.folder):
        raise CheckpointError(
            f"the reference model {reference.where} numbers its tokens differently from {checkpoint.where}; "
            "pass the model that the PRM was trained from"
        )


def _vocabulary(folder: Path) -> Any:
    """Return the token table of a folder's `tokenizer.json`, or None."""
    path = folder / "tokenizer.json"
    return json.loads(path.read_text("utf-8"))["model"].get("vocab") if path.exists() else None
