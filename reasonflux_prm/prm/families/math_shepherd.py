r"""Math-Shepherd: a causal language model that says '+' or '-' after the tag 'ки' of each step.

Checkpoint: `peiyi9979/math-shepherd-mistral-7b-prm`, a `MistralForCausalLM`. It is published as pickled weights, which
we do not load; convert it to safetensors first.

Input: `<s>{problem} Step 1: ... ки\nStep 2: ... ки`, plain text without a chat template. "Step k: " is put in front of
a step that does not begin with it.
Reward of a step: softmax over the logits of '+' and '-' at its 'ки', the probability of '+'. Range 0 to 1.
Meaning: that the right answer can still be reached from here (hard estimation from sampled completions,
arXiv:2312.08935, section 3).
Default aggregation: the least step reward, as in the paper (section 3.4).
Trajectory reward: thinking and response read again as one step.
Context: 4,096 tokens, the width of the sliding window of attention, up to which every reading is exact.

Matched source: the checkpoint's model card, and `reason/inference` of openreasoner/openr at 54ae004
(`_math_shepherd_infer_fn`): ids of the tag and of the two candidates are those of the text "ки", "+" and "-" behind
the dummy space of SentencePiece; 12902, 648 and 387 in the published vocabulary. Departures: a tag that the user typed
is read over (rewards are read where we put a tag), and blank space around the problem and around a step is dropped.

A window that does not begin with the first step reads `{problem}\nStep k: ...`.
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
from reasonflux_prm.prm.lm_head import candidate_rows, single_token
from reasonflux_prm.prm.tokenizer import TextTokenizer
from reasonflux_prm.records import Part

TAG, GOOD, BAD = "ки", "+", "-"
PUBLISHED_VOCABULARY = 32_000
PUBLISHED_IDS = (12902, 648, 387)
"""Ids of tag, good and bad in the published vocabulary."""

_NUMBERED = re.compile(r"Step \d+ ?:")


class MathShepherdPRM(PRM):
    """Math-Shepherd; see the module's text for the contract."""

    def __init__(self, spec: PRMSpec, decoder: Decoder, tokenizer: TextTokenizer, tag: int, weight: Tensor) -> None:
        super().__init__(spec, decoder, tokenizer)
        self.tag = tag
        self.weight = weight
        """Rows of '+' and '-' of the output matrix, (2, d)."""

    @classmethod
    def load(cls, checkpoint: Checkpoint) -> MathShepherdPRM:
        """Build the PRM from a checkpoint folder.

        Raises:
            CheckpointError: Tag or candidates are not single tokens or not the published ones, or the output matrix is
                not right.
        """
        tokenizer = checkpoint.tokenizer()
        tag, good, bad = (single_token(tokenizer, text) for text in (TAG, GOOD, BAD))
        decoder = checkpoint.decoder()
        if decoder.config.vocabulary == PUBLISHED_VOCABULARY and (tag, good, bad) != PUBLISHED_IDS:
            raise CheckpointError(
                f"{checkpoint.where}: {TAG!r}, {GOOD!r} and {BAD!r} have the ids {tag}, {good} and {bad}, "
                f"Math-Shepherd was trained with {', '.join(map(str, PUBLISHED_IDS))}; "
                "fetch the checkpoint's own tokenizer"
            )
        spec = PRMSpec(
            name=checkpoint.name,
            family="math-shepherd",
            revision=checkpoint.revision,
            score_range=(0.0, 1.0),
            meaning="probability that the right answer can still be reached after the step",
            aggregation="min",
            context_length=decoder.config.context,
        )
        return cls(spec, decoder, tokenizer, tag, candidate_rows(checkpoint, decoder, (good, bad)))

    def head(self, problem: str) -> tuple[int, ...]:
        """Return the beginning-of-text token and the problem."""
        bos = () if self.tokenizer.bos is None else (self.tokenizer.bos,)
        return (*bos, *self.tokenizer.start(problem.strip()))

    def step_piece(self, text: str, index: int, part: Part, previous: Part | None) -> Piece:
        """Return the numbered step and the tag, behind a space (after the problem) or a line break (after a step)."""
        text = text.strip()
        if not _NUMBERED.match(text):
            text = f"Step {index + 1}: {text}"
        joint = " " if previous is None else "\n"
        return Piece((*self.tokenizer.continuation(joint + text), self.tag), index)

    def read_out(self, hidden: Tensor) -> Tensor:
        """Return P(+) among '+' and '-'."""
        return torch.softmax(F.linear(hidden, self.weight).float(), dim=-1)[:, 0]
