"""What a step benchmark measured: numbers with intervals, as JSON values and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from reasonflux_prm.evaluation.intervals import DRAWS, Interval, bootstrap, paired_difference
from reasonflux_prm.evaluation.metrics import Statistic
from reasonflux_prm.evaluation.report import interval_text
from reasonflux_prm.evaluation.steps.judged import PRM

SCHEMA: Final = 1
ALL: Final = "all"


@dataclass(frozen=True, slots=True)
class Measure:
    """One number."""

    metric: str
    scope: str
    """Subset, category or group; `ALL` for the whole benchmark."""
    way: str
    """What the rewards are: the PRM, or a trivial baseline."""
    interval: Interval
    prm_minus: Interval | None = None
    """How much higher the PRM is than this way, on the same problems in each resample; None for the PRM itself."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How numbers are made."""

    threshold: float
    """A step reward below it is taken for wrong, where no threshold is chosen."""
    resamples: int = DRAWS
    seed: int = 0


@dataclass(slots=True)
class StepReport:
    """A benchmark's numbers, in the order in which they are shown."""

    title: str
    settings: Settings
    measures: list[Measure] = field(default_factory=list)
    thresholds: dict[str, float] = field(default_factory=dict)
    """Thresholds that were chosen, by way."""
    notes: list[str] = field(default_factory=list)

    def add(self, metric: str, scope: str, statistics: Mapping[str, Statistic | None], clusters: Sequence[str]) -> None:
        """Measure one thing in several ways on the same items.

        Args:
            metric: What it is.
            scope: Of what part of the benchmark.
            statistics: By way; the PRM's first. None leaves a way out.
            clusters: The problem of each item.
        """
        if not clusters:
            return
        draws = {"draws": self.settings.resamples, "seed": self.settings.seed}
        own = statistics.get(PRM)
        for way, statistic in statistics.items():
            if statistic is None:
                continue
            minus = None
            if way != PRM and own is not None:
                minus = paired_difference(own, statistic, clusters, **draws)
            self.measures.append(Measure(metric, scope, way, bootstrap(statistic, clusters, **draws), minus))

    def find(self, metric: str, scope: str = ALL, way: str = PRM) -> Measure | None:
        """Return one measure, None if there is none."""
        return next((m for m in self.measures if (m.metric, m.scope, m.way) == (metric, scope, way)), None)

    def row(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {
            "schema": SCHEMA,
            "benchmark": self.title,
            "settings": asdict(self.settings),
            "thresholds": self.thresholds,
            "measures": [asdict(measure) for measure in self.measures],
            "notes": self.notes,
        }


def markdown(report: StepReport) -> str:
    """Return a report as Markdown that ends in a newline: one table a metric, a row a scope, a column a way."""
    blocks = [
        f"# {report.title}",
        f"In brackets 95% bootstrap intervals, {report.settings.resamples:,} resamples by problem.",
    ]
    blocks += [_table(report, metric) for metric in dict.fromkeys(m.metric for m in report.measures)]
    if report.notes:
        blocks.append("\n".join(f"- {note}" for note in report.notes))
    return "\n\n".join(blocks) + "\n"


def _table(report: StepReport, metric: str) -> str:
    own = [m for m in report.measures if m.metric == metric]
    ways, scopes = (list(dict.fromkeys(names)) for names in ([m.way for m in own], [m.scope for m in own]))
    found = {(m.scope, m.way): m for m in own}
    minus = [way for way in ways if any(m.way == way and m.prm_minus for m in own)]
    head = [metric, "items", "problems", *ways, *(f"PRM minus {way}" for way in minus)]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for scope in scopes:
        first = next(found[scope, way] for way in ways if (scope, way) in found)
        cells = [scope, f"{first.interval.n:,}", f"{first.interval.clusters:,}"]
        cells += [_cell(found[scope, way].interval if (scope, way) in found else None) for way in ways]
        cells += [_cell(found[scope, way].prm_minus if (scope, way) in found else None, "+") for way in minus]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(interval: Interval | None, sign: Any = "") -> str:
    return "" if interval is None or interval.value is None else interval_text(interval, sign)
