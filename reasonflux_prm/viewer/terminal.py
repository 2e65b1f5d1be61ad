"""Scored and labelled traces in the terminal: every step with its reward or target, from red over yellow to green.

The number is always printed, so nothing depends on colour. Trace text comes from models and strangers: it is printed as
text, never as markup, and what could steer a terminal (escape sequences, bidirectional overrides) is made visible.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from itertools import islice

from rich.cells import cell_len
from rich.color import Color
from rich.console import Console
from rich.style import Style
from rich.text import Text

from reasonflux_prm.records import Term
from reasonflux_prm.viewer.records import Record, Shown, shown_of

_RED, _YELLOW, _GREEN = (214, 96, 77), (232, 196, 88), (102, 178, 110)
_MARGIN = 9
_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters (not tab and line feed), line separators, bidirectional marks, lone surrogates."""


def show(
    records: Iterable[Record],
    console: Console,
    *,
    limit: int | None = None,
    ids: Collection[str] = (),
    picks: Mapping[str, str] | None = None,
    step_lines: int | None = None,
) -> int:
    """Print scored or labelled traces and return how many were printed; of a label, every term with its reason.

    Args:
        records: They are read only as far as `limit` or `ids` ask.
        console: Where to print. Without colour the page reads the same.
        limit: At most this many traces; None prints all.
        ids: Print only traces with these ids; empty prints all.
        picks: For each group the id of the trace that was picked; it is marked.
        step_lines: Lines of one step that are printed before the rest is counted; None prints all.
    """
    wanted = set(ids)
    chosen = (record for record in records if not wanted or record.trace.id in wanted)
    printed = 0
    for record in islice(chosen, limit):
        _show_one(shown_of(record), console, picks or {}, step_lines)
        printed += 1
    return printed


def visible(text: str) -> str:
    """The text with everything that could steer a terminal written out, as in `<U+001B>`."""
    return _STEERING.sub(lambda found: f"<U+{ord(found.group()):04X}>", text.replace("\r\n", "\n"))


def _show_one(record: Shown, console: Console, picks: Mapping[str, str], step_lines: int | None) -> None:
    trace = record.trace
    picked = trace.group is not None and picks.get(trace.group) == trace.id
    name = _line(trace.id, console)
    rule = ("-" if console.options.ascii_only else "─") * max(0, console.width - cell_len(name) - 1)
    console.print(Text.assemble((name, "bold"), " ", (rule, "dim")), soft_wrap=True)
    console.print(_summary(record, picked, console), soft_wrap=True)
    if trace.problem.strip():
        _print_block(console, "", Style(), Text(_safe(trace.problem.strip(), console), "italic"), step_lines)
    if not record.good:
        reason = f": {_line(record.note, console)}" if record.note else ""
        verb = "labelled" if record.labelled else "scored"
        console.print(Text(f"not {verb}, {record.status}{reason}", "bold red"), soft_wrap=True)
    if record.trajectory_terms:
        console.print(Text("trajectory", "bold"))
        _print_terms(record.trajectory_terms, console, step_lines)
    span = _span(record)
    part = None
    for index, (step, value) in enumerate(zip(record.steps, record.values, strict=True)):
        if step.part != part:
            part = step.part
            cut = part == "thinking" and not trace.thinking_closed
            console.print(Text(part + (", cut off before its end" if cut else ""), "bold"))
        text = trace.text(step.part)[step.start : step.stop].strip() or "(white space only)"
        _print_block(console, _number(value), _colour(value, span), Text(_safe(text, console)), step_lines)
        if record.labelled:
            _print_terms(record.step_terms[index], console, step_lines)
    if span is not None and span != (0.0, 1.0):
        low, high = span
        console.print(Text(f"colours: {low:.3f} (red) to {high:.3f} (green), 5-95% of this trace's steps", "dim"))
    console.print()


def _summary(record: Shown, picked: bool, console: Console) -> Text:
    trace = record.trace
    verdict = {True: "right", False: "wrong", None: None}[trace.correct]
    overall = "mean target" if record.labelled else "reward"
    rewards = f"{overall} {_number(record.overall)}  trajectory {_number(record.trajectory)}"
    facts = [
        verdict,
        trace.source,
        trace.policy,
        f"{len(record.steps)} steps",
        str(record.maker) if record.labelled else f"{record.tokens} tokens",
        record.overflow,
    ]
    line = ", ".join(_line(fact, console) for fact in facts if fact)
    return Text.assemble(("PICK  " if picked else "", "bold"), (rewards, "bold"), ("  " + line, "dim"))


def _print_block(console: Console, value: str, colour: Style, body: Text, most: int | None) -> None:
    """Print text wrapped to the console's width, with its reward in a coloured margin on the left."""
    lines = list(body.wrap(console, max(20, console.width - _MARGIN - 1), tab_size=4))
    shown = lines if most is None else lines[:most]
    if len(shown) < len(lines):
        shown.append(Text(f"... {len(lines) - len(shown)} of {len(lines)} lines not shown", "dim"))
    for index, line in enumerate(shown):
        margin = f"{value if index == 0 else '':>{_MARGIN - 1}} "
        console.print(Text.assemble((margin, colour), " ", line), soft_wrap=True)


def _print_terms(terms: Mapping[str, Term], console: Console, most: int | None) -> None:
    """Print terms, each beginning on a line of its own, with what there is to say of it beside it."""
    width = max((cell_len(_line(name, console)) for name in terms), default=0)
    for name, term in terms.items():
        said = f"{' ' * _MARGIN} {_line(name, console):{width}} {_number(term.value):>7}  "
        room = max(20, console.width - cell_len(said) - 1)
        reasons = list(Text(_safe(term.reason or "", console)).wrap(console, room))
        shown = reasons if most is None else reasons[:most]
        for index, reason in enumerate(shown or [Text()]):
            before = said if index == 0 else " " * cell_len(said)
            cut = " ..." if index == len(shown) - 1 < len(reasons) - 1 else ""
            console.print(Text.assemble(before, reason, cut, style="dim"), soft_wrap=True)


def _line(text: str, console: Console) -> str:
    return _safe(text, console).replace("\n", " ")


def _safe(text: str, console: Console) -> str:
    """Visible, and with escapes for what the console's encoding cannot hold: a plain terminal never stops the run."""
    return visible(text).encode(console.encoding, "backslashreplace").decode(console.encoding)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _span(record: Shown) -> tuple[float, float] | None:
    """The values at the red and the green end: [0, 1], or where the steps leave it, their 5% and 95% points."""
    known = sorted(value for value in record.values if value is not None)
    if not known:
        return None
    if known[0] >= 0 and known[-1] <= 1:
        return 0.0, 1.0
    last = len(known) - 1
    return known[round(0.05 * last)], known[round(0.95 * last)]


def _colour(value: float | None, span: tuple[float, float] | None) -> Style:
    if value is None or span is None:
        return Style(dim=True)
    low, high = span
    at = min(1.0, max(0.0, (value - low) / (high - low))) if high > low else 0.5
    start, end, share = (_RED, _YELLOW, 2 * at) if at < 0.5 else (_YELLOW, _GREEN, 2 * at - 1)
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(start, end, strict=True))
    return Style(color="black", bgcolor=Color.from_rgb(red, green, blue))
