r"""RLHFlow's PRMs: a chat in which each user turn is a step and each assistant turn is '+' or '-'.

Checkpoints: `RLHFlow/Llama3.1-8B-PRM-Mistral-Data` and `RLHFlow/Llama3.1-8B-PRM-Deepseek-Data`, both
`LlamaForCausalLM`. They differ in training data only; the authors split answers at "ки\n" for the one and at "\n\n"
for the other, which here is the step rule's business.

Input: the Llama 3.1 chat template. First user turn: problem, a space, the first step; every further user turn: one
step; every assistant turn: "+".
Reward of a step: softmax over the logits of '+' and '-' at the token before its "+" ("\n\n", the end of the assistant
header), the probability of '+'. Range 0 to 1.
Meaning: that the step is right (hard estimation as in Math-Shepherd, on the authors' samples).
Default aggregation: the mean, as in the authors' evaluation.
Trajectory reward: thinking and response read again as one step.
Context: the base model's 131,072 tokens; trained on at most 8,192 (`math-rm/llama-3.1-prm.yaml`).

Matched source: `math-rm/prm_evaluate.py` of RLHFlow/RLHF-Reward-Modeling at 5b2a281, which runs the model anew for
every step, over a chat that ends with it. Earlier assistant turns are "+" there too and attention is causal, so one
pass over the whole chat gives the same numbers. Departure: blank space around the problem is dropped.

The system turn. The authors give no system message, and `apply_chat_template` then writes one all the same: the Llama
3.1 template opens with "Cutting Knowledge Date: December 2023" and "Today Date: 26 Jul 2024", a date that is fixed in
the template. We write those very lines. If the checkpoint's own template has another fixed date we take that; if it
writes no such lines, neither do we; a clock is never read. (The models were trained without these lines, by axolotl's
`llama3` conversation; evaluation, which we match, has them.)

A window repeats the whole first turn, problem and first step, since the chat would be malformed without its end.
"""

from __future__ import annotations

import json
import re

import torch
import torch.nn.functional as F
from torch import Tensor

from reasonflux_prm.prm.base import PRM, PRMSpec
from reasonflux_prm.prm.checkpoint import Checkpoint
from reasonflux_prm.prm.decoder import Decoder
from reasonflux_prm.prm.encoding import Piece, TokenSequence
from reasonflux_prm.prm.lm_head import candidate_rows, single_token
from reasonflux_prm.prm.tokenizer import TextTokenizer
from reasonflux_prm.records import Part, SegmentedTrace

GOOD, BAD = "+", "-"
_CONTROL = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
_TURN = "<|start_header_id|>{role}<|end_header_id|>\n\n"
_DATES = "Cutting Knowledge Date: December 2023\nToday Date: {today}\n\n"
_TODAY = "26 Jul 2024"


class RLHFlowPRM(PRM):
    """An RLHFlow PRM; see the module's text for the contract."""

    def __init__(
        self, spec: PRMSpec, decoder: Decoder, tokenizer: TextTokenizer, good: int, weight: Tensor, system: str
    ) -> None:
        super().__init__(spec, decoder, tokenizer)
        for token in _CONTROL:
            tokenizer.control(token)
        user, assistant = _TURN.format(role="user"), _TURN.format(role="assistant")
        self._open = tokenizer.template("<|begin_of_text|>" + system + user)
        self._next = tokenizer.template(user)
        self._verdict = (*tokenizer.template("<|eot_id|>" + assistant), good, *tokenizer.template("<|eot_id|>"))
        self.weight = weight
        """Rows of '+' and '-' of the output matrix, (2, d)."""

    @classmethod
    def load(cls, checkpoint: Checkpoint) -> RLHFlowPRM:
        """Build the PRM from a checkpoint folder.

        Raises:
            CheckpointError: The tokenizer lacks '+', '-' or Llama 3's control tokens, or the output matrix is wrong.
        """
        tokenizer = checkpoint.tokenizer()
        good, bad = single_token(tokenizer, GOOD), single_token(tokenizer, BAD)
        decoder = checkpoint.decoder()
        spec = PRMSpec(
            name=checkpoint.name,
            family="rlhflow",
            revision=checkpoint.revision,
            score_range=(0.0, 1.0),
            meaning="probability that the step is right",
            aggregation="mean",
            context_length=decoder.config.context,
        )
        weight = candidate_rows(checkpoint, decoder, (good, bad))
        return cls(spec, decoder, tokenizer, good, weight, system_turn(checkpoint))

    def head(self, problem: str) -> tuple[int, ...]:
        """Return system turn, header of the first user turn, and problem."""
        return (*self._open, *self.tokenizer.continuation(problem.strip()))

    def step_piece(self, text: str, index: int, part: Part, previous: Part | None) -> Piece:
        """Return the step, which ends the first user turn or is one of its own, and the assistant's "+"."""
        text = text.strip()
        opening = self._next if previous is not None else []
        joint = " " if previous is None and text else ""
        # The last three tokens are "\n\n", "+", "<|eot_id|>"; the first of them predicts the second.
        return Piece((*opening, *self.tokenizer.continuation(joint + text), *self._verdict), index, -3)

    def _step_sequence(self, segmented: SegmentedTrace) -> TokenSequence:
        sequence = super()._step_sequence(segmented)
        if len(sequence.pieces) < 2:
            return sequence
        return TokenSequence(sequence.head, sequence.pieces[:1], sequence.pieces[1:])

    def read_out(self, hidden: Tensor) -> Tensor:
        """Return P(+) among '+' and '-'."""
        return torch.softmax(F.linear(hidden, self.weight).float(), dim=-1)[:, 0]


def system_turn(checkpoint: Checkpoint) -> str:
    """Return the system turn that the checkpoint's chat template writes when there is no system message."""
    today = _TODAY
    if template := _chat_template(checkpoint):
        if "Cutting Knowledge Date" not in template:
            return ""
        if fixed := re.search(r"""date_string\s*=\s*["']([^"']+)["']""", template):
            today = fixed.group(1)
    return _TURN.format(role="system") + _DATES.format(today=today) + "<|eot_id|>"


def _chat_template(checkpoint: Checkpoint) -> str:
    """Return the checkpoint's default chat template from any place transformers has kept it; empty if none is there."""
    file = checkpoint.folder / "chat_template.jinja"
    if file.exists():
        return file.read_text("utf-8")
    settings = checkpoint.folder / "tokenizer_config.json"
    template = json.loads(settings.read_text("utf-8")).get("chat_template") if settings.exists() else None
    if isinstance(template, list):
        template = next((entry["template"] for entry in template if entry.get("name") == "default"), None)
    return template or ""
