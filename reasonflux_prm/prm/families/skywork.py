"""Skywork-o1-Open-PRM-Qwen-2.5-1.5B and -7B.

Contract, from SkyworkAI/skywork-o1-prm-inference (`prepare_input`, `derive_step_rewards_vllm`) and the layout of
its checkpoints:
- Input: the bos token where the tokenizer names one, the problem and a line break, then each step followed by the
  token of a line break. Every step is tokenized on its own. No chat template.
- Head: `v_head.summary`, linear to 1; a step's reward is its sigmoid at the line break's token, in [0, 1].
- Aggregation: not published; mean. Context: the config's (1.5B: 4,096).

The release takes every line for a step and so gives empty lines a score of their own; here the step rule decides, a
step is its text without surrounding blank space, and line breaks inside it are ordinary text.
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


class SkyworkPRM(PRM):
    """A Qwen2 decoder with a value head. Scores are the sigmoid of the value."""

    def __init__(
        self, spec: PRMSpec, decoder: Decoder, tokenizer: TextTokenizer, weight: Tensor, bias: Tensor | None
    ) -> None:
        super().__init__(spec, decoder, tokenizer)
        self.weight, self.bias = weight, bias
        self._bos = () if tokenizer.bos is None else (tokenizer.bos,)
        self._separator = tokenizer.start("\n")[-1]

    @classmethod
    def load(cls, checkpoint: Checkpoint) -> SkyworkPRM:
        """Build the PRM from a checkpoint folder.

        Raises:
            CheckpointError: The value head is missing or not one row wide.
        """
        weight, bias = checkpoint.linear("v_head.summary", allowed_rows=(1,))
        decoder = checkpoint.decoder()
        spec = PRMSpec(
            name=checkpoint.name,
            family="skywork",
            revision=checkpoint.revision,
            score_range=(0.0, 1.0),
            meaning="value of the step as a probability",
            aggregation="mean",
            context_length=decoder.config.context,
        )
        return cls(spec, decoder, checkpoint.tokenizer(), weight, bias)

    def head(self, problem: str) -> tuple[int, ...]:
        """Return the problem and a line break."""
        return (*self._bos, *self.tokenizer.start(f"{problem}\n"))

    def step_piece(self, text: str, index: int, part: Part, previous: Part | None) -> Piece:
        """Return the step's text without surrounding blank space, and a line break; thinking and response alike."""
        text = text.strip()
        return Piece((*(self.tokenizer.start(text) if text else ()), self._separator), index)

    def read_out(self, hidden: Tensor) -> Tensor:
        """Return the value's sigmoid."""
        return torch.sigmoid(F.linear(hidden, self.weight, self.bias).float()[:, 0])
