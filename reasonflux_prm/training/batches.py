"""Windows into batches: packed end to end to a token budget, no padding, the same batches whoever trains them.

The whole training is one list of packs, made from lengths and a seed alone: each epoch's windows are shuffled, packed a
few dozen packs at a time, and the packs shuffled. Optimizer step s takes the packs from s * A on, A packs a step, and
of P processes each takes every P-th: one process or several do the same steps, and a run goes on at any of them.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, combinations
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from reasonflux_prm.prm.encoding import TRAJECTORY
from reasonflux_prm.scoring.packing import plan
from reasonflux_prm.training.examples import Example

_PACKS_AT_ONCE: Final = 48
"""Windows of so many packs are packed together: enough to fill packs well, few enough to stay shuffled."""

Pack = tuple[int, ...]
"""Numbers of windows."""
FILLER: Final[Pack] = ()
"""A pack with no part in the loss, so that every process has as many as the others."""


@dataclass(frozen=True, slots=True)
class Packing:
    """How windows are packed."""

    pack_tokens: int
    seed: int
    together: bool = False
    """Keep the windows of one problem in one pack, as far as they fit, so that its traces can be compared."""


def units(examples: Sequence[Example], packing: Packing) -> list[list[int]]:
    """Return what is packed as a whole: windows, or with `together` the windows of a problem, in rows that fit."""
    if not packing.together:
        return [[number] for number in range(len(examples))]
    by_group: dict[str, list[int]] = defaultdict(list)
    for number, example in enumerate(examples):
        by_group[example.group].append(number)
    found: list[list[int]] = []
    for numbers in by_group.values():
        row: list[int] = []
        used = 0
        for number in numbers:
            if row and used + len(examples[number]) > packing.pack_tokens:
                found.append(row)
                row, used = [], 0
            row.append(number)
            used += len(examples[number])
        found.append(row)
    return found


def epoch_packs(examples: Sequence[Example], packing: Packing, epoch: int) -> list[Pack]:
    """Return the packs of one epoch, in the order in which they are trained.

    A window longer than the budget has a pack of its own.
    """
    rng = random.Random(f"{packing.seed} {epoch}")
    todo = units(examples, packing)
    sizes = [sum(len(examples[number]) for number in unit) for unit in todo]
    order = list(range(len(todo)))
    rng.shuffle(order)
    packs: list[Pack] = []
    chunk: list[int] = []
    tokens = 0
    for place, number in enumerate(order):
        chunk.append(number)
        tokens += sizes[number]
        if tokens >= _PACKS_AT_ONCE * packing.pack_tokens or place == len(order) - 1:
            made = plan([sizes[n] for n in chunk], packing.pack_tokens)
            packs += [tuple(window for n in group for window in todo[chunk[n]]) for group in made]
            chunk, tokens = [], 0
    rng.shuffle(packs)
    return packs


def all_packs(examples: Sequence[Example], packing: Packing, epochs: float, processes: int) -> list[Pack]:
    """Return the packs of the whole training; a part of an epoch takes that part of its packs."""
    packs: list[Pack] = []
    whole = int(epochs)
    for epoch in range(whole):
        packs += epoch_packs(examples, packing, epoch)
    if epochs > whole:
        last = epoch_packs(examples, packing, whole)
        packs += last[: max(1, round(len(last) * (epochs - whole)))]
    return filled(packs, processes)


def filled(packs: Sequence[Pack], processes: int) -> list[Pack]:
    """Return the packs, and fillers up to a multiple of the number of processes."""
    return [*packs, *[FILLER] * (-len(packs) % processes)]


class PackSampler:
    """Gives a data loader the windows of each pack; what accelerate shares out among processes.

    Args:
        packs: Numbers of windows.
        filler: The window that a filler reads, with no weight.
    """

    def __init__(self, packs: Sequence[Pack], filler: int = 0) -> None:
        self.packs, self.filler = packs, filler

    def __iter__(self) -> Iterator[list[tuple[int, bool]]]:
        """Yield (number of a window, whether it counts) for each pack."""
        for pack in self.packs:
            yield [(number, True) for number in pack] or [(self.filler, False)]

    def __len__(self) -> int:
        """Return the number of packs."""
        return len(self.packs)


class Windows(torch.utils.data.Dataset[tuple[int, Example, bool]]):
    """The windows, by the keys of `PackSampler`."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self.examples = examples

    def __getitem__(self, key: tuple[int, bool]) -> tuple[int, Example, bool]:
        """Return a window's number, the window, and whether it counts."""
        number, counts = key
        return number, self.examples[number], counts

    def __len__(self) -> int:
        """Return the number of windows."""
        return len(self.examples)


def shortest(examples: Sequence[Example]) -> int:
    """Return the number of the shortest window, which is the cheapest filler."""
    return min(range(len(examples)), key=lambda number: len(examples[number]))


def collate(windows: Sequence[tuple[int, Example, bool]], *, pair_margin: float | None = None) -> dict[str, Any]:
    """Lay windows end to end.

    Args:
        windows: (number, window, whether it counts); one that does not is read with weight 0.
        pair_margin: Make pairs of the trajectories of one problem whose targets differ by more; None makes none.

    Returns:
        `input_ids`, `position_ids` (1, T) int64; `packed_starts`, the offsets of the windows, and T; `reads` (R,)
        int64; `targets`, `weights` (R,) float32; `pairs` (K, 2) int64, better and worse read; `pair_weights` (K,)
        float32; `count` () float32, what the losses' sum is divided by; `numbers`, the windows'.
    """
    examples = [example for _, example, _ in windows]
    starts = [0, *accumulate(map(len, examples))]
    reads = np.concatenate([example.reads + start for example, start in zip(examples, starts, strict=False)])
    weights = [example.weights if counts else np.zeros_like(example.weights) for _, example, counts in windows]
    pairs, pair_weights = _pairs(windows, pair_margin)
    return {
        "input_ids": torch.from_numpy(np.concatenate([example.tokens for example in examples]).astype(np.int64))[None],
        "position_ids": torch.cat([torch.arange(len(example)) for example in examples])[None],
        "packed_starts": starts,
        "reads": torch.from_numpy(reads.astype(np.int64)),
        "targets": torch.from_numpy(np.concatenate([example.targets for example in examples])),
        "weights": torch.from_numpy(np.concatenate(weights)),
        "pairs": pairs,
        "pair_weights": pair_weights,
        "count": torch.tensor(sum(example.share for _, example, counts in windows if counts), dtype=torch.float32),
        "numbers": [number for number, _, _ in windows],
    }


def _pairs(windows: Sequence[tuple[int, Example, bool]], margin: float | None) -> tuple[Tensor, Tensor]:
    """Return pairs of reads of trajectories, and each pair's weight: 1/n_a + 1/n_b, with n a trace's number of pairs.

    So the weighted sum over pairs is the sum over traces of the mean over the trace's pairs.
    """
    by_group: dict[str, list[tuple[int, float]]] = defaultdict(list)
    place = 0
    for _, example, counts in windows:
        for read, step in enumerate(example.steps.tolist()):
            if step == TRAJECTORY and counts:
                by_group[example.group].append((place + read, float(example.targets[read])))
        place += len(example.steps)
    found: list[tuple[int, int]] = []
    if margin is not None:
        for members in by_group.values():
            for (a, target_a), (b, target_b) in combinations(members, 2):
                if abs(target_a - target_b) > margin:
                    found.append((a, b) if target_a > target_b else (b, a))
    times: Mapping[int, int] = _times(found)
    weights = [1 / times[a] + 1 / times[b] for a, b in found]
    return torch.tensor(found, dtype=torch.long).reshape(-1, 2), torch.tensor(weights, dtype=torch.float32)


def _times(pairs: Sequence[tuple[int, int]]) -> Mapping[int, int]:
    times: dict[int, int] = defaultdict(int)
    for pair in pairs:
        for read in pair:
            times[read] += 1
    return times
