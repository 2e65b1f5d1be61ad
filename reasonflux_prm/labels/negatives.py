"""Steps of unrelated problems, for coherence: a sample of bounded size, and which of it each step is held against.

The paper draws negatives "from unrelated traces" and says no more. Here a pool is made once from the whole input, and
every draw follows from the seed, the problem and the step's number, so a label depends on nothing that happened before
it, on no trace's id, and on no random number generator.
"""

from __future__ import annotations

import hashlib
import heapq
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from reasonflux_prm.errors import InputError, UsageError
from reasonflux_prm.records import SegmentedTrace, Trace
from reasonflux_prm.traces.write import atomic_path

SIZE = 4096
"""Steps in a pool."""
_STEPS_PER_PROBLEM = 16
"""Fewest steps that a full pool keeps of a problem that has them: many problems are worth more than many steps."""
_SCHEMA = 1


class NegativePool:
    """Steps of many problems, the same whatever the order of the traces and however often one is repeated.

    The problems with the smallest hashes are kept, and of each the steps with the smallest hashes, where a hash covers
    the seed and the text: of few problems many steps, of many problems `_STEPS_PER_PROBLEM`.
    """

    def __init__(self, seed: int, problems: Mapping[str, Sequence[str]]) -> None:
        """Make a pool of given steps.

        Args:
            seed: Of the draws.
            problems: For each problem, by its key (`problem_key`), its steps, without white space around them.
        """
        ordered = [(key, text) for key in sorted(problems) for text in sorted(problems[key])]
        self.seed = seed
        self.texts: tuple[str, ...] = tuple(text for _, text in ordered)
        """The steps, (P,)."""
        self._keys = [key for key, _ in ordered]
        self._problems = np.array([int(key, 16) for key in self._keys], np.uint64)
        self._hashes = np.array([_hash(seed, key, text) for key, text in ordered], np.uint64)
        self._where: dict[str, list[int]] = {}
        for index, text in enumerate(self.texts):
            self._where.setdefault(text, []).append(index)

    @classmethod
    def build(cls, segmented: Iterable[SegmentedTrace], size: int = SIZE, seed: int = 0) -> Self:
        """Sample the steps of many traces in one pass, holding about `size` steps at a time.

        Args:
            segmented: The traces; those to be labelled, or any others of their kind.
            size: Most steps to keep.
            seed: Which sample, and which draws from it.

        Raises:
            UsageError: The size is too small for two problems.
        """
        if size < 2 * _STEPS_PER_PROBLEM:
            raise UsageError(f"expected a pool of at least {2 * _STEPS_PER_PROBLEM} steps, got {size}")
        sample = _Sample(size, seed)
        for trace in segmented:
            sample.add(trace)
        return cls(seed, sample.problems())

    def draw(self, segmented: SegmentedTrace, count: int) -> NDArray[np.int64]:
        """Choose the negatives of each step of a trace.

        Steps of the trace's own problem are left out, and texts that are a step of the trace itself: what is the true
        step, or was just said, is no negative. The rest is put into an order that depends on the seed and the problem,
        and the steps take the next `count` in turn, so rollouts of one problem are held against the same steps.

        Args:
            segmented: Any trace, in the pool or not.
            count: Negatives for each step.

        Returns:
            (S, count) indices into `texts`; within a row each is there once.

        Raises:
            InputError: The pool has fewer than `count` such steps.
        """
        key = problem_key(segmented.trace)
        allowed = self._problems != np.uint64(int(key, 16))
        for text in {segmented.text(step).strip() for step in segmented.steps}:
            allowed[self._where.get(text, [])] = False
        candidates = np.flatnonzero(allowed)
        if len(candidates) < count:
            problems = len(set(self._keys) - {key})
            raise InputError(
                f"coherence needs {count} steps of other problems, and the input has {len(candidates)} of "
                f"{problems} other problem{'' if problems == 1 else 's'}; label more problems together, or ask for "
                "fewer negatives"
            )
        keys = _mixed(self._hashes[candidates] ^ np.uint64(_hash(self.seed, key)))
        ordered = candidates[np.argsort(keys, kind="stable")]
        turns = np.arange(len(segmented.steps))[:, None] * count + np.arange(count)
        drawn: NDArray[np.int64] = ordered[turns % len(ordered)]
        return drawn

    def identity(self) -> dict[str, Any]:
        """Return what draws depend on: the seed, and a digest of the steps."""
        digest = hashlib.sha256(json.dumps([self._keys, self.texts]).encode()).hexdigest()
        return {"seed": self.seed, "steps": len(self.texts), "problems": len(set(self._keys)), "sha256": digest}

    def save(self, path: str | Path) -> None:
        """Write the pool as JSON.

        Raises:
            OutputError: It cannot be written.
        """
        problems: dict[str, list[str]] = {}
        for key, text in zip(self._keys, self.texts, strict=True):
            problems.setdefault(key, []).append(text)
        with atomic_path(path) as part:
            part.write_text(json.dumps({"schema": _SCHEMA, "seed": self.seed, "problems": problems}), "utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote.

        Raises:
            InputError: There is no such file, or it is no pool.
        """
        try:
            saved = json.loads(Path(path).read_text("utf-8"))
            if saved["schema"] != _SCHEMA:
                raise ValueError(f"its schema is {saved['schema']!r}")
            problems = {key: [str(text) for text in texts] for key, texts in saved["problems"].items()}
            return cls(int(saved["seed"]), problems)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise InputError(
                f"{path} should be a pool of negatives of schema {_SCHEMA}, but cannot be read as one ({error!r}); "
                "leave it out to have a new one made"
            ) from error


def problem_key(trace: Trace) -> str:
    """Return what tells a trace's problem from others, 16 hexadecimal digits: its text, or else its group or its id."""
    text = " ".join(trace.problem.split())
    return f"{_hash(text) if text else _hash('', trace.group or trace.id):016x}"


class _Sample:
    """The bottom-k sample that `NegativePool.build` keeps while it reads."""

    def __init__(self, size: int, seed: int) -> None:
        self._seed = seed
        self._size = size
        self._most_problems = size // _STEPS_PER_PROBLEM
        self._kept: dict[str, dict[str, int]] = {}  # problem -> step -> hash
        self._heap: list[tuple[int, str]] = []  # of the kept problems' hashes, negated: the largest on top

    def add(self, segmented: SegmentedTrace) -> None:
        key = problem_key(segmented.trace)
        steps = self._kept.get(key)
        if steps is None:
            steps = self._enter(key)
        if steps is None:
            return
        for step in segmented.steps:
            text = segmented.text(step).strip()
            if text and text not in steps:
                steps[text] = _hash(self._seed, key, text)
                if len(steps) > 2 * self._share:
                    self._trim(steps)

    def problems(self) -> dict[str, list[str]]:
        for steps in self._kept.values():
            self._trim(steps)
        return {key: list(steps) for key, steps in self._kept.items()}

    @property
    def _share(self) -> int:
        """Steps that each problem may have now; it only ever falls, so what was dropped would be dropped at the end."""
        return self._size // max(1, len(self._kept))

    def _enter(self, key: str) -> dict[str, int] | None:
        entry = (-_hash(self._seed, key), key)
        if len(self._heap) < self._most_problems:
            heapq.heappush(self._heap, entry)
        elif entry <= self._heap[0]:
            return None
        else:
            _, dropped = heapq.heapreplace(self._heap, entry)
            del self._kept[dropped]
        self._kept[key] = {}
        for steps in self._kept.values():
            if len(steps) > 2 * self._share:
                self._trim(steps)
        return self._kept[key]

    def _trim(self, steps: dict[str, int]) -> None:
        if len(steps) <= self._share:
            return
        for text in heapq.nlargest(len(steps) - self._share, steps, key=lambda text: (steps[text], text)):
            del steps[text]


def _hash(*parts: object) -> int:
    """Return 64 bits; parts are kept apart."""
    data = json.dumps([str(part) for part in parts]).encode()
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the finalizer of SplitMix64 (Steele, Lea and Flood, 2014) of each value: a bijection that looks random."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
