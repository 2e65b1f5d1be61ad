"""The zero-shot baseline of the evaluation: what the base says of a candidate before any training.

It is built as a PRM, so that the scoring engine packs it, resumes it and writes its scores like any other.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from reasonflux_prm.prm.base import PRM, PackedBatch, PRMSpec
from reasonflux_prm.prm.checkpoint import Checkpoint
from reasonflux_prm.prm.encoding import Piece
from reasonflux_prm.prm.families.implicit import LanguageModel
from reasonflux_prm.records import Part


class MeanLogProbability(PRM):
    """The zero-shot baseline: the mean log-probability of a candidate's tokens, given the problem as a user's turn.

    It is the plain base of the embedded PRM, with nothing trained.

    Args:
        folder: The base, as `ensure_base` builds it.
        like: The PRM that it is compared with; it runs on the same device and in the same precision.
    """

    def __init__(self, folder: Path, like: PRM) -> None:
        checkpoint = Checkpoint(folder, name=folder.name, dtype=like.decoder.dtype, devices=like.decoder.devices[:1])
        self.model = LanguageModel.load(checkpoint)
        spec = PRMSpec(
            name="zero-shot log-probability",
            family="log-probability",
            revision=checkpoint.revision,
            score_range=(-torch.inf, 0.0),
            meaning="mean log-probability of a token of the candidate",
            aggregation="mean",
            context_length=self.model.decoder.config.context,
            has_steps=False,
        )
        super().__init__(spec, self.model.decoder, checkpoint.tokenizer())

    def head(self, problem: str) -> tuple[int, ...]:
        """Return the problem as a user's turn, and the opening of the assistant's."""
        before = self.tokenizer.template("<|im_start|>user\n")
        after = self.tokenizer.template("<|im_end|>\n<|im_start|>assistant\n")
        return (*before, *self.tokenizer.continuation(problem.strip()), *after)

    def step_piece(self, text: str, index: int, part: Part, previous: Part | None) -> Piece:
        """Return the candidate's own tokens; the turn's end is not counted."""
        return Piece(tuple(self.tokenizer.continuation(text.strip())), index)

    def forward(self, batch: PackedBatch) -> Tensor:
        """Return the mean log-probability of each piece, (R,) float32."""
        hidden = self.decoder(batch.tokens, batch.starts)
        with torch.inference_mode():
            spans = [torch.arange(start, stop) for start, stop in batch.spans]
            positions = torch.cat(spans)
            found = self.model.log_probabilities(hidden[positions - 1], batch.tokens[positions])
            means = [own.double().mean() for own in torch.split(found, [len(span) for span in spans])]
            return self.read_out(torch.stack(means)[:, None])

    def read_out(self, hidden: Tensor) -> Tensor:
        """Return what `forward` computed: this baseline reads no hidden state."""
        return hidden[:, 0].float()
