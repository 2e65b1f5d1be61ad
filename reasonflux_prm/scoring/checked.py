"""A PRM whose rewards are scaled by what can be checked: the share of a step's claims about numbers that hold.

A language model, and the more so a small one, is a poor calculator; `labels.claims` is an exact one, and says nothing
of what it cannot decide. So each looks at what it is good at. A step's reward is scaled by the share of its decided
claims that hold, the trajectory reward by that of the whole trace's; where no claim was decided, rewards stay as they
are. This is a rule of ours, not of the paper.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from reasonflux_prm.errors import InputError, UsageError
from reasonflux_prm.records import PRMIdentity, ScoredTrace, SegmentedTrace, Trace
from reasonflux_prm.scoring.aggregate import aggregate
from reasonflux_prm.scoring.claims import NAME, Shares
from reasonflux_prm.scoring.run import Scorer
from reasonflux_prm.traces.write import atomic_path, json_line, read_scored, scored_row

SUFFIX: Final = "+claims"
"""Ends the name of a PRM whose rewards are scaled."""
_LOW: Final = {"pure": -1.0, "implicit": -math.inf}
"""The low end of `PRMSpec.score_range`, by family, where it is not 0: a service and a file tell the family alone."""
_AT_ONCE: Final = 512


def low_end(family: str) -> float:
    """Return the lowest reward that PRMs of a family give; the highest is 1 where there is a lowest."""
    return _LOW.get(family, 0.0)


class ClaimCheck:
    """Scales rewards by the claims that hold; see the module.

    Args:
        prm: Whose rewards these are; its family says how low they can be, which is what a step gets of whose claims
            none holds.

    Raises:
        UsageError: The rewards have no low end, or their claims are checked already.
        MissingExtra: sympy is not installed.
    """

    def __init__(self, prm: PRMIdentity) -> None:
        self._low = low_end(prm.family)
        if not math.isfinite(self._low):
            raise UsageError(f"the rewards of {prm.name} have no low end to be scaled to; leave out --check-claims")
        if prm.name.endswith(SUFFIX) or prm.name == NAME:
            raise UsageError(f"the claims of {prm.name} are checked already; leave out --check-claims")
        self._shares = Shares()

    def identity(self) -> dict[str, Any]:
        """Return what the scaling depends on."""
        return self._shares.identity()

    def check(self, scored: Sequence[ScoredTrace]) -> list[ScoredTrace]:
        """Return scored traces with scaled rewards; those that have none stay without."""
        shares = self._shares.of([SegmentedTrace(row.trace, row.steps, "scored") for row in scored])
        return [self._check(row, *own) for row, own in zip(scored, shares, strict=True)]

    def _check(self, scored: ScoredTrace, shares: Sequence[float | None], whole: float | None) -> ScoredTrace:
        prm = checked_identity(scored.prm)
        rewards = tuple(map(self._scaled, scored.step_rewards, shares))
        trajectory = self._scaled(scored.trajectory_reward, whole)
        reward = aggregate(rewards, trajectory, prm.aggregation, prm.alpha)
        return replace(scored, step_rewards=rewards, trajectory_reward=trajectory, reward=reward, prm=prm)

    def _scaled(self, reward: float | None, share: float | None) -> float | None:
        if reward is None or share is None:
            return reward
        return self._low + (reward - self._low) * share

    def close(self) -> None:
        """End the judge's workers."""
        self._shares.close()

    def __enter__(self) -> ClaimCheck:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def checked_identity(prm: PRMIdentity) -> PRMIdentity:
    """Return a PRM by a name that says that claims are checked."""
    return replace(prm, name=prm.name + SUFFIX)


class CheckedScorer:
    """A scorer whose rewards are scaled.

    Raises:
        UsageError, MissingExtra: As `ClaimCheck`.
    """

    def __init__(self, scorer: Scorer) -> None:
        self.scorer, self._claims = scorer, ClaimCheck(scorer.identity)

    @property
    def identity(self) -> PRMIdentity:
        """The PRM, by a name that says that claims are checked."""
        return checked_identity(self.scorer.identity)

    @property
    def prm(self) -> Any:
        """The PRM of the other scorer; None if that is no checkpoint."""
        return getattr(self.scorer, "prm", None)

    def settings_for_manifest(self) -> dict[str, Any]:
        """Return what the records depend on besides the PRM."""
        return {**self.scorer.settings_for_manifest(), "claims": self._claims.identity()}

    def score_chunks(self, traces: Iterable[Trace]) -> Iterator[list[ScoredTrace]]:
        """Score traces chunk by chunk, and scale the rewards of each chunk."""
        for chunk in self.scorer.score_chunks(traces):
            yield self._claims.check(chunk)


def check_file(scored: Path, output: Path) -> None:
    """Write scored traces anew, their rewards scaled by the claims that hold.

    Args:
        scored: What `reasonflux-prm score` wrote.
        output: The file to write.

    Raises:
        InputError: There is no record.
        UsageError, MissingExtra: As `ClaimCheck`.
    """
    rows = read_scored(scored)
    first = next(rows, None)
    if first is None:
        raise InputError(f"expected scored traces in {scored}, found none")
    with ClaimCheck(first.prm) as claims, atomic_path(output) as part, part.open("wb") as stream:
        rest = chain([first], rows)
        while chunk := list(islice(rest, _AT_ONCE)):
            stream.writelines(json_line(scored_row(row)) for row in claims.check(chunk))
