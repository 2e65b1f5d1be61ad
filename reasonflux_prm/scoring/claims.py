"""Claims about numbers as a PRM of their own: no model, no weights, and a reward for every step and trace.

A step's reward is the share of its decided claims that hold, the trajectory reward that of the whole trace's; what
makes no claim that can be decided gets 1, since nothing speaks against it. It is what a PRM has to beat where policies
calculate, and what `scoring.checked` scales a PRM's rewards by. This is a rule of ours, not of the paper.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Final

from reasonflux_prm.errors import InputError
from reasonflux_prm.labels.judges.rules import CLAIMS, FALSE, RulesJudge
from reasonflux_prm.records import PRMIdentity, ScoredTrace, SegmentedTrace, Status, Trace
from reasonflux_prm.scoring.aggregate import aggregate, check_choices
from reasonflux_prm.steps.split import split

NAME: Final = "claims"
"""Of the PRM that has no model, and its value of `--prm`."""
CHUNK_TRACES: Final = 256
"""Traces whose claims are checked together."""


class Shares:
    """Shares of claims that hold.

    Raises:
        MissingExtra: sympy is not installed.
    """

    def __init__(self) -> None:
        self._judge = RulesJudge()

    def identity(self) -> dict[str, Any]:
        """Return what the shares depend on."""
        return dict(self._judge.identity())

    def of(self, traces: Sequence[SegmentedTrace]) -> list[tuple[tuple[float | None, ...], float | None]]:
        """Return the share of each step, and that of the whole trace; None where no claim was decided."""
        return asyncio.run(self._all(traces))

    async def _all(self, traces: Sequence[SegmentedTrace]) -> list[tuple[tuple[float | None, ...], float | None]]:
        return list(await asyncio.gather(*map(self._one, traces)))

    async def _one(self, segmented: SegmentedTrace) -> tuple[tuple[float | None, ...], float | None]:
        terms = await self._judge.judge(segmented)
        # A step without text has neither term.
        counts = [tuple(step[name].value or 0.0 for name in (CLAIMS, FALSE)) for step in terms]
        claims, false = (math.fsum(count[which] for count in counts) for which in (0, 1))
        return tuple(_share(*count) for count in counts), _share(claims, false)

    def close(self) -> None:
        """End the judge's workers."""
        self._judge.close()


def _share(claims: float, false: float) -> float | None:
    return 1 - false / claims if claims else None


class ClaimsScorer:
    """Scores traces by their claims alone; a `scoring.run.Scorer`, see the module.

    Args:
        steps: The step rule, a name in `steps.split.RULE_NAMES`.
        aggregation: A name in `AGGREGATIONS`; None takes the mean.
        alpha: Weight of the trajectory reward in the aggregate.

    Raises:
        UsageError: A setting is out of its range.
        MissingExtra: sympy is not installed.
    """

    def __init__(self, *, steps: str = "adaptive", aggregation: str | None = None, alpha: float = 1.0) -> None:
        how = aggregation or "mean"
        check_choices(steps, how, alpha)
        self._steps, self._shares = steps, Shares()
        judge = json.dumps(self._shares.identity(), sort_keys=True).encode()
        self.identity = PRMIdentity(NAME, hashlib.sha256(judge).hexdigest()[:12], "rules", "causal", how, alpha)

    def settings_for_manifest(self) -> dict[str, Any]:
        """Return what rewards depend on besides the PRM."""
        return {"steps": self._steps, "claims": self._shares.identity()}

    def score_chunks(self, traces: Iterable[Trace]) -> Iterator[list[ScoredTrace]]:
        """Score traces, `CHUNK_TRACES` at a time."""
        rest = iter(traces)
        while chunk := list(islice(rest, CHUNK_TRACES)):
            cut = [self._cut(trace) for trace in chunk]
            good = iter(self._shares.of([one for one in cut if isinstance(one, SegmentedTrace)]))
            yield [one if isinstance(one, ScoredTrace) else self._record(one, *next(good)) for one in cut]

    def _cut(self, trace: Trace) -> SegmentedTrace | ScoredTrace:
        """Return a trace in steps, or its record where it cannot be scored."""
        try:
            segmented = split(trace, self._steps)
        except InputError as error:
            return ScoredTrace(trace, Status.FAILED, (), (), None, None, self.identity, 0, note=str(error))
        if any(segmented.text(step).strip() for step in segmented.steps):
            return segmented
        note, nothing = "neither thinking nor response holds any text", (None,) * len(segmented.steps)
        return ScoredTrace(trace, Status.NO_STEPS, segmented.steps, nothing, None, None, self.identity, 0, note=note)

    def _record(self, segmented: SegmentedTrace, steps: tuple[float | None, ...], whole: float | None) -> ScoredTrace:
        rewards = tuple(1.0 if share is None else share for share in steps)
        trajectory = 1.0 if whole is None else whole
        reward = aggregate(rewards, trajectory, self.identity.aggregation, self.identity.alpha)
        found = (segmented.trace, Status.SCORED, segmented.steps, rewards, trajectory, reward)
        return ScoredTrace(*found, self.identity, 0)
