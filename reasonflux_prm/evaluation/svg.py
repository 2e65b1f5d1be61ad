"""A small writer of SVG: lines, areas, dots and texts, in colours that follow the reader's light or dark setting."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Literal
from xml.sax.saxutils import escape, quoteattr

from reasonflux_prm.errors import UsageError

Theme = Literal["auto", "light", "dark"]
Colour = tuple[str, str]
"""In light and in dark, as `#rrggbb`."""

_FORBIDDEN = re.compile("[\x00-\x1f\ud800-\udfff\ufffe\uffff]")
_FONT = "ui-sans-serif, system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', 'Liberation Sans', Arial, sans-serif"


class Drawing:
    """A picture that grows by one element a call; what comes later lies on top.

    Colours stand in attributes. With the theme `auto` these are the light ones, and a style that programs without
    `light-dark()` pass over makes them follow the reader's setting.

    Args:
        width: In pixels.
        height: In pixels.
        title: Of the picture, for readers who do not see it.
        description: What it shows, for the same.
        theme: `auto`, `light` or `dark`.
        prefix: Begins the names of the classes, which are the whole page's where the picture is put into one.

    Raises:
        UsageError: There is no such theme.
    """

    def __init__(self, width: int, height: int, title: str, description: str, theme: Theme, prefix: str) -> None:
        if theme not in ("auto", "light", "dark"):
            raise UsageError(f"expected the theme to be auto, light or dark, got {theme!r}")
        self._size, self._title, self._description = (width, height), title, description
        self._theme, self._prefix = theme, prefix
        self._rules: dict[str, str] = {}
        self._parts: list[str] = []

    def ground(self, colour: Colour) -> None:
        """Fill the whole picture."""
        width, height = self._size
        self._parts.append(f'<rect width="{width}" height="{height}" {self._paint(fill=colour)}/>')

    def line(self, points: Sequence[tuple[float, float]], colour: Colour, width: float = 1, dashes: str = "") -> None:
        """Draw a line through points."""
        dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
        look = f'{self._paint(stroke=colour)} stroke-width="{_number(width)}"{dashed} stroke-linecap="round"'
        self._parts.append(f'<path d="{_path(points)}" fill="none" {look} stroke-linejoin="round"/>')

    def area(self, points: Sequence[tuple[float, float]], colour: Colour, opacity: float) -> None:
        """Fill what a line through points encloses."""
        paint = self._paint(fill=colour)
        self._parts.append(f'<path d="{_path(points)}Z" {paint} fill-opacity="{_number(opacity)}"/>')

    def dot(self, x: float, y: float, radius: float, colour: Colour, rim: Colour) -> None:
        """Draw a dot with a rim."""
        place = f'cx="{_number(x)}" cy="{_number(y)}" r="{_number(radius)}"'
        self._parts.append(f'<circle {place} {self._paint(fill=colour, stroke=rim)} stroke-width="1.5"/>')

    def text(
        self,
        x: float,
        y: float,
        text: str,
        colour: Colour,
        *,
        size: float = 12,
        bold: bool = False,
        anchor: Literal["start", "middle", "end"] = "start",
        tail: str = "",
        tail_colour: Colour | None = None,
    ) -> None:
        """Write a text on the line `y`, and in another colour a tail behind it."""
        behind = ""
        if tail:
            paint = self._paint(fill=tail_colour or colour)
            behind = f'<tspan dx="6" font-weight="400" {paint}>{escape(one_line(tail))}</tspan>'
        self._parts.append(
            f'<text x="{_number(x)}" y="{_number(y)}" font-size="{_number(size)}" font-weight="{600 if bold else 400}" '
            f'text-anchor="{anchor}" {self._paint(fill=colour)}>{escape(one_line(text))}{behind}</text>'
        )

    def __str__(self) -> str:
        width, height = self._size
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            f'role="img" aria-label={quoteattr(one_line(self._description))} font-family="{_FONT}">'
        )
        parts = [head, f"<title>{escape(one_line(self._title))}</title>", *self._style(), *self._parts, "</svg>"]
        return "\n".join(parts) + "\n"

    def _style(self) -> list[str]:
        if self._theme != "auto":
            return []
        rules = (f".{name}{{{rule}}}" for name, rule in self._rules.items())
        # Alone the picture is the root; inside a page the page says whether it is light or dark.
        head = ["svg:root{color-scheme:light dark}", "@supports (color:light-dark(red,red)){"]
        return ["<style>", *head, *rules, "}", "</style>"]

    def _paint(self, **colours: Colour) -> str:
        """Return the attributes for `fill` and `stroke`."""
        side = 1 if self._theme == "dark" else 0
        attributes = [f'{what}="{colour[side]}"' for what, colour in colours.items()]
        if self._theme == "auto":
            # Named by what they say: pictures on one page share their classes.
            names = {f"{self._prefix}-{what}-{light[1:]}-{dark[1:]}": what for what, (light, dark) in colours.items()}
            for name, what in names.items():
                self._rules[name] = f"{what}:light-dark({','.join(colours[what])})"
            attributes.insert(0, f'class="{" ".join(names)}"')
        return " ".join(attributes)


def text_width(text: str, size: float = 12, *, bold: bool = False) -> float:
    """Return about how wide a text is, in pixels: a square for East Asian letters, somewhat more than half for others.

    The reader's font is not known, so room for a text has to be guessed; the guess is that of a wide font.
    """
    other = 0.68 if bold else 0.6
    return sum(size * (1.0 if unicodedata.east_asian_width(letter) in "WF" else other) for letter in text)


def shortened(text: str, most: float, size: float = 12, *, bold: bool = False) -> str:
    """Return a text on one line, its middle cut out if it is wider than `most` pixels."""
    text = one_line(text)
    if text_width(text, size, bold=bold) <= most:
        return text
    for kept in range(len(text) - 1, 1, -1):
        cut = f"{text[: (kept + 1) // 2].rstrip()}…{text[len(text) - kept // 2 :].lstrip()}"
        if text_width(cut, size, bold=bold) <= most:
            return cut
    return "…"


def one_line(text: str) -> str:
    """Return a text on one line, without the characters that XML forbids."""
    return " ".join(_FORBIDDEN.sub(" ", text).split())


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{_number(x)} {_number(y)}" for x, y in points)


def _number(value: float) -> str:
    """Return a number with at most two digits behind the point."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text
