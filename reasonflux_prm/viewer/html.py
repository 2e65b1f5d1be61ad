"""One self-contained HTML file of scored or labelled traces: no network, no fonts, no scripts from elsewhere.

How the file is built
    shell (markup, style) | rows, texts | rows, texts | ... | summary | script

The records are streamed: a *rows* block (what lists and charts need of some traces) and a *texts* block (their words,
cut into steps) are written as soon as enough text has come together, so memory does not grow with the number of traces.
The page reads all rows when it opens, and a texts block only when one of its traces is looked at.

Why it is safe to open traces from strangers
    A block is JSON, deflated, in base64: no trace text can close its element. The page puts text in with `textContent`
    only, and its content security policy allows one script and one style, by hash, and nothing from the network.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import IO, Any

from reasonflux_prm.records import Part, PRMIdentity, Term
from reasonflux_prm.traces.write import atomic_path
from reasonflux_prm.viewer.records import Record, Shown, shown

SCHEMA = 1
BLOCK_CHARACTERS = 400_000
"""Text in one block; a longer trace has a block of its own."""
TERM_CHARACTERS = 60
"""What a term of a label counts for."""
OPENING_CHARACTERS = 200
"""How much of a problem the lists show (and search)."""
META_CHARACTERS = 300
"""Longest value of an unknown column that the trace page shows; others are left out and counted."""
STYLES = ("base.css", "views.css", "charts.css")
SCRIPTS = ("core.js", "scale.js", "list.js", "curve.js", "trace.js", "distributions.js", "groups.js", "main.js")


@dataclass(frozen=True, slots=True)
class ReportStats:
    """What was written."""

    traces: int
    by_status: Mapping[str, int]
    steps: int
    picks: int
    """Traces that were marked as a group's pick."""
    bytes: int
    """Size of the file."""


@dataclass(slots=True)
class _Block:
    """Traces on their way into the file."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    texts: list[dict[str, Any]] = field(default_factory=list)
    characters: int = 0


@dataclass(slots=True)
class _Tally:
    """What is known of the whole file; its size does not depend on the number of traces."""

    traces: int = 0
    steps: int = 0
    picks: int = 0
    labelled: int = 0
    by_status: Counter[str] = field(default_factory=Counter)
    makers: dict[PRMIdentity | str, int] = field(default_factory=dict)


def write_report(
    records: Iterable[Record], path: Path | str, *, title: str, picks: Mapping[str, str] | None = None
) -> ReportStats:
    """Write scored or labelled traces as one HTML file that opens anywhere, also from a disk without a network.

    Numbers are stored with six significant digits. Memory is constant in the number of traces.

    Args:
        records: Read once, shown in this order until the reader sorts them.
        path: The file to write; it appears whole or not at all.
        title: Heading of the page.
        picks: For each group (`Trace.group`) the id of the trace that was picked.

    Raises:
        OutputError: The file could not be written.
    """
    with atomic_path(path) as beside, beside.open("wb") as file:
        tally = _write(file, records, title, picks or {})
        size = file.tell()
    return ReportStats(tally.traces, dict(tally.by_status), tally.steps, tally.picks, size)


def _write(file: IO[bytes], records: Iterable[Record], title: str, picks: Mapping[str, str]) -> _Tally:
    tally = _Tally()
    shell, end = shell_of(title)
    file.write(shell.encode())
    for block in _blocks(shown(records), picks, tally):
        file.write(element("rows", _columns(block.rows)))
        file.write(element("texts", block.texts))
    summary = {
        "schema": SCHEMA,
        "kind": "labels" if tally.labelled else "scored",
        "title": title,
        "traces": tally.traces,
        "prms": [asdict(maker) for maker in tally.makers if isinstance(maker, PRMIdentity)],
        "formulas": [maker for maker in tally.makers if isinstance(maker, str)],
    }
    file.write(element("summary", summary))
    file.write(end.encode())
    return tally


def _blocks(records: Iterable[Shown], picks: Mapping[str, str], tally: _Tally) -> Iterator[_Block]:
    block = _Block()
    for record in records:
        trace = record.trace
        picked = trace.group is not None and picks.get(trace.group) == trace.id
        maker = tally.makers.setdefault(record.maker, len(tally.makers))
        block.rows.append(_row(record, maker, picked))
        block.texts.append(_texts(record))
        block.characters += len(trace.problem) + len(trace.thinking) + len(trace.response)
        block.characters += TERM_CHARACTERS * sum(map(len, record.step_terms))
        tally.traces += 1
        tally.steps += len(record.steps)
        tally.picks += picked
        tally.labelled += record.labelled
        tally.by_status[record.status] += 1
        if block.characters >= BLOCK_CHARACTERS:
            yield block
            block = _Block()
    if block.rows:
        yield block


def _row(record: Shown, maker: int, picked: bool) -> dict[str, Any]:
    """What the lists and charts need of one trace."""
    trace = record.trace
    return {
        "id": trace.id,
        "problem": " ".join(trace.problem[: 4 * OPENING_CHARACTERS].split())[:OPENING_CHARACTERS],
        "status": record.status,
        "good": record.good,
        "reward": _number(record.overall),
        "trajectory": _number(record.trajectory),
        "steps": [_number(value) for value in record.values],
        "thinking": sum(step.part == "thinking" for step in record.steps),
        "tokens": record.tokens,
        "correct": trace.correct,
        "source": trace.source,
        "policy": trace.policy,
        "group": trace.group,
        "pick": picked,
        "outcome": record.outcome,
        "prm": None if record.labelled else maker,
        "formula": maker if record.labelled else None,
    }


def _texts(record: Shown) -> dict[str, Any]:
    """What the page of one trace needs besides its row."""
    trace = record.trace
    labels = list(trace.step_labels) if trace.steps == record.steps else []
    meta = {str(name): _short(value) for name, value in trace.meta.items()}
    return {
        "problem": trace.problem,
        "thinking": _pieces(record, "thinking"),
        "response": _pieces(record, "response"),
        "closed": trace.thinking_closed,
        "answer": trace.answer,
        "labels": labels,
        "terms": [_terms(terms) for terms in record.step_terms],
        "trajectory": _terms(record.trajectory_terms or {}),
        "overflow": record.overflow,
        "note": record.note,
        "meta": {name: value for name, value in meta.items() if value is not None},
        "hidden": sum(value is None for value in meta.values()),
    }


def _terms(terms: Mapping[str, Term]) -> list[tuple[str, float | None, str | None]]:
    return [(name, _number(term.value), term.reason) for name, term in terms.items()]


def _pieces(record: Shown, part: Part) -> list[tuple[str, int]]:
    """One part as (text, index of its step): -1 is text that no step covers.

    The text is cut here because offsets count code points, and the strings of a browser are made of UTF-16 units.
    """
    text = record.trace.text(part)
    pieces, end = [], 0
    for index, step in enumerate(record.steps):
        if step.part != part:
            continue
        if step.start > end:
            pieces.append((text[end : step.start], -1))
        pieces.append((text[step.start : step.stop], index))
        end = max(end, step.stop)
    if end < len(text):
        pieces.append((text[end:], -1))
    return pieces


def _number(value: float | None) -> float | None:
    """Six significant digits; None for what is no number, so that nothing unscored is ever drawn as a score."""
    return float(f"{value:.6g}") if value is not None and math.isfinite(value) else None


def _short(value: object) -> str | None:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= META_CHARACTERS else None


def _columns(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in rows[0]}


def element(kind: str, content: object) -> bytes:
    """Return one data element. Base64 has no `<`, so whatever the text is, it cannot end the element."""
    packed = base64.b64encode(zlib.compress(json.dumps(content, separators=(",", ":"), allow_nan=False).encode()))
    return b'<script type="text/plain" data-kind="' + kind.encode() + b'">' + packed + b"</script>\n"


def shell_of(
    title: str, page_name: str = "page.html", styles: Sequence[str] = STYLES, scripts: Sequence[str] = SCRIPTS
) -> tuple[str, str]:
    """Return a page before and after its data."""
    page = files(__package__) / "page"
    style = "\n".join((page / name).read_text("utf-8") for name in styles)
    script = '"use strict";\n(() => {\n' + "\n".join((page / name).read_text("utf-8") for name in scripts) + "\n})();\n"
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'"
    )
    before, after = (page / page_name).read_text("utf-8").split("{{data}}")
    for name, value in (("policy", policy), ("style", style), ("title", html.escape(_printable(title)))):
        before = before.replace("{{" + name + "}}", value)
    return before, after.replace("{{script}}", script)


def _printable(text: str) -> str:
    """The text without lone surrogates, which UTF-8 cannot hold."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
