"""Label rows as `label` writes them, given the targets of another formula without being decoded.

Most of a row stays as it is (the trace, and every term), and to decode and encode it would take ten times as long as
all the rest. So a row is taken apart only where something changes or is needed: the targets, the values of the
formula's terms, status, formula and note. Inside a JSON text every quotation mark has a backslash before it, so what is
looked for, which has bare ones, is never found in a text. A row in any other form is left to who decodes it.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Self

import numpy as np

from reasonflux_prm.labels.combine import TRAJECTORY_TERM, Values, combine_columns, outcome, strays, trajectory_value
from reasonflux_prm.labels.formula import Formula
from reasonflux_prm.records import LabelStatus

Combined = tuple[bytes, Counter[str], Counter[str]]
"""Rows, their number by status, and what of a literal formula is out of its range; see `combine.out_of_range`."""

_TEXT = rb'"(?:[^"\\]|\\.)*"'
_HEAD = re.compile(rb'\{"id": (%s), "status": "([a-z-]+)", "steps": \[' % _TEXT)
_FOOT = re.compile(rb'\}, "formula": %s, "note": (null|%s)(?=[,}])' % (_TEXT, _TEXT))
_TRAJECTORY = b'], "trajectory": {"terms": {'
_STEP = b'{"part": "'
_TARGET = b'}, "target": '
_KEPT = (LabelStatus.NO_STEPS.value, LabelStatus.FAILED.value)
_NAN = float("nan")
_STATUSES = frozenset(status.value for status in LabelStatus)


class AnotherForm(ValueError):
    """A row is no label, or one that `label` did not write in just this way."""


def combine_label_lines(lines: Sequence[bytes], formula: Formula) -> Combined:
    """Return label rows with the targets of a formula; what `combine` would make of the decoded rows.

    Raises:
        AnotherForm: At least one row has to be decoded.
    """
    rows = [_Row.of(line) for line in lines]
    columns = np.array([_numbers(text for row in rows for text in row.values(name)) for name in formula.terms])
    trajectories = _numbers(row.trajectory_value() for row in rows)
    written = str(formula)
    targets = iter(combine_columns(columns, formula))
    counts: Counter[str] = Counter()
    encoded: list[bytes] = []
    step_targets: list[float | None] = []
    trajectory_targets: list[float | None] = []
    for row, trajectory in zip(rows, trajectories, strict=True):
        own = tuple(islice(targets, row.steps))
        if row.status in _KEPT:
            counts[row.status] += 1
            encoded.append(row.with_formula(written))
            continue
        target = trajectory_value(trajectory, formula)
        status, note = outcome(own, target, written)
        counts[status.value] += 1
        encoded.append(row.with_targets((*own, target), status, written, note))
        step_targets += own
        trajectory_targets.append(target)
    stray: Counter[str] = Counter()
    if formula.mode == "literal":
        terms = {name: _there(column) for name, column in zip(formula.terms, columns, strict=True)}
        stray = strays({**terms, TRAJECTORY_TERM: _there(trajectories)}, step_targets, trajectory_targets)
    return b"".join(encoded), counts, stray


@dataclass(slots=True)
class _Row:
    """A row, taken apart where something changes."""

    line: bytes
    id: bytes
    status: str
    between: bytes
    """What stands between `id, status` and `formula`: the steps, then the trajectory."""
    trajectory: int
    """Where in `between` the trajectory begins."""
    pieces: list[bytes]
    """`between`, cut at every target. So piece i has the terms of step i, and the last but one those of the trajectory;
    each piece but the first begins with the target of the one before."""
    foot: int
    """Where `formula` begins."""
    note: bytes
    rest: int
    """Where the trace's own columns begin."""

    @classmethod
    def of(cls, line: bytes) -> Self:
        """Take a row apart.

        Raises:
            AnotherForm: It has not the form that `label` writes.
        """
        head = _HEAD.match(line)
        foot = head and _FOOT.search(line, head.end())
        if not head or not foot or (status := head[2].decode()) not in _STATUSES:
            raise AnotherForm
        # The foot's first brace closes the trajectory.
        between = line[head.end() : foot.start() + 1]
        trajectory = between.rfind(_TRAJECTORY)
        pieces = between.split(_TARGET)
        if trajectory < 0 or len(pieces) != 2 + between.count(_STEP):
            raise AnotherForm
        return cls(line, head[1], status, between, trajectory, pieces, foot.start() + 1, foot[1], foot.end())

    @property
    def steps(self) -> int:
        """Return the number of steps."""
        return len(self.pieces) - 2

    def values(self, name: str) -> Sequence[bytes]:
        """Return each step's value of a term, as it is written; `null` where it has none."""
        pattern = _value_of(name)
        found: list[bytes] = pattern.findall(self.between, 0, self.trajectory)
        if len(found) == self.steps:
            return found
        if not found:
            return (b"null",) * self.steps
        return [match[1] if (match := pattern.search(piece)) else b"null" for piece in self.pieces[:-2]]

    def trajectory_value(self) -> bytes:
        """Return the value of the trajectory's term, as it is written; `null` if it has none."""
        match = _value_of(TRAJECTORY_TERM).search(self.between, self.trajectory + len(_TRAJECTORY))
        return match[1] if match else b"null"

    def with_formula(self, formula: str) -> bytes:
        """Return the row with another formula alone."""
        return b"".join([self.line[: self.foot], self._end(formula, self.note)])

    def with_targets(
        self, targets: Sequence[float | None], status: LabelStatus, formula: str, note: str | None
    ) -> bytes:
        """Return the row with other targets, of all steps and the trajectory, and what goes with them."""
        joined = [b'{"id": ', self.id, b', "status": "', status.value.encode(), b'", "steps": [', self.pieces[0]]
        # All in one call, since one for each of millions of numbers takes a good part of the time.
        written = repr(list(targets))[1:-1].replace("None", "null").encode().split(b", ")
        for piece, target in zip(self.pieces[1:], written, strict=True):
            joined += _TARGET, target, piece[piece.index(b"}") :]
        joined.append(self._end(formula, json.dumps(note).encode()))
        return b"".join(joined)

    def _end(self, formula: str, note: bytes) -> bytes:
        return b', "formula": %s, "note": %s%s' % (json.dumps(formula).encode(), note, self.line[self.rest :])


@lru_cache
def _value_of(name: str) -> re.Pattern[bytes]:
    return re.compile(rb'"%s": \{"value": ([^,]*)' % name.encode())


def _numbers(texts: Iterable[bytes]) -> Values:
    try:
        return np.array([_NAN if text == b"null" else float(text) for text in texts], np.float64)
    except ValueError as error:
        raise AnotherForm from error


def _there(column: Values) -> list[float]:
    """Return what is not missing."""
    found: list[float] = column[~np.isnan(column)].tolist()
    return found
