"""PURE-PRM-7B: a token classifier on Qwen2.5-Math-7B whose reward has a sign.

Contract, from the model card of jinachris/PURE-PRM-7B (arXiv:2504.15275):
- Input: the raw problem, then each step followed by the tokens of a blank line. Problem, steps and blank line are
  tokenized each on its own; no bos token, no chat template.
- Head: `score`, linear to 2 labels. A step's reward is p1 - p0 at the blank line's last token, in [-1, 1]; above 0
  the step counts as right.
- Aggregation: the card sums the rewards under softmin weights of temperature 0.1, an approximation of the minimum:
  `min`. Context: the config's (4,096).

A step is its text without surrounding blank space (the card strips its end).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from reasonflux_prm.prm.base import PRM, PRMSpec
from reasonflux_prm.prm.checkpoint import Checkpoint
from reasonflux_prm.prm.decoder import Decoder
from reasonflux_prm.prm.encoding import Piece
from reasonflux_prm.prm.tokenizer import TextTokenizer
from reasonflux_prm.records import Part

SEPARATOR = "\n\n"


class PurePRM(PRM):
    """A token classifier with two labels. Scores are P(right) - P(wrong)."""

    def __init__(
        self, spec: PRMSpec, decoder: Decoder, tokenizer: TextTokenizer, weight: Tensor, bias: Tensor | None
    ) -> None:
        super().__init__(spec, decoder, tokenizer)
        self.weight, self.bias = weight, bias
        self._separator = tokenizer.start(SEPARATOR)

    @classmethod
    def load(cls, checkpoint: Checkpoint) -> PurePRM:
        """Build the PRM from a checkpoint folder.

        Raises:
            CheckpointError: The head is missing or has not two labels.
        """
        weight, bias = checkpoint.linear("score", allowed_rows=(2,))
        decoder = checkpoint.decoder()
        spec = PRMSpec(
            name=checkpoint.name,
            family="pure",
            revision=checkpoint.revision,
            score_range=(-1.0, 1.0),
            meaning="probability that the step is right, less the probability that it is wrong",
            aggregation="min",
            context_length=decoder.config.context,
        )
        return cls(spec, decoder, checkpoint.tokenizer(), weight, bias)

    def head(self, problem: str) -> tuple[int, ...]:
        """Return the problem."""
        return tuple(self.tokenizer.start(problem))

    def step_piece(self, text: str, index: int, part: Part, previous: Part | None) -> Piece:
        """Return the step's text without surrounding blank space, and the blank line; thinking and response alike."""
        return Piece((*self.tokenizer.start(text.strip()), *self._separator), index)

    def read_out(self, hidden: Tensor) -> Tensor:
        """Return P(right) - P(wrong)."""
        p = torch.softmax(F.linear(hidden, self.weight, self.bias).float(), dim=-1)
        return p[:, 1] - p[:, 0]
