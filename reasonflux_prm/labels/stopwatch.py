"""How long each stage of a run had work."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Adds up, by name, the time during which something of that name goes on; each name belongs to one thread."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._busy: Counter[str] = Counter()
        self._since: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Count the block's time; time that several blocks share counts once."""
        if not self._busy[name]:
            self._since[name] = time.monotonic()
        self._busy[name] += 1
        try:
            yield
        finally:
            self._busy[name] -= 1
            if not self._busy[name]:
                passed = time.monotonic() - self._since[name]
                self.seconds[name] = self.seconds.get(name, 0.0) + passed
