"""Our own format: a plain `...ForTokenClassification` checkpoint, head `score`, settings under `prm` in its config.

vLLM serves such a folder with no code of ours (pooling of all tokens; a one-label head is followed by a sigmoid),
transformers loads it as `AutoModelForTokenClassification`, and this module adds what neither knows: where steps close,
and the calibration (`prm.calibration`), which is applied to the rewards that were read and never by them.

Input, `causal`: problem, thinking steps, response steps, marker. Input, `response_first`: problem, response steps,
thinking steps, marker, so that a thinking step is scored given the response: R(s_t | x, s_<t, a), arXiv:2506.18896,
section 3. Each step is its text without surrounding blank space, then the separator; the marker comes last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from reasonflux_prm.errors import CheckpointError
from reasonflux_prm.prm.base import PRM, PRMInput, PRMSpec
from reasonflux_prm.prm.calibration import Calibration
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
    marker: str | None = None
    """Control token at the end of the input; the trajectory reward is read there. None: the PRM scores steps only."""
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
    calibration: Calibration | None = None
    """Applied to raw rewards; None leaves them as they are."""

    def to_json(self) -> dict[str, Any]:
        """Return the settings as they are written to `config.json`."""
        settings = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "calibration"}
        return settings if self.calibration is None else {**settings, "calibration": self.calibration.to_json()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any], where: str) -> NativeSettings:
        """Read the settings of a checkpoint.

        Raises:
            CheckpointError: A later format, an unknown setting, layout or calibration, or a missing setting.
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
        calibration = data.get("calibration")
        maps = None if calibration is None else Calibration.from_json(calibration, where)
        try:
            return cls(**{**data, "calibration": maps})
        except TypeError as error:
            raise CheckpointError(f"{where}: config.json's `prm` must name at least `separator` ({error})") from error


class NativeInput(PRMInput):
    """The input of a PRM in our own format."""

    def __init__(self, spec: PRMSpec, tokenizer: TextTokenizer, settings: NativeSettings) -> None:
        PRMInput.__init__(self, spec, tokenizer)
        self.settings = settings
        self.separator = tokenizer.control(settings.separator)
        self.marker = None if settings.marker is None else tokenizer.control(settings.marker)
        self._open = tokenizer.template(settings.before_problem)
        self._close = tokenizer.template(settings.after_problem)
        self._think = tokenizer.template(settings.before_thinking)
        self._unthink = tokenizer.template(settings.after_thinking)

    def head(self, problem: str) -> tuple[int, ...]:
        """Return template and problem."""
        return (*self._open, *self.tokenizer.continuation(problem.strip()), *self._close)

    def step_piece(self, text: str, index: int, part: Part, previous: Part | None) -> Piece:
        """Return the step's text, preceded by the mark of its part where the part begins, and the separator."""
        mark: list[int] = []
        if part != previous:
            mark = self._think if part == "thinking" else self._unthink if previous == "thinking" else []
        return Piece((*mark, *self.tokenizer.continuation(text.strip()), self.separator), index)

    def trajectory_piece(self) -> Piece | None:
        """Return the marker; None if the PRM has none."""
        return None if self.marker is None else Piece((self.marker,), TRAJECTORY)


class NativePRM(NativeInput, PRM):
    """A PRM in our own format.

    Raw rewards are P(good): sigmoid of one label, or the second of two labels' softmax. Step rewards and the trajectory
    reward are their calibrated values, where the checkpoint is calibrated.
    """

    def __init__(
        self,
        spec: PRMSpec,
        decoder: Decoder,
        tokenizer: TextTokenizer,
        settings: NativeSettings,
        weight: Tensor,
        bias: Tensor | None,
    ) -> None:
        super().__init__(spec, tokenizer, settings)
        self.decoder = decoder
        self.weight, self.bias = weight, bias

    @classmethod
    def load(cls, checkpoint: Checkpoint) -> NativePRM:
        """Build the PRM from a checkpoint folder.

        Raises:
            CheckpointError: The head has neither one nor two labels, or the settings or tokens are wrong.
        """
        settings = NativeSettings.from_json(checkpoint.config.get("prm", {}), checkpoint.where)
        weight, bias = checkpoint.linear("score", allowed_rows=(1, 2))
        decoder = checkpoint.decoder()
        spec = native_spec(settings, checkpoint.name, checkpoint.revision, decoder.config.context)
        return cls(spec, decoder, checkpoint.tokenizer(), settings, weight, bias)

    def read_out(self, hidden: Tensor) -> Tensor:
        """Return P(good), uncalibrated."""
        logits = F.linear(hidden, self.weight, self.bias).float()
        return torch.sigmoid(logits[:, 0]) if logits.shape[1] == 1 else torch.softmax(logits, dim=-1)[:, 1]

    def finish(self, rewards: Sequence[float]) -> list[float]:
        """Return the calibrated step rewards."""
        calibration = self.settings.calibration
        return list(rewards) if calibration is None else [calibration.step(reward) for reward in rewards]

    def finish_trajectory(self, rewards: Sequence[float], read: float) -> float:
        """Return the calibrated trajectory reward."""
        calibration = self.settings.calibration
        return read if calibration is None else calibration.whole(read)


def native_spec(settings: NativeSettings, name: str, revision: str, context: int) -> PRMSpec:
    """Return the contract of a PRM with these settings that takes `context` tokens."""
    return PRMSpec(
        name=name,
        family="native",
        revision=revision,
        score_range=(0.0, 1.0),
        meaning=settings.meaning,
        aggregation=settings.aggregation,
        context_length=context,
        layout=settings.layout,
        trajectory="none" if settings.marker is None else "marker",
    )
