"""ReasonFlux-PRM-1.5B: one reward a trace, no step rewards.

Contract, from `utils/rm_utils.py` of Gen-Verse/ReasonFlux at 8980b8b:
- Input: problem and completion as one raw text, no chat template, the tokenizer's default special tokens.
- Head: one linear layer, published beside the language model as `reward_head.pt`; the reward is its sigmoid at the
  last token, in [0, 1].
- Context: the config's. The release trained on at most 8,192 tokens and its README cuts at 2,048 from the right,
  which loses the answer; here nothing is cut by the family, and where the engine has to, problem and end remain.

The completion is thinking and response, each without surrounding blank space, a blank line between them.
"""

from __future__ import annotations

from itertools import takewhile
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from reasonflux_prm.errors import CheckpointError
from reasonflux_prm.prm.base import PRM, PRMSpec
from reasonflux_prm.prm.checkpoint import Checkpoint
from reasonflux_prm.prm.decoder import Decoder
from reasonflux_prm.prm.encoding import TRAJECTORY, Piece, TokenSequence
from reasonflux_prm.prm.tokenizer import TextTokenizer
from reasonflux_prm.records import Part, Trace

HEAD_FILE = "reward_head.pt"


class ReasonFluxScalarPRM(PRM):
    """A scalar PRM. The trajectory reward is the probability that the trace is good."""

    def __init__(
        self, spec: PRMSpec, decoder: Decoder, tokenizer: TextTokenizer, weight: Tensor, bias: Tensor | None
    ) -> None:
        super().__init__(spec, decoder, tokenizer)
        self.weight, self.bias = weight, bias
        self._bos = () if tokenizer.bos is None else (tokenizer.bos,)

    @classmethod
    def load(cls, checkpoint: Checkpoint) -> ReasonFluxScalarPRM:
        """Build the PRM from a folder with `reward_head.pt`, or with `reward_head.weight` among its safetensors.

        Raises:
            CheckpointError: The head is missing, of another width, or not a plain state dict.
        """
        if (checkpoint.folder / HEAD_FILE).exists():
            weight, bias = checkpoint.checked_linear(
                HEAD_FILE, *_unpickled(checkpoint.folder / HEAD_FILE), allowed_rows=(1,)
            )
        else:
            weight, bias = checkpoint.linear("reward_head", allowed_rows=(1,))
        decoder = checkpoint.decoder()
        spec = PRMSpec(
            name=checkpoint.name,
            family="reasonflux-scalar",
            revision=checkpoint.revision,
            score_range=(0.0, 1.0),
            meaning="quality of the whole trace",
            aggregation="mean",
            context_length=decoder.config.context,
            has_steps=False,
            trajectory="only",
        )
        return cls(spec, decoder, checkpoint.tokenizer(), weight, bias)

    def head(self, problem: str) -> tuple[int, ...]:
        """Return the problem's tokens."""
        return (*self._bos, *self.tokenizer.start(problem))

    def step_piece(self, text: str, index: int, part: Part, previous: Part | None) -> Piece:
        """Return a text that follows the problem; this family never reads a step of its own."""
        return Piece(tuple(self.tokenizer.continuation(text)), index)

    def trajectory_sequence(self, trace: Trace) -> TokenSequence:
        """Return the whole text, read at its last token.

        Problem and completion are tokenized together, as published, so a token may span their border; the head is what
        the problem's own tokens have in common with the whole.
        """
        completion = "\n\n".join(part.strip() for part in (trace.thinking, trace.response) if part.strip())
        whole = (*self._bos, *self.tokenizer.start(trace.problem + completion))
        same = takewhile(lambda pair: pair[0] == pair[1], zip(whole[:-1], self.head(trace.problem), strict=False))
        opening = len(list(same))
        return TokenSequence(whole[:opening], (), (Piece(whole[opening:], TRAJECTORY),))

    def read_out(self, hidden: Tensor) -> Tensor:
        """Return the reward."""
        return torch.sigmoid(F.linear(hidden, self.weight, self.bias).float()[:, 0])


def _unpickled(path: Path) -> tuple[Tensor, Tensor | None]:
    """Read the official head; only tensors and plain containers are unpickled, no code runs."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # UnpicklingError, EOFError, a broken archive: torch raises many kinds
        raise CheckpointError(
            f"{path}: not a pickled state dict that can be read without running code ({error})"
        ) from error
    if not isinstance(state, dict) or not isinstance(state.get("weight"), Tensor):
        found = sorted(map(str, state)) if isinstance(state, dict) else type(state).__name__
        raise CheckpointError(
            f"{path}: expected the state dict of a linear layer with 'weight' and 'bias', found {found}"
        )
    return state["weight"], state.get("bias")
