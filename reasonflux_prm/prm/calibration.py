"""Maps from raw rewards to calibrated ones, as `prm.calibration` in a native checkpoint's `config.json` holds them.

A calibrated reward of 0.8 is meant to be right 8 times in 10. Each map rises strictly, so calibrated rewards order
steps exactly as raw ones do, and only equal raw rewards have equal calibrated ones. What no longer follows from the
raw order is the order of aggregates: a mean of calibrated rewards is not the map of a mean.

Step rewards and the trajectory reward have a map each. They are fitted by `evaluation.calibration`, and applied by
`families.native` after the read-out: what vLLM or transformers compute from the same folder is uncalibrated.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from reasonflux_prm.errors import CheckpointError, UsageError

CERTAIN: Final = 2.0**-25
"""Half the last bit of a float32 below 1: a raw reward that was rounded to 1 was at most so far from it."""
TIE_SLOPE: Final = 1e-6
"""How much every map rises over the whole range, whatever else it does: enough to keep the order of raw rewards where
the data say nothing of it or a sigmoid is at its end, too little to claim a difference."""
_HALVINGS: Final = 60


def logit(reward: float) -> float:
    """Return the logarithm of the odds of a raw reward, finite also for 0 and 1; see `CERTAIN`."""
    kept = min(max(reward, CERTAIN), 1 - CERTAIN)
    return math.log(kept / (1 - kept))


@dataclass(frozen=True, slots=True)
class Temperature:
    """`sigmoid(logit(reward) / temperature + bias)`, all but `TIE_SLOPE` of it, and that much of the raw reward.

    Temperature scaling (arXiv:1706.04599, section 4.2) with a bias, for rewards too high or too low throughout.

    Raises:
        UsageError: The temperature is not above 0, or a number is not finite.
    """

    temperature: float
    bias: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature > 0 and math.isfinite(self.bias)):
            raise UsageError(
                f"expected a temperature above 0 and a finite bias, got {self.temperature:g} and {self.bias:g}"
            )

    def __call__(self, reward: float) -> float:
        """Return the calibrated reward of a raw one in [0, 1]."""
        scaled = _sigmoid(logit(reward) / self.temperature + self.bias)
        return (1 - TIE_SLOPE) * scaled + TIE_SLOPE * reward

    def raw(self, calibrated: float) -> float:
        """Return the raw reward that is mapped to a calibrated one."""
        low, high = 0.0, 1.0
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if self(middle) < calibrated else (low, middle)
        return high

    def to_json(self) -> dict[str, Any]:
        """Return the map as `from_json` reads it."""
        return {"kind": "temperature", "temperature": self.temperature, "bias": self.bias}


@dataclass(frozen=True, slots=True)
class Isotonic:
    """Straight lines between knots: isotonic regression with a slope left in its flats.

    Raises:
        UsageError: The knots do not run from raw reward 0 to 1, or do not rise strictly in both numbers within [0, 1].
    """

    knots: tuple[tuple[float, float], ...]
    """(raw reward, calibrated reward), rising in both; the first has raw reward 0, the last 1."""

    def __post_init__(self) -> None:
        inside = all(0 <= value <= 1 for knot in self.knots for value in knot)
        rising = all(a[0] < b[0] and a[1] < b[1] for a, b in pairwise(self.knots))
        if len(self.knots) < 2 or (self.knots[0][0], self.knots[-1][0]) != (0, 1) or not (inside and rising):
            raise UsageError(
                "expected at least two knots in [0, 1], rising strictly in both numbers, the first at raw reward 0 and "
                f"the last at 1, got {len(self.knots)} from {self.knots[:1]} to {self.knots[-1:]}"
            )

    def __call__(self, reward: float) -> float:
        """Return the calibrated reward of a raw one in [0, 1]."""
        return _interpolate(reward, self.knots)

    def raw(self, calibrated: float) -> float:
        """Return the raw reward that is mapped to a calibrated one."""
        return _interpolate(calibrated, [(y, x) for x, y in self.knots])

    def to_json(self) -> dict[str, Any]:
        """Return the map as `from_json` reads it."""
        return {"kind": "isotonic", "knots": [list(knot) for knot in self.knots]}


Map = Temperature | Isotonic


@dataclass(frozen=True, slots=True)
class Calibration:
    """The maps of one PRM; None leaves that kind of reward as it is."""

    steps: Map | None = None
    trajectory: Map | None = None

    def step(self, reward: float) -> float:
        """Return the calibrated reward of a step."""
        return reward if self.steps is None else self.steps(reward)

    def whole(self, reward: float) -> float:
        """Return the calibrated trajectory reward."""
        return reward if self.trajectory is None else self.trajectory(reward)

    def to_json(self) -> dict[str, Any]:
        """Return what `config.json` holds under `prm.calibration`, and the adapter under `calibration`."""
        maps = {"steps": self.steps, "trajectory": self.trajectory}
        return {name: own.to_json() for name, own in maps.items() if own is not None}

    @classmethod
    def from_json(cls, data: Any, where: str) -> Calibration:
        """Read the maps of a checkpoint.

        Raises:
            CheckpointError: There is an unknown map, or one that is none.
        """
        try:
            return cls(**{name: _map(own) for name, own in dict(data).items()})
        except (TypeError, ValueError, KeyError) as error:
            raise CheckpointError(
                f"{where}: config.json's `prm.calibration` is no calibration that is known here ({error!r}); write it "
                "anew with `reasonflux-prm calibrate`, or take it out to get uncalibrated rewards"
            ) from error


def _map(data: Any) -> Map:
    match data["kind"]:
        case "temperature":
            return Temperature(**{name: float(own) for name, own in data.items() if name != "kind"})
        case "isotonic":
            return Isotonic(tuple((float(x), float(y)) for x, y in data["knots"]))
        case other:
            raise UsageError(f"kind {other!r} is neither temperature nor isotonic")


def _sigmoid(value: float) -> float:
    # Either way the exponential is of a number that is not positive, so that it cannot overflow.
    if value >= 0:
        return 1 / (1 + math.exp(-value))
    odds = math.exp(value)
    return odds / (1 + odds)


def _interpolate(at: float, knots: Sequence[tuple[float, float]]) -> float:
    if math.isnan(at):
        return at
    index = min(max(bisect_right(knots, at, key=lambda knot: knot[0]), 1), len(knots) - 1)
    (x0, y0), (x1, y1) = knots[index - 1], knots[index]
    share = min(max((at - x0) / (x1 - x0), 0.0), 1.0)
    return y0 + (y1 - y0) * share
