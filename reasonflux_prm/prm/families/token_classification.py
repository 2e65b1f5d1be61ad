"""PRMs trained with TRL's `PRMTrainer`, and any plain `...ForTokenClassification` checkpoint without settings of ours.

Contract, from `trl/experimental/prm/prm_trainer.py` of huggingface/trl at f2cd577:
- Input: the bos token where the tokenizer names one, the raw problem, then each step followed by the tokens of the
  separator, which is a line break unless it was changed in training. Problem, steps and separator are tokenized
  each on its own. No chat template.
- Head: `score`, linear to 2 labels. A step's reward is the softmax's second label at the separator's last token, in
  [0, 1].
- Aggregation: not published; mean. Context: the config's.

A step is its text without surrounding blank space, as completions are in the data sets that the trainer takes.
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

SEPARATOR = "\n"


class TokenClassificationPRM(PRM):
    """A token classifier with two labels. Scores are P(step is right)."""

    def __init__(
        self, spec: PRMSpec, decoder: Decoder, tokenizer: TextTokenizer, weight: Tensor, bias: Tensor | None
    ) -> None:
        super().__init__(spec, decoder, tokenizer)
        self.weight, self.bias = weight, bias
        self._bos = () if tokenizer.bos is None else (tokenizer.bos,)
        self._separator = tokenizer.start(SEPARATOR)

    @classmethod
    def load(cls, checkpoint: Checkpoint) -> TokenClassificationPRM:
        """Build the PRM from a checkpoint folder.

        Raises:
            CheckpointError: The head is missing or has not two labels.
        """
        weight, bias = checkpoint.linear("score", allowed_rows=(2,))
        decoder = checkpoint.decoder()
        spec = PRMSpec(
            name=checkpoint.name,
            family="token-classification",
            revision=checkpoint.revision,
            score_range=(0.0, 1.0),
            meaning="probability that the step is right",
            aggregation="mean",
            context_length=decoder.config.context,
        )
        return cls(spec, decoder, checkpoint.tokenizer(), weight, bias)

    def head(self, problem: str) -> tuple[int, ...]:
        """Return the problem."""
        return (*self._bos, *self.tokenizer.start(problem))

    def step_piece(self, text: str, index: int, part: Part, previous: Part | None) -> Piece:
        """Return the step's text without surrounding blank space, and the separator; thinking and response alike."""
        return Piece((*self.tokenizer.start(text.strip()), *self._separator), index)

    def read_out(self, hidden: Tensor) -> Tensor:
        """Return P(right)."""
        return torch.softmax(F.linear(hidden, self.weight, self.bias).float(), dim=-1)[:, 1]
