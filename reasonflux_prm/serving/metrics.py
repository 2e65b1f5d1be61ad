"""What a service counts, in the text format of Prometheus (version 0.0.4)."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
PREFIX: Final = "reasonflux_prm_"
SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
SHARES: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)

Labels = tuple[tuple[str, str], ...]


class _Histogram:
    """Observations by bucket; `bounds` are the upper ends, inclusive."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds, self.counts, self.sum = bounds, [0] * (len(bounds) + 1), 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def lines(self, name: str, labels: Labels) -> Iterator[str]:
        total = 0
        for bound, count in zip((*map(_number, self.bounds), "+Inf"), self.counts, strict=True):
            total += count
            yield _line(f"{name}_bucket", (*labels, ("le", bound)), total)
        yield _line(f"{name}_sum", labels, self.sum)
        yield _line(f"{name}_count", labels, total)


class Metrics:
    """The counts of one service; may be told of things from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[Labels] = Counter()
        self._traces: Counter[Labels] = Counter()
        self._tokens = self._dropped = self._passes = 0
        self._seconds: dict[str, _Histogram] = {}
        self._fill, self._pass_s = _Histogram(SHARES), _Histogram(SECONDS)
        self._gauges: dict[str, tuple[str, Callable[[], float]]] = {}

    def gauge(self, name: str, does: str, read: Callable[[], float]) -> None:
        """Add a number that is read whenever somebody looks."""
        self._gauges[name] = (does, read)

    def answered(self, endpoint: str, status: int, seconds: float) -> None:
        """Count a request."""
        with self._lock:
            self._requests[("code", str(status)), ("endpoint", endpoint)] += 1
            self._seconds.setdefault(endpoint, _Histogram(SECONDS)).observe(seconds)

    def scored(self, counts: Mapping[str, int]) -> None:
        """Count traces by what became of them."""
        with self._lock:
            for status, count in counts.items():
                self._traces[(("status", status),)] += count

    def dropped(self, traces: int) -> None:
        """Count traces that were taken out of the queue because nobody waited for them any more."""
        with self._lock:
            self._dropped += traces

    def packed(self, tokens: int, most: int, seconds: float) -> None:
        """Count a pass through the PRM."""
        with self._lock:
            self._passes += 1
            self._tokens += tokens
            self._fill.observe(min(1.0, tokens / most))
            self._pass_s.observe(seconds)

    def text(self) -> str:
        """Return all of it."""
        with self._lock:
            return "\n".join([*self._lines(), ""])

    def _lines(self) -> Iterator[str]:
        yield from _counters("requests_total", "Requests, by endpoint and status code.", self._requests)
        yield from _counters("traces_total", "Traces answered, by status.", self._traces)
        yield from _counters("dropped_traces_total", "Traces dropped unread: the client hung up.", {(): self._dropped})
        yield from _counters("tokens_total", "Tokens read by the PRM.", {(): self._tokens})
        yield from _counters("passes_total", "Forward passes of the PRM.", {(): self._passes})
        for name, (does, read) in self._gauges.items():
            yield from _head(name, does, "gauge")
            yield _line(PREFIX + name, (), read())
        yield from _head("batch_fill", "Share of a pass's token budget that is used.", "histogram")
        yield from self._fill.lines(PREFIX + "batch_fill", ())
        yield from _head("pass_seconds", "Seconds of a forward pass.", "histogram")
        yield from self._pass_s.lines(PREFIX + "pass_seconds", ())
        yield from _head("request_seconds", "Seconds from a request's first byte to its answer.", "histogram")
        for endpoint, histogram in sorted(self._seconds.items()):
            yield from histogram.lines(PREFIX + "request_seconds", (("endpoint", endpoint),))


def _counters(name: str, does: str, values: Mapping[Labels, float]) -> Iterator[str]:
    yield from _head(name, does, "counter")
    for labels, value in sorted(values.items()):
        yield _line(PREFIX + name, labels, value)


def _head(name: str, does: str, kind: str) -> Iterator[str]:
    yield f"# HELP {PREFIX}{name} {does}"
    yield f"# TYPE {PREFIX}{name} {kind}"


def _line(name: str, labels: Labels, value: float) -> str:
    inside = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels)
    return f"{name}{{{inside}}} {_number(value)}" if inside else f"{name} {_number(value)}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return repr(float(value)).removesuffix(".0")
