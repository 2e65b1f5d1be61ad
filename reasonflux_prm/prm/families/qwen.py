"""Qwen2.5-Math-PRM-7B and -72B, Qwen2.5-Math-7B-PRM800K, and ReasonFlux-PRM-7B, which has the same architecture.

Contract, from the model cards' snippet and, for ReasonFlux, the README and `utils/rm_utils.py` of
Gen-Verse/ReasonFlux at 8980b8b:
- Input: ChatML. System message, the problem as the user's message, then the steps as the assistant's, each closed
  by `<extra_0>`.
- Head: `score`, a two-layer network with ReLU, to 2 labels. A step's reward is the softmax's second label at its
  `<extra_0>`, in [0, 1].
- System message: the Qwen snippet states one. The ReasonFlux README states none, so its checkpoint's own chat
  template decides; if that names none, the default of Qwen2.5's template stands.
- Aggregation: the cards leave it open; mean, as in ReasonFlux (arXiv:2506.18896). Context: the config's
  (Qwen2.5-Math-PRM-7B: 4,096).

The separator takes the place of the blank line between steps, so a step is its text without surrounding blank
space. The template's `<|im_end|>` after the last separator is left out: attention is causal, no reward can depend
on it.
"""

from __future__ import annotations

import re

import torch
import torch.nn.functional as F
from torch import Tensor

from reasonflux_prm.errors import CheckpointError
from reasonflux_prm.prm.base import PRM, PRMSpec
from reasonflux_prm.prm.checkpoint import Checkpoint
from reasonflux_prm.prm.decoder import Decoder
from reasonflux_prm.prm.encoding import Piece
from reasonflux_prm.prm.tokenizer import TextTokenizer, tokenizer_settings
from reasonflux_prm.records import Part

SEPARATOR = "<extra_0>"
PUBLISHED_SYSTEM = "Please reason step by step, and put your final answer within \\boxed{}."
"""The system message of the Qwen model cards' snippet."""
QWEN25_SYSTEM = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
"""What Qwen2.5's chat template puts in when no system message is given."""

Layer = tuple[Tensor, Tensor | None]
"""Weight and bias of a linear layer."""


class QwenPRM(PRM):
    """A Qwen2 process reward model. Scores are P(step is right)."""

    def __init__(
        self, spec: PRMSpec, decoder: Decoder, tokenizer: TextTokenizer, layers: tuple[Layer, Layer], system: str
    ) -> None:
        super().__init__(spec, decoder, tokenizer)
        self.layers, self.system = layers, system
        self.separator = tokenizer.control(SEPARATOR)
        opens, closes = tokenizer.control("<|im_start|>"), tokenizer.control("<|im_end|>")
        line = tokenizer.continuation("\n")
        self._before = (opens, *tokenizer.continuation(f"system\n{system}"), closes, *line, opens)
        self._after = (closes, *line, opens, *tokenizer.continuation("assistant\n"))

    @classmethod
    def load(cls, checkpoint: Checkpoint) -> QwenPRM:
        """Build a PRM that is given the published system message.

        Raises:
            CheckpointError: The reward head is missing or of another width, or the tokenizer has no separator.
        """
        return cls._load(checkpoint, "qwen-math", PUBLISHED_SYSTEM)

    @classmethod
    def load_reasonflux(cls, checkpoint: Checkpoint) -> QwenPRM:
        """Build a PRM that is given no system message of its own: the chat template's default stands.

        Raises:
            CheckpointError: The reward head is missing or of another width, or the tokenizer has no separator.
        """
        return cls._load(checkpoint, "reasonflux", default_system(checkpoint) or QWEN25_SYSTEM)

    @classmethod
    def _load(cls, checkpoint: Checkpoint, family: str, system: str) -> QwenPRM:
        _demand_head(checkpoint)
        hidden = int(checkpoint.config["hidden_size"])
        first = checkpoint.linear("score.0", allowed_rows=(hidden,))
        second = checkpoint.linear("score.2", allowed_rows=(2,))
        tokenizer = checkpoint.tokenizer()
        tokenizer.control(SEPARATOR)  # a missing separator is told before the body's gigabytes are read
        decoder = checkpoint.decoder()
        spec = PRMSpec(
            name=checkpoint.name,
            family=family,
            revision=checkpoint.revision,
            score_range=(0.0, 1.0),
            meaning="probability that the step is right",
            aggregation="mean",
            context_length=decoder.config.context,
        )
        return cls(spec, decoder, tokenizer, (first, second), system)

    def head(self, problem: str) -> tuple[int, ...]:
        """Return system message, problem and the opening of the assistant's message."""
        return (*self._before, *self.tokenizer.continuation(f"user\n{problem}"), *self._after)

    def step_piece(self, text: str, index: int, part: Part, previous: Part | None) -> Piece:
        """Return the step's text without surrounding blank space, and the separator; thinking and response alike."""
        return Piece((*self.tokenizer.continuation(text.strip()), self.separator), index)

    def read_out(self, hidden: Tensor) -> Tensor:
        """Return P(right)."""
        (weight1, bias1), (weight2, bias2) = self.layers
        logits = F.linear(F.relu(F.linear(hidden, weight1, bias1)), weight2, bias2)
        return torch.softmax(logits.float(), dim=-1)[:, 1]


def default_system(checkpoint: Checkpoint) -> str | None:
    """Return the system message that the ChatML template puts in when none is given; None if it names none."""
    path = checkpoint.folder / "chat_template.jinja"
    template = path.read_text("utf-8") if path.exists() else tokenizer_settings(checkpoint.folder).get("chat_template")
    if not isinstance(template, str):
        return None
    # The default stands in one literal, mark to mark; a message that is given is spliced in from outside the quotes.
    found = re.search(r"'<\|im_start\|>system(?:\\n|\n)([^']+?)<\|im_end\|>", template)
    return re.sub(r"\\(.)", lambda escape: "\n" if escape[1] == "n" else escape[1], found[1]) if found else None


def _demand_head(checkpoint: Checkpoint) -> None:
    if "score.0.weight" in checkpoint.files or "score.weight" in checkpoint.files:
        return
    width = f"{int(checkpoint.config.get('vocab_size', 0)):,}"
    raise CheckpointError(
        f"{checkpoint.where}: expected a reward head (score.0, score.2), found none: with the language model's head in "
        f"its place logits would be {width} wide; the reward head is missing. Fetch the PRM's own weights"
    )
