"""A PRM whose rewards are scaled by what can be checked: the share of a step's claims about numbers that hold.

A language model, and the more so a small one, is a poor calculator; `labels.claims` is an exact one, and says nothing
of what it cannot decide. So each looks at what it is good at. A step's reward is scaled by the share of its decided
claims that hold, the trajectory reward by that of the whole trace's; where no claim was decided, rewards stay as they
are. This is a rule of ours, not of the paper.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from reasonflux_prm.errors import InputError, UsageError
from reasonflux_prm.labels.judges.rules import CLAIMS, FALSE, RulesJudge
from reasonflux_prm.records import PRMIdentity, ScoredTrace, SegmentedTrace, Status, Trace
from reasonflux_prm.scoring.aggregate import aggregate
from reasonflux_prm.scoring.run import Scorer
from reasonflux_prm.traces.write import atomic_path, json_line, read_scored, scored_row

SUFFIX: Final = "+claims"
"""Ends the name of a PRM whose rewards are scaled."""
_AT_ONCE: Final = 512


class ClaimCheck:
    """Scales rewards by the claims that hold; see the module.

    Args:
        low: The lowest reward that the PRM gives: what a step gets of whose claims none holds.

    Raises:
        UsageError: `low` is not finite, so that there is nothing to scale to.
        MissingExtra: sympy is not installed.
    """

    def __init__(self, low: float = 0.0) -> None:
        if not math.isfinite(low):
            raise UsageError(
                "claims are checked where rewards have a low end to be scaled to, and those of this PRM have none; "
                "leave out --check-claims"
            )
        self._low, self._judge = low, RulesJudge()

    def identity(self) -> dict[str, Any]:
        """Return what the scaling depends on."""
        return dict(self._judge.identity())

    def check(self, scored: Sequence[ScoredTrace]) -> list[ScoredTrace]:
        """Return scored traces with scaled rewards; those that have none stay without.

        Raises:
            UsageError: A reward is below the lowest one.
        """
        return asyncio.run(self._check_all(scored))

    async def _check_all(self, scored: Sequence[ScoredTrace]) -> list[ScoredTrace]:
        return list(await asyncio.gather(*map(self._check, scored)))

    async def _check(self, scored: ScoredTrace) -> ScoredTrace:
        prm = checked_identity(scored.prm)
        if scored.status is not Status.SCORED:
            return replace(scored, prm=prm)
        terms = await self._judge.judge(SegmentedTrace(scored.trace, scored.steps, "scored"))
        counts = [(step[CLAIMS].value or 0.0, step[FALSE].value or 0.0) for step in terms]
        claims, false = (math.fsum(count[which] for count in counts) for which in (0, 1))
        try:
            rewards = tuple(self._scaled(own, *count) for own, count in zip(scored.step_rewards, counts, strict=True))
            trajectory = self._scaled(scored.trajectory_reward, claims, false)
        except UsageError as error:
            raise UsageError(f"{scored.trace.id!r}: {error}") from None
        reward = aggregate(rewards, trajectory, prm.aggregation, prm.alpha)
        return replace(scored, step_rewards=rewards, trajectory_reward=trajectory, reward=reward, prm=prm)

    def _scaled(self, reward: float | None, claims: float, false: float) -> float | None:
        if reward is None or not claims:
            return reward
        if reward < self._low:
            raise UsageError(
                f"a reward of {reward:g} is below {self._low:g}, the lowest that this PRM is taken to give; score with "
                "--check-claims instead of checking what was scored before"
            )
        return self._low + (reward - self._low) * (1 - false / claims)

    def close(self) -> None:
        """End the judge's workers."""
        self._judge.close()

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

    Args:
        scorer: Whose rewards these are.
        claims: Scales them.
    """

    def __init__(self, scorer: Scorer, claims: ClaimCheck) -> None:
        self.scorer, self._claims = scorer, claims

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
    """Write scored traces anew, their rewards, which are 0 or more, scaled by the claims that hold.

    Args:
        scored: What `reasonflux-prm score` wrote.
        output: The file to write.

    Raises:
        InputError: There is no record.
        UsageError: Claims were checked already, or a reward is below 0.
    """
    rows = read_scored(scored)
    first = next(rows, None)
    if first is None:
        raise InputError(f"expected scored traces in {scored}, found none")
    if first.prm.name.endswith(SUFFIX):
        raise UsageError(f"the claims of {scored} are checked already; leave out --check-claims")
    with ClaimCheck() as claims, atomic_path(output) as part, part.open("wb") as stream:
        rest = chain([first], rows)
        while chunk := list(islice(rest, _AT_ONCE)):
            stream.writelines(json_line(scored_row(row)) for row in claims.check(chunk))
