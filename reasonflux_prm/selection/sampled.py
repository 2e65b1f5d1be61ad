"""A sample of the pool to look at: half of it kept traces, half dropped ones, each with what became of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reasonflux_prm.records import PRMIdentity, ScoredTrace, Status
from reasonflux_prm.selection.index import Index
from reasonflux_prm.selection.pool import Pooled
from reasonflux_prm.selection.reasons import REASONS

NO_PRM = PRMIdentity("none", "", "none", "causal", "mean", 0.0)


@dataclass(frozen=True, slots=True)
class Seen:
    """One trace of the sample."""

    scored: ScoredTrace
    outcome: str
    """`kept`, or the reason why not."""
    detail: str


def sampled(pool: Iterable[Pooled], index: Index, most: int, seed: int) -> Iterator[Seen]:
    """Yield a sample in the order of the pool; all of the pool, if it has no more than `most` traces.

    Either half is drawn at random from its own kind; what one half does not use, the other may.
    """
    chosen = sample_mask(index.code == 0, most, seed)
    for place, pooled in enumerate(pool):
        if chosen[place]:
            yield Seen(_shown(pooled), REASONS[index.code[place]].value, index.detail(place))


def sample_mask(kept: NDArray[np.bool_], most: int, seed: int) -> NDArray[np.bool_]:
    """Return (B,) which traces a sample holds."""
    random = np.random.default_rng(seed)
    groups = [np.flatnonzero(kept), np.flatnonzero(~kept)]
    few = min(len(group) for group in groups)
    share = most // 2 if few > most // 2 else most - few
    chosen = np.zeros(len(kept), bool)
    for group in groups:
        chosen[random.permutation(group)[: min(len(group), share)]] = True
    return chosen


def _shown(pooled: Pooled) -> ScoredTrace:
    if pooled.scored is not None:
        return pooled.scored
    return ScoredTrace(pooled.trace, Status.FAILED, (), (), None, None, NO_PRM, 0, note="no PRM has scored it")
