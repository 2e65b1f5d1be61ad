"""What calibration did, in numbers: errors before and after with intervals by problem, and reliability bin by bin.

Rewards after calibration are those of maps that have not seen the problem they are judged on (`cross_fitted`), or of
the final map on another file; never of the final map on the data it was fitted to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from reasonflux_prm.evaluation.calibration import (
    BINS,
    Items,
    Kind,
    Target,
    bins_of,
    brier,
    calibration_error,
    cross_fitted,
    log_loss,
)
from reasonflux_prm.evaluation.intervals import DRAWS, Interval, bootstrap
from reasonflux_prm.evaluation.metrics import weighted_auc, weighted_mean
from reasonflux_prm.evaluation.report import interval_text
from reasonflux_prm.prm.calibration import Map

RAW: Final = "uncalibrated"
UNSEEN: Final = "calibrated without the problem"
"""By a fit on the other folds."""
OTHER: Final = "another file"
FEW: Final = 200
"""Fewer items than this make a fit doubtful, and are said to be few."""


@dataclass(frozen=True, slots=True)
class Bin:
    """Items whose rewards are close to one another."""

    low: float
    """Least reward in it."""
    high: float
    """Greatest reward in it."""
    reward: float
    """Mean reward."""
    share: Interval
    """Mean label: the share that is good."""


@dataclass(frozen=True, slots=True)
class Measured:
    """How well one set of rewards is calibrated."""

    name: str
    error: Interval
    """Expected calibration error, bins of equal width."""
    error_by_mass: Interval
    """The same, bins of equal mass."""
    brier: Interval
    log_loss: Interval
    """In nats."""
    auc: Interval | None
    """None where labels are soft."""
    bins: tuple[Bin, ...]
    """Of equal mass: the reliability diagram."""


@dataclass(frozen=True, slots=True)
class TargetReport:
    """One kind of reward."""

    target: Target
    map: Map
    measured: tuple[Measured, ...]
    notes: tuple[str, ...]


def measure(name: str, items: Items, *, bins: int = BINS, draws: int = DRAWS, seed: int = 0) -> Measured:
    """Measure one set of rewards; intervals resample problems.

    Raises:
        UsageError: There is no item, or not even one bin.
    """

    def interval(statistic: Any) -> Interval:
        return bootstrap(statistic, items.clusters, draws=draws, seed=seed)

    hard = set(items.labels) <= {0.0, 1.0}
    return Measured(
        name=name,
        error=interval(calibration_error(items, bins)),
        error_by_mass=interval(calibration_error(items, bins, "mass")),
        brier=interval(brier(items)),
        log_loss=interval(log_loss(items)),
        auc=interval(weighted_auc(items.rewards, items.labels)) if hard else None,
        bins=_reliability(items, bins, draws, seed),
    )


def target_report(
    target: Target,
    kind: Kind,
    fitted: Map,
    items: Items,
    other: Items | None = None,
    *,
    bins: int = BINS,
    draws: int = DRAWS,
    seed: int = 0,
) -> TargetReport:
    """Report on a map.

    Args:
        target: What the rewards are of.
        kind: Of the map.
        fitted: The final map, fitted on all of `items`.
        items: The dev split, uncalibrated.
        other: Items of another file, uncalibrated, that the map was not fitted to.
        bins: Number of bins.
        draws: Resamples of the bootstrap.
        seed: Of its random numbers.
    """
    held = cross_fitted(items, kind)
    sets = [
        (RAW, items),
        (UNSEEN, held),
        (f"{OTHER}, {RAW}", other),
        (f"{OTHER}, calibrated", other and other.mapped(fitted)),
    ]
    measured = [measure(name, own, bins=bins, draws=draws, seed=seed) for name, own in sets if own]
    notes = []
    if len(items) < FEW:
        notes.append(f"{len(items):,} items are few to fit a map on; it may be far off elsewhere.")
    if held is None:
        notes.append("Too few problems, or too few of both labels, to fit without the problem that is judged.")
    return TargetReport(target, fitted, tuple(measured), tuple(notes))


def _reliability(items: Items, bins: int, draws: int, seed: int) -> tuple[Bin, ...]:
    which = bins_of(items.rewards, bins, "mass")
    rewards, labels = np.asarray(items.rewards), np.asarray(items.labels)
    found = []
    for number in np.unique(which):
        inside = which == number
        own = rewards[inside]
        clusters = [cluster for cluster, kept in zip(items.clusters, inside, strict=True) if kept]
        share = bootstrap(weighted_mean(labels[inside]), clusters, draws=draws, seed=seed)
        found.append(Bin(float(own.min()), float(own.max()), float(own.mean()), share))
    return tuple(found)


# --- as JSON and Markdown --------------------------------------------------------------------------------------------


def report_row(reports: Sequence[TargetReport]) -> list[dict[str, Any]]:
    """Return reports as JSON values."""
    return [
        {
            "target": own.target,
            "map": own.map.to_json(),
            "measured": [asdict(measured) for measured in own.measured],
            "notes": list(own.notes),
        }
        for own in reports
    ]


def markdown(reports: Sequence[TargetReport]) -> str:
    """Return reports as Markdown that ends in a newline."""
    blocks = []
    for own in reports:
        blocks += [f"## {_TITLES[own.target]}", _table(own), _bins(own)]
        blocks += ["\n".join(f"- {note}" for note in own.notes)] if own.notes else []
    return "\n\n".join(blocks) + "\n"


_TITLES: Final = {"steps": "Step rewards", "trajectory": "Trajectory rewards"}


def _table(report: TargetReport) -> str:
    lines = [
        "| rewards | items | problems | calibration error, equal width | equal mass | Brier | log loss | AUC |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for own in report.measured:
        numbers = (own.error, own.error_by_mass, own.brier, own.log_loss, own.auc)
        cells = [own.name, f"{own.error.n:,}", f"{own.error.clusters:,}"]
        cells += ["" if number is None or number.value is None else interval_text(number) for number in numbers]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _bins(report: TargetReport) -> str:
    own = report.measured[min(1, len(report.measured) - 1)]
    lines = [f"| {own.name}: rewards | items | mean | share that is good |", "|---|---|---|---|"]
    lines += [
        f"| {bin.low:.3f} to {bin.high:.3f} | {bin.share.n:,} | {bin.reward:.3f} | {interval_text(bin.share)} |"
        for bin in own.bins
    ]
    return "\n".join(lines)
