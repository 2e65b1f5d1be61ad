"""The reliability diagram: the share that is good against the mean reward, bin by bin, before and after calibration.

A PRM that is calibrated lies on the diagonal; below it, its rewards are too high. One panel for each kind of reward.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from reasonflux_prm.errors import UsageError
from reasonflux_prm.evaluation.calibration_report import RAW, Measured, TargetReport
from reasonflux_prm.evaluation.report import interval_text
from reasonflux_prm.evaluation.svg import Colour, Drawing, Theme
from reasonflux_prm.traces.write import atomic_path

_SIDE, _LEFT, _TOP, _GAP, _BOTTOM = 320, 62, 100, 90, 104
_PAPER = ("#ffffff", "#1a1c1d")
_INK = ("#1c1b19", "#ebe8e2")
_SOFT = ("#615d56", "#a6a29a")
_GRID = ("#ece8df", "#2b2d2f")
_QUIET = ("#8d877c", "#837f78")
_RAW: Colour = ("#b8501c", "#f09a62")
_CALIBRATED: Colour = ("#14628c", "#6fb9e0")
_TITLES: Final = {"steps": "step rewards", "trajectory": "trajectory rewards"}


def svg(reports: Sequence[TargetReport], *, theme: Theme = "auto") -> str:
    """Return the figure as SVG.

    Args:
        reports: One panel each.
        theme: `auto` follows the reader's setting.

    Raises:
        UsageError: There is nothing to draw, or no such theme.
    """
    if not reports:
        raise UsageError("expected at least one kind of reward to draw, got none")
    width = _LEFT + len(reports) * _SIDE + (len(reports) - 1) * _GAP + 40
    said = "; ".join(
        f"{_TITLES[own.target]}, {m.name}: error {m.error.value:.3f}" for own in reports for m in own.measured
    )
    drawing = Drawing(width, _TOP + _SIDE + _BOTTOM, "Reliability", said, theme, prefix="reasonflux-reliability")
    drawing.ground(_PAPER)
    drawing.text(24, 36, "Reliability", _INK, size=17, bold=True)
    drawing.text(24, 58, "share that is good against mean reward, bins of equal mass; bars: 95% by problem", _SOFT)
    for number, own in enumerate(reports):
        _panel(drawing, own, _LEFT + number * (_SIDE + _GAP))
    return str(drawing)


def write_figure(reports: Sequence[TargetReport], path: str | Path, *, theme: Theme = "auto") -> None:
    """Write the figure to a file.

    Raises:
        UsageError: See `svg`.
        OutputError: The file could not be written.
    """
    picture = svg(reports, theme=theme)
    with atomic_path(path) as part:
        part.write_text(picture, "utf-8")


def _panel(drawing: Drawing, report: TargetReport, left: float) -> None:
    def at(reward: float, share: float) -> tuple[float, float]:
        return left + _SIDE * reward, _TOP + _SIDE * (1 - share)

    drawing.text(left, _TOP - 12, _TITLES[report.target], _INK, size=13, bold=True)
    for mark in (0.0, 0.25, 0.5, 0.75, 1.0):
        drawing.line([at(0, mark), at(1, mark)], _GRID)
        drawing.line([at(mark, 0), at(mark, 1)], _GRID)
        x, y = at(0, mark)
        drawing.text(x - 8, y + 4, f"{mark:g}", _SOFT, size=11, anchor="end")
        x, y = at(mark, 0)
        drawing.text(x, y + 18, f"{mark:g}", _SOFT, size=11, anchor="middle")
    drawing.line([at(0, 0), at(1, 1)], _QUIET, 1.25, "4 3")
    for line, own in enumerate(report.measured[:2]):
        colour = _RAW if own.name == RAW else _CALIBRATED
        _curve(drawing, own, colour, at)
        y = _TOP + _SIDE + 46 + 22 * line
        drawing.dot(left + 4, y - 4, 4, colour, _PAPER)
        drawing.text(
            left + 16, y, own.name, colour, bold=True, tail=f"error {interval_text(own.error)}", tail_colour=_SOFT
        )


def _curve(drawing: Drawing, own: Measured, colour: Colour, at: Callable[[float, float], tuple[float, float]]) -> None:
    points = []
    for bin in own.bins:
        points.append(at(bin.reward, bin.share.value or 0.0))
        if bin.share.low is not None and bin.share.high is not None:
            drawing.line([at(bin.reward, bin.share.low), at(bin.reward, bin.share.high)], colour, 1)
    drawing.line(points, colour, 2)
    for x, y in points:
        drawing.dot(x, y, 4, colour, _PAPER)
