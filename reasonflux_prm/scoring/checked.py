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
from typing import Any, Final

from reasonflux_prm.errors import UsageError
from reasonflux_prm.labels.judges.rules import CLAIMS, FALSE, RulesJudge
from reasonflux_prm.records import PRMIdentity, ScoredTrace, SegmentedTrace, Status, Trace
from reasonflux_prm.scoring.aggregate import aggregate
from reasonflux_prm.scoring.run import Scorer

SUFFIX: Final = "+claims"
"""Ends the name of a PRM whose rewards are scaled."""


class CheckedScorer:
    """Scales the rewards of another scorer; see the module.

    Args:
        scorer: Whose rewards these are.
        low: The lowest reward that it gives: what a step gets of whose claims none holds.
        judge: Checks the claims, and is closed with this scorer; default the rules judge as it is.

    Raises:
        UsageError: `low` is not finite, so that there is nothing to scale to.
        MissingExtra: sympy is not installed.
    """

    def __init__(self, scorer: Scorer, low: float, judge: RulesJudge | None = None) -> None:
        if not math.isfinite(low):
            raise UsageError(
                f"the rewards of {scorer.identity.name} have no lower end to be scaled to; leave out --check-claims"
            )
        self.scorer, self._low = scorer, low
        self._judge = judge or RulesJudge()

    @property
    def identity(self) -> PRMIdentity:
        """The PRM, by a name that says that claims are checked."""
        own = self.scorer.identity
        return replace(own, name=own.name + SUFFIX)

    @property
    def prm(self) -> Any:
        """The PRM of the other scorer; None if that is no checkpoint."""
        return getattr(self.scorer, "prm", None)

    def settings_for_manifest(self) -> dict[str, Any]:
        """Return what the records depend on besides the PRM."""
        return {**self.scorer.settings_for_manifest(), "claims": dict(self._judge.identity())}

    def score_chunks(self, traces: Iterable[Trace]) -> Iterator[list[ScoredTrace]]:
        """Score traces chunk by chunk, and scale the rewards of each chunk."""
        for chunk in self.scorer.score_chunks(traces):
            yield self.check(chunk)

    def check(self, scored: Sequence[ScoredTrace]) -> list[ScoredTrace]:
        """Return scored traces with scaled rewards; those that have none stay as they are."""
        return asyncio.run(self._check_all(scored))

    async def _check_all(self, scored: Sequence[ScoredTrace]) -> list[ScoredTrace]:
        return list(await asyncio.gather(*map(self._check, scored)))

    async def _check(self, scored: ScoredTrace) -> ScoredTrace:
        prm = replace(scored.prm, name=scored.prm.name + SUFFIX)
        if scored.status is not Status.SCORED:
            return replace(scored, prm=prm)
        terms = await self._judge.judge(SegmentedTrace(scored.trace, scored.steps, "scored"))
        counts = [(step[CLAIMS].value or 0.0, step[FALSE].value or 0.0) for step in terms]
        rewards = tuple(self._scaled(own, *count) for own, count in zip(scored.step_rewards, counts, strict=True))
        claims, false = (math.fsum(count[which] for count in counts) for which in (0, 1))
        trajectory = self._scaled(scored.trajectory_reward, claims, false)
        reward = aggregate(rewards, trajectory, prm.aggregation, prm.alpha)
        return replace(scored, step_rewards=rewards, trajectory_reward=trajectory, reward=reward, prm=prm)

    def _scaled(self, reward: float | None, claims: float, false: float) -> float | None:
        if reward is None or not claims:
            return reward
        return self._low + (reward - self._low) * (1 - false / claims)

    def close(self) -> None:
        """End the judge's workers."""
        self._judge.close()
