"""Calibration of a PRM: fitting its maps on labelled rewards, and how far a reward is from the share that is right.

An item is one reward in [0, 1] with what is known of it: a label in [0, 1], and the problem it belongs to. Fits are by
maximum likelihood: Newton's method for a temperature and a bias, pool-adjacent-violators for isotonic regression, both
exact. What a fit is worth is told from rewards that it has not seen: `cross_fitted` leaves out whole problems.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from reasonflux_prm.errors import InputError, UsageError
from reasonflux_prm.evaluation.metrics import Floats, Statistic, weighted_mean
from reasonflux_prm.prm.calibration import TIE_SLOPE, Isotonic, Map, Temperature, logit
from reasonflux_prm.records import ScoredTrace, Status

Kind = Literal["temperature", "isotonic"]
Target = Literal["steps", "trajectory"]
Mass = Literal["width", "mass"]
"""How bins are laid: equally wide, or with equally many items."""

BINS: Final = 10
FOLDS: Final = 5
_PSEUDO: Final = 0.5
"""Weight of one good item at the lowest reward and one wrong item at the highest, so that no reward says 0 or 1 for
certain: isotonic regression's form of Laplace's rule."""
_SAME: Final = 1e-12
"""Means that differ by less are equal: the difference is one of rounding."""
_STEPS_OF_NEWTON: Final = 200


@dataclass(frozen=True, slots=True)
class Items:
    """N rewards of one PRM, with their labels."""

    rewards: tuple[float, ...]
    """In [0, 1]."""
    labels: tuple[float, ...]
    """In [0, 1], 1 for good."""
    clusters: tuple[str, ...]
    """The problem of each."""

    def __len__(self) -> int:
        return len(self.rewards)

    def mapped(self, function: Callable[[float], float]) -> Items:
        """Return the items with their rewards mapped."""
        return Items(tuple(map(function, self.rewards)), self.labels, self.clusters)


def items_of(traces: Iterable[ScoredTrace], target: Target) -> Items:
    """Return the labelled rewards of scored traces: step rewards with step labels, or trajectory rewards with verdicts.

    A step is found by where it begins, as in `metrics.labelled_steps`: score with the step rule `given`.

    Raises:
        InputError: A reward lies outside [0, 1], so it is no probability that could be calibrated.
    """
    rows: list[tuple[float, float, str]] = []
    for scored in traces:
        if scored.status is not Status.SCORED:
            continue
        cluster = scored.trace.group or scored.trace.problem.strip()
        for reward, label in _labelled(scored) if target == "steps" else _judged(scored):
            if not 0 <= reward <= 1:
                raise InputError(
                    f"expected rewards in [0, 1], got {reward:g} in {scored.trace.id!r}; rewards of the family "
                    f"{scored.prm.family} are no probabilities, and cannot be calibrated"
                )
            rows.append((reward, label, cluster))
    rewards, labels, clusters = zip(*rows, strict=True) if rows else ((), (), ())
    return Items(rewards, labels, clusters)


def _labelled(scored: ScoredTrace) -> list[tuple[float, float]]:
    trace = scored.trace
    if not trace.step_labels:
        return []
    rewards = {(s.part, s.start): r for s, r in zip(scored.steps, scored.step_rewards, strict=True)}
    pairs = ((rewards.get((s.part, s.start)), y) for s, y in zip(trace.steps, trace.step_labels, strict=True))
    return [(reward, label) for reward, label in pairs if reward is not None and label is not None]


def _judged(scored: ScoredTrace) -> list[tuple[float, float]]:
    reward, correct = scored.trajectory_reward, scored.trace.correct
    return [] if reward is None or correct is None else [(reward, float(correct))]


# --- fits ----------------------------------------------------------------------------------------------------------


def fit(items: Items, kind: Kind) -> Map:
    """Return the map that makes labels likeliest.

    Raises:
        InputError: All labels are equal, or rewards do not rise with labels, which no rising map can mend.
    """
    if not items.labels or min(items.labels) == max(items.labels):
        found = f"all of {len(items):,} equal to {items.labels[0]:g}" if items.labels else "none"
        raise InputError(f"expected labels of good and of wrong items to calibrate on, got {found}")
    return fit_temperature(items) if kind == "temperature" else fit_isotonic(items)


def fit_temperature(items: Items) -> Temperature:
    """Return temperature and bias of the greatest likelihood.

    Labels are moved inwards as Platt did it (Probabilities for SV machines, 1999, section 2.2): a good one is
    (N+ + 1) / (N+ + 2), a wrong one 1 / (N- + 2). So there is always a greatest likelihood, also where rewards separate
    good from wrong without exception.

    Raises:
        InputError: The best temperature is not above 0: higher rewards go with wrong items.
    """
    x = np.array([logit(reward) for reward in items.rewards])
    y = np.array(items.labels)
    good = y.sum()
    high, low = (good + 1) / (good + 2), 1 / (len(y) - good + 2)
    # Standardised, so that the first step of Newton's method is a good one whatever the rewards are.
    middle, spread = float(x.mean()), float(x.std())
    if spread == 0:
        raise InputError(_no_order(len(items)))
    slope, height = _logistic((x - middle) / spread, low + (high - low) * y)
    scale = slope / spread
    if scale <= 0:
        raise InputError(_no_order(len(items)))
    return Temperature(1 / scale, height - scale * middle)


def _logistic(x: Floats, y: Floats) -> tuple[float, float]:
    """Return slope and intercept of the logistic regression of y in (0, 1) on x, by Newton's method with halving."""
    design = np.stack([x, np.ones_like(x)], axis=1)

    def loss(at: Floats) -> float:
        z = design @ at
        return float((np.logaddexp(0, z) - y * z).sum())

    theta = np.zeros(2)
    for _ in range(_STEPS_OF_NEWTON):
        p = 1 / (1 + np.exp(-(design @ theta)))
        gradient = design.T @ (p - y)
        curvature = design.T @ (design * (p * (1 - p))[:, None]) + 1e-12 * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        size = 1.0
        while loss(theta - size * step) > loss(theta) and size > 1e-10:
            size /= 2
        theta = theta - size * step
        if np.abs(size * step).max() < 1e-12:
            break
    return float(theta[0]), float(theta[1])


def fit_isotonic(items: Items) -> Isotonic:
    """Return the isotonic regression of the labels, as lines between the centres of its blocks.

    Within a block the data say nothing about order. Lines between centres (centred isotonic regression: Oron and
    Flournoy, 2017, doi:10.1080/19466315.2017.1286256) and a slope of `TIE_SLOPE` at both ends keep the raw order, so no
    tie is made that was none.

    Raises:
        InputError: There is one block only: higher rewards do not go with good items.
    """
    blocks = pool(*_with_pseudo(items))
    if len(blocks) == 1:
        raise InputError(_no_order(len(items)))
    knots = [(x, (1 - TIE_SLOPE) * y + TIE_SLOPE * x) for x, y, _ in blocks]
    low, high = (1 - TIE_SLOPE) * blocks[0][1], (1 - TIE_SLOPE) * blocks[-1][1] + TIE_SLOPE
    # A centre at an end of the range, or as good as there, is the end.
    knots[:1] = [(0.0, low), knots[0]] if low < knots[0][1] else [(0.0, knots[0][1])]
    knots[-1:] = [knots[-1], (1.0, high)] if knots[-1][1] < high else [(1.0, knots[-1][1])]
    return Isotonic(tuple(knots))


def pool(x: Floats, y: Floats, weights: Floats) -> list[tuple[float, float, float]]:
    """Return the blocks of the isotonic regression of y on x: (mean of x, mean of y, weight), both means rising.

    Pool-adjacent-violators (Robertson, Wright and Dykstra, Order Restricted Statistical Inference, 1988, section 1.2);
    items with equal x are one from the start.
    """
    blocks: list[tuple[float, float, float]] = []
    values, which = np.unique(x, return_inverse=True)
    mass, total = np.bincount(which, weights), np.bincount(which, weights * y)
    for value, own, labelled in zip(values.tolist(), mass.tolist(), total.tolist(), strict=True):
        block = (value, labelled / own, own)
        while blocks and blocks[-1][1] > block[1] - _SAME:
            before = blocks.pop()
            weight = before[2] + block[2]
            x_mean, y_mean = ((before[i] * before[2] + block[i] * block[2]) / weight for i in (0, 1))
            block = (x_mean, y_mean, weight)
        blocks.append(block)
    return blocks


def _with_pseudo(items: Items) -> tuple[Floats, Floats, Floats]:
    x, y = np.array(items.rewards), np.array(items.labels)
    ends = [x.min(), x.max()]
    weights = np.concatenate([np.ones(len(x)), [_PSEUDO, _PSEUDO]])
    return np.concatenate([x, ends]), np.concatenate([y, [1.0, 0.0]]), weights


def _no_order(n: int) -> str:
    return (
        f"expected higher rewards to go with good items, which they do not on these {n:,}: no calibration can mend "
        "that, so the PRM, or the labels, have to be looked at first"
    )


def cross_fitted(items: Items, kind: Kind, folds: int = FOLDS) -> Items | None:
    """Return the items with each reward mapped by a fit that has not seen its problem; None if that cannot be done.

    Problems are put into folds by a hash of their name. It cannot be done with one problem, or where what is left
    without a fold cannot be fitted.
    """
    names = sorted(set(items.clusters), key=lambda name: (zlib.crc32(name.encode()), name))
    if len(names) < 2:
        return None
    fold_of = {name: number % min(folds, len(names)) for number, name in enumerate(names)}
    mapped = [0.0] * len(items)
    for fold in sorted(set(fold_of.values())):
        inside = [fold_of[cluster] == fold for cluster in items.clusters]
        try:
            own = fit(_where(items, [not held for held in inside]), kind)
        except InputError:
            return None
        for at, held in enumerate(inside):
            if held:
                mapped[at] = own(items.rewards[at])
    return Items(tuple(mapped), items.labels, items.clusters)


def _where(items: Items, kept: Sequence[bool]) -> Items:
    rows = [
        row
        for row, keep in zip(zip(items.rewards, items.labels, items.clusters, strict=True), kept, strict=True)
        if keep
    ]
    rewards, labels, clusters = zip(*rows, strict=True) if rows else ((), (), ())
    return Items(rewards, labels, clusters)


# --- measures ------------------------------------------------------------------------------------------------------


def bins_of(rewards: Sequence[float], bins: int = BINS, mass: Mass = "width") -> NDArray[np.int64]:
    """Return the bin of each reward, (N,), numbered from 0.

    Bins of equal mass are laid by rank; equal rewards are always in one bin, so some may be larger, and some missing.

    Raises:
        UsageError: There is not even one bin.
    """
    if bins < 1:
        raise UsageError(f"expected at least one bin, got {bins}")
    values = np.asarray(rewards, dtype=np.float64)
    if mass == "width":
        return np.minimum((values * bins).astype(np.int64), bins - 1)
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - counts / 2
    found: NDArray[np.int64] = (middle / len(values) * bins).astype(np.int64)[which]
    return found


def calibration_error(items: Items, bins: int = BINS, mass: Mass = "width") -> Statistic:
    """Return the statistic `expected calibration error`: the mean over items of |mean reward - mean label| in a bin.

    Of Guo and others (arXiv:1706.04599, equation 3) with bins of equal width; of equal mass as Nixon and others have it
    (arXiv:1904.01685, section 4). Bins are laid once, on the data as they are. It is never below 0, so chance alone
    makes it positive: the more so, the fewer items a bin holds.
    """
    which = bins_of(items.rewards, bins, mass)
    gaps = np.zeros((len(items), int(which.max()) + 1))
    gaps[np.arange(len(items)), which] = np.asarray(items.rewards) - np.asarray(items.labels)

    def statistic(weights: Floats) -> Floats:
        with np.errstate(invalid="ignore"):
            error: Floats = np.abs(weights @ gaps).sum(axis=1) / weights.sum(axis=1)
        return error

    return statistic


def brier(items: Items) -> Statistic:
    """Return the statistic `mean squared difference of reward and label` (Brier, 1950)."""
    return weighted_mean((np.asarray(items.rewards) - np.asarray(items.labels)) ** 2)


def log_loss(items: Items) -> Statistic:
    """Return the statistic `mean negative log-likelihood of the labels`, in nats; rewards of 0 and 1 as in `logit`."""
    odds = np.array([logit(reward) for reward in items.rewards])
    return weighted_mean(np.logaddexp(0, odds) - np.asarray(items.labels) * odds)
