"""Our own format: a plain `...ForTokenClassification` checkpoint, head `score`, settings under `prm` in its config.

vLLM serves such a folder with no code of ours (pooling of all tokens; a one-label head is followed by a sigmoid),
transformers loads it as `AutoModelForTokenClassification`, and this module adds what neither knows: where steps close.

Input, `causal`: problem, thinking steps, response steps, marker. Input, `response_first`: problem, response steps,
thinking steps, marker, so that a thinking step is scored given the response: R(s_t | x, s_<t, a), arXiv:2506.18896,
section 3. Each step is its text without surrounding blank space, then the separator; the marker comes last.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from reasonflux_prm.errors import CheckpointError
from reasonflux_prm.prm.base import PRM, PRMSpec
from reasonflux_prm.prm.checkpoint import Checkpoint
from reasonflux_prm.prm.decoder import Decoder
from reasonflux_prm.prm.encoding import TRAJECTORY, Piece
from reasonflux_prm.prm.tokenizer import TextTokenizer
from reasonflux_prm.records import Part

FORMAT = 1


@dataclass(frozen=True, slots=True)
class NativeSettings:
    """What `config.json` holds under `prm`."""

    separator: str
    """Control token that closes a step; its reward is read there."""
    marker: str
    """Control token at the end of the input; the trajectory reward is read there."""
    layout: Literal["causal", "response_first"] = "causal"
    before_problem: str = "<|im_start|>user\n"
    after_problem: str = "<|im_end|>\n<|im_start|>assistant\n"
    before_thinking: str = "<think>\n"
    after_thinking: str = "</think>\n\n"
    """Put in front of the first response step if there was thinking before it."""
    meaning: str = "probability that the step is right"
    aggregation: str = "mean"
    name: str = ""
    format: int = FORMAT

    def to_json(self) -> dict[str, Any]:
        """Return the settings as they are written to `config.json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any], where: str) -> NativeSettings:
        """Read the settings of a checkpoint.

        Raises:
            CheckpointError: A later format, an unknown setting or layout, or a missing one.
        """
        if data.get("format", 0) > FORMAT:
            raise CheckpointError(
                f"{where}: PRM settings have format {data['format']}, this version reads up to {FORMAT}; "
                "upgrade the package"
            )
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(data) - known):
            raise CheckpointError(
                f"{where}: unknown PRM settings {', '.join(unknown)} in config.json; "
                f"known are {', '.join(sorted(known))}"
            )
        if data.get("layout", "causal") not in ("causal", "response_first"):
            raise CheckpointError(f"{where}: PRM layout {data['layout']!r} is neither 'causal' nor 'response_first'")
        try:
            return cls(**data)
        except TypeError as error:
            raise CheckpointError(
                f"{where}: config.json's `prm` must name at least `separator` and `marker` ({error})"
            ) from error


class NativePRM(PRM):
    """A PRM in our own format. Scores are P(good): sigmoid of one label, or the second of two labels' softmax."""

    def __init__(
        self,
        spec: PRMSpec,
        decoder: Decoder,
        tokenizer: TextTokenizer,
        settings: NativeSettings,
        weight: Tensor,
        bias: Tensor | None,
    ) -> None:
        super().__init__(spec, decoder, tokenizer)
        self.settings = settings
        self.weight, self.bias = weight, bias
        self.separator, self.marker = tokenizer.control(settings.separator), tokenizer.control(settings.marker)
        self._open = tokenizer.template(settings.before_problem)
        self._close = tokenizer.template(settings.after_problem)
        self._think = tokenizer.template(settings.before_thinking)
        self._unthink = tokenizer.template(settings.after_thinking)

    @classmethod
    def load(cls, checkpoint: Checkpoint) -> NativePRM:
        """Build the PRM from a checkpoint folder.

        Raises:
            CheckpointError: The head has neither one nor two labels, or the settings or tokens are wrong.
        """
        settings = NativeSettings.from_json(checkpoint.config.get("prm", {}), checkpoint.where)
        weight, bias = checkpoint.linear("score", allowed_rows=(1, 2))
        decoder = checkpoint.decoder()
        spec = PRMSpec(
            name=checkpoint.name,
            family="native",
            revision=checkpoint.revision,
            score_range=(0.0, 1.0),
            meaning=settings.meaning,
            aggregation=settings.aggregation,
            context_length=decoder.config.context,
            layout=settings.layout,
            trajectory="marker",
        )
        return cls(spec, decoder, checkpoint.tokenizer(), settings, weight, bias)

    def head(self, problem: str) -> tuple[int, ...]:
        """Return template and problem."""
        return (*self._open, *self.tokenizer.continuation(problem.strip()), *self._close)

    def step_piece(self, text: str, index: int, part: Part, previous: Part | None) -> Piece:
        """Return the step's text, preceded by the mark of its part where the part begins, and the separator."""
        mark: list[int] = []
        if part != previous:
            mark = self._think if part == "thinking" else self._unthink if previous == "thinking" else []
        return Piece((*mark, *self.tokenizer.continuation(text.strip()), self.separator), index)

    def trajectory_piece(self) -> Piece:
        """Return the marker."""
        return Piece((self.marker,), TRAJECTORY)

    def read_out(self, hidden: Tensor) -> Tensor:
        """Return P(good)."""
        logits = F.linear(hidden, self.weight, self.bias).float()
        return torch.sigmoid(logits[:, 0]) if logits.shape[1] == 1 else torch.softmax(logits, dim=-1)[:, 1]
