"""The curve of what N buys as a picture: accuracy against the number of candidates, as figure 5 of the paper has it.

The SVG is written here, without any library: one line a method, its interval as a band, its name at the line's end. It
has its own ground, and follows the reader's light or dark setting where the reader's program knows `light-dark()`;
elsewhere it is light. A PNG is the same SVG, drawn by CairoSVG (the extra `figures`).
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from reasonflux_prm.errors import MissingExtra, UsageError
from reasonflux_prm.evaluation.curves import Method
from reasonflux_prm.evaluation.report import MethodCurve, SelectionReport
from reasonflux_prm.evaluation.svg import Colour, Drawing, Theme, shortened, text_width
from reasonflux_prm.traces.write import atomic_path

WIDTH: Final = 820
HEIGHT: Final = 480
TITLE: Final = "Accuracy by number of candidates"
_TOP, _BOTTOM, _LEFT = 84, 56, 62
_WIDEST_NAME = 180
_VALUE_ROOM = 76
_LABEL_GAP = 18
_PNG_SCALE: Final = 2

# Light and dark of each colour. Lines differ in lightness too, so that they stay apart without colour.
_PAPER = ("#ffffff", "#1a1c1d")
_INK = ("#1c1b19", "#ebe8e2")
_SOFT = ("#615d56", "#a6a29a")
_GRID = ("#ece8df", "#2b2d2f")
_AXIS = ("#cdc8bc", "#4b4e51")
_QUIET = ("#8d877c", "#837f78")
_PRMS = (
    ("#14628c", "#6fb9e0"),
    ("#b8501c", "#f09a62"),
    ("#2f7d4f", "#79c795"),
    ("#7d4a99", "#c59ce0"),
    ("#a3781a", "#dfbc5e"),
    ("#b03a5b", "#f08fa8"),
)


@dataclass(frozen=True, slots=True)
class Look:
    """How a method is drawn."""

    colour: Colour
    width: float
    dashes: str = ""
    band: bool = False
    """Only what is compared has a band: those of the others would hide it."""


def svg(report: SelectionReport, *, title: str = TITLE, theme: Theme = "auto") -> str:
    """Return the figure as SVG, one line a method of the report.

    Args:
        report: Its sizes are on a logarithmic axis.
        title: Stands above the figure.
        theme: `auto` follows the reader's setting.

    Raises:
        UsageError: There is no such theme.
    """
    looks = looks_of([own.method for own in report.curves])
    names = [line_name(own.method) for own in report.curves]
    widest = max(text_width(name, bold=look.band) for name, look in zip(names, looks, strict=True))
    frame = _Frame.of(report, looks, widest + _VALUE_ROOM)
    ends = "; ".join(f"{own.label} {own.points[-1].accuracy.value:.1%}" for own in report.curves)
    drawing = Drawing(
        WIDTH, HEIGHT, title, f"{title}; among {report.ks[-1]}: {ends}", theme, prefix="reasonflux-curves"
    )
    drawing.ground(_PAPER)
    _heading(drawing, report, title)
    _axes(drawing, frame, report.ks)
    # What matters most is drawn last.
    by_width = sorted(zip(report.curves, looks, strict=True), key=lambda pair: pair[1].width)
    for own, look in by_width:
        if look.band:
            _band(drawing, frame, own, look)
    for own, look in by_width:
        _line(drawing, frame, own, look)
    _labels(drawing, frame, report.curves, names, looks)
    return str(drawing)


def png(report: SelectionReport, *, title: str = TITLE, theme: Theme = "light") -> bytes:
    """Return the figure as PNG, at twice its size; `auto` is light. See `svg`.

    Raises:
        MissingExtra: CairoSVG, or the library Cairo that it needs, is not installed.
    """
    try:
        cairosvg = importlib.import_module("cairosvg")
    except (ImportError, OSError) as error:
        raise MissingExtra(
            f"expected CairoSVG for a PNG, got: {error}; pip install 'reasonflux-prm[figures]' and the system's "
            "libcairo2, or write an .svg, which needs neither"
        ) from error
    picture = svg(report, title=title, theme="light" if theme == "auto" else theme)
    data: bytes = cairosvg.svg2png(bytestring=picture.encode(), scale=_PNG_SCALE)
    return data


def write_figure(report: SelectionReport, path: str | Path, *, title: str = TITLE, theme: Theme = "auto") -> None:
    """Write the figure to a file: SVG or PNG, by its suffix.

    Raises:
        UsageError: The suffix is another.
        MissingExtra: See `png`.
        OutputError: The file could not be written.
    """
    target = Path(path)
    if target.suffix not in (".svg", ".png"):
        raise UsageError(f"expected the figure to be a .svg or a .png, got {target.name}")
    if target.suffix == ".png":
        data = png(report, title=title, theme=theme)
    else:
        data = svg(report, title=title, theme=theme).encode()
    with atomic_path(target) as part:
        part.write_bytes(data)


# --- what goes where -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Frame:
    """Where values are on the page."""

    left: float
    right: float
    top: float
    bottom: float
    first: int
    """The smallest k."""
    last: int
    """The largest k."""
    low: float
    high: float
    step: float
    """Between two marks of the y axis."""

    @classmethod
    def of(cls, report: SelectionReport, looks: Sequence[Look], right: float) -> _Frame:
        values = []
        for own, look in zip(report.curves, looks, strict=True):
            for point in own.points:
                ends = (point.accuracy.low, point.accuracy.high) if look.band else ()
                values += [value for value in (point.accuracy.value, *ends) if value is not None]
        # A tenth at least: small differences between near equals are not to look large.
        middle, spread = (min(values) + max(values)) / 2, max(max(values) - min(values), 0.1)
        low, high = middle - spread / 2, middle + spread / 2
        step = next(s for s in (0.02, 0.05, 0.1, 0.2) if s >= spread / 8)
        low = max(0.0, math.floor((low - spread * 0.03) / step) * step)
        high = min(1.0, math.ceil((high + spread * 0.03) / step) * step)
        return cls(_LEFT, WIDTH - right, _TOP, HEIGHT - _BOTTOM, report.ks[0], report.ks[-1], low, high, step)

    def x(self, k: float) -> float:
        """Return the place of a size; the sizes that one doubles into the next are equally far apart."""
        share = math.log2(k / self.first) / math.log2(self.last / self.first) if self.last > self.first else 1.0
        return self.left + (self.right - self.left) * share

    def y(self, value: float) -> float:
        """Return the place of an accuracy."""
        return self.bottom - (self.bottom - self.top) * (value - self.low) / (self.high - self.low)


def looks_of(methods: Sequence[Method]) -> list[Look]:
    """Return how to draw each method: a PRM keeps its colour in its vote, and what needs no PRM has none."""
    prms = list(dict.fromkeys(method.prm for method in methods if method.prm is not None))
    fixed = {
        "majority": Look(_INK, 2.25, band=True),
        "oracle": Look(_QUIET, 1.5, "1.5 4"),
        "longest": Look(_QUIET, 1.5, "9 4"),
        "shortest": Look(_QUIET, 1.5, "4 3"),
        "pass@1": Look(_QUIET, 1.5),
    }
    looks = []
    for method in methods:
        if method.prm is None:
            looks.append(fixed[method.kind])
        else:
            colour = _PRMS[prms.index(method.prm) % len(_PRMS)]
            looks.append(Look(colour, 2.5, "7 4" if method.kind == "weighted" else "", band=True))
    return looks


def _marked(ks: Sequence[int]) -> list[int]:
    """Return the sizes that get a mark on the axis: powers of two, and the last unless it is close to one."""
    powers = [k for k in ks if k & (k - 1) == 0]
    if ks[-1] not in powers and (not powers or ks[-1] / powers[-1] > 1.3):
        powers.append(ks[-1])
    return powers or [ks[-1]]


def _spread(places: Sequence[float], low: float, high: float) -> list[float]:
    """Move places apart until labels there do not overlap, as little as it takes, within `low` to `high`."""
    # Runs of labels that touch: their members in order, and the place of the first.
    runs: list[tuple[list[int], float]] = []
    for index in sorted(range(len(places)), key=lambda index: places[index]):
        members, at = [index], min(max(places[index], low), high)
        while runs and runs[-1][1] + len(runs[-1][0]) * _LABEL_GAP > at:
            members = runs.pop()[0] + members
            middle = sum(places[i] - number * _LABEL_GAP for number, i in enumerate(members)) / len(members)
            at = max(min(middle, high - (len(members) - 1) * _LABEL_GAP), low)
        runs.append((members, at))
    found = list(places)
    for members, at in runs:
        for number, index in enumerate(members):
            found[index] = at + number * _LABEL_GAP
    return found


def line_name(method: Method) -> str:
    """Return what stands at the end of a method's line."""
    if method.prm is None:
        return "oracle (pass@k)" if method.kind == "oracle" else method.kind
    return shortened(method.prm, _WIDEST_NAME, bold=True) + (", vote" if method.kind == "weighted" else "")


def _heading(drawing: Drawing, report: SelectionReport, title: str) -> None:
    what = f"{report.problems:,} problems, mean over all subsets of their candidates"
    drawing.text(24, 36, shortened(title, WIDTH - 48, 17, bold=True), _INK, size=17, bold=True)
    drawing.text(24, 58, f"{what}; bands: {report.settings['level']:.0%} bootstrap by problem", _SOFT, size=12.5)


def _axes(drawing: Drawing, frame: _Frame, ks: Sequence[int]) -> None:
    steps = round((frame.high - frame.low) / frame.step)
    for value in (frame.low + number * frame.step for number in range(steps + 1)):
        y = frame.y(value)
        drawing.line([(frame.left, y), (frame.right, y)], _GRID)
        drawing.text(frame.left - 10, y + 4, f"{value:.0%}", _SOFT, anchor="end")
    drawing.line([(frame.left, frame.bottom), (frame.right, frame.bottom)], _AXIS)
    for k in _marked(ks):
        x = frame.x(k)
        drawing.line([(x, frame.bottom), (x, frame.bottom + 5)], _AXIS)
        drawing.text(x, frame.bottom + 20, str(k), _SOFT, anchor="middle")
    middle = (frame.left + frame.right) / 2
    drawing.text(middle, frame.bottom + 42, "candidates a problem", _SOFT, anchor="middle")


def _band(drawing: Drawing, frame: _Frame, own: MethodCurve, look: Look) -> None:
    ends = [
        (frame.x(point.k), frame.y(point.accuracy.low), frame.y(point.accuracy.high))
        for point in own.points
        if point.k is not None and point.accuracy.low is not None and point.accuracy.high is not None
    ]
    if len(ends) > 1:
        outline = [(x, high) for x, _, high in ends] + [(x, low) for x, low, _ in reversed(ends)]
        drawing.area(outline, look.colour, 0.1)


def _line(drawing: Drawing, frame: _Frame, own: MethodCurve, look: Look) -> None:
    places = {
        point.k: (frame.x(point.k), frame.y(point.accuracy.value))
        for point in own.points
        if point.k is not None and point.accuracy.value is not None
    }
    if len(places) > 1:
        drawing.line(list(places.values()), look.colour, look.width, look.dashes)
    for k in _marked(list(places)) if look.band or len(places) == 1 else []:
        drawing.dot(*places[k], 4, look.colour, _PAPER)


def _labels(
    drawing: Drawing, frame: _Frame, curves: Sequence[MethodCurve], names: Sequence[str], looks: Sequence[Look]
) -> None:
    values = [own.points[-1].accuracy.value or 0.0 for own in curves]
    ends = [frame.y(value) for value in values]
    places = _spread(ends, frame.top, frame.bottom)
    for name, look, value, end, place in zip(names, looks, values, ends, places, strict=True):
        x = frame.right + 8
        drawing.line([(x, end), (x + 10, place)], look.colour)
        colour = look.colour if look.band else _SOFT
        drawing.text(x + 15, place + 4, name, colour, bold=look.band, tail=f"{value:.1%}", tail_colour=_SOFT)
