"""Traces scored by a generative verifier behind a policy, as the same records that the engine gives.

There is nothing to pack and no context to fit: the policy's server does both. A chunk is as many traces as are asked
about at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from reasonflux_prm.errors import InputError, PolicyError
from reasonflux_prm.policy.base import Message, Policy, Request
from reasonflux_prm.prm.generative import GenerativePRM, GenerativeScores
from reasonflux_prm.records import PRMIdentity, ScoredTrace, SegmentedTrace, Status, Trace
from reasonflux_prm.scoring.aggregate import aggregate, check_choices
from reasonflux_prm.steps.split import split

CHUNK_TRACES = 16
"""Traces that are asked about together."""


class GenerativeScorer:
    """Scores traces with a generative verifier.

    A server that cannot be reached stops the run, which can go on later; a request that fails while the server answers
    others is noted in its trace's record.

    Args:
        policy: What serves the verifier.
        style: `genprm` or `thinkprm`; see `prm.generative`.
        samples: Critiques a step, or chains a trace; rewards are their means.
        steps: The step rule, a name in `steps.split.RULE_NAMES`.
        aggregation: A name in `AGGREGATIONS`; None takes the verifier's default.
        alpha: Weight of the trajectory reward in the aggregate.

    Raises:
        UsageError: A setting is out of its range.
    """

    def __init__(
        self,
        policy: Policy,
        style: str,
        *,
        samples: int = 1,
        steps: str = "adaptive",
        aggregation: str | None = None,
        alpha: float = 1.0,
    ) -> None:
        self._prm = GenerativePRM(policy, style, samples=samples)
        self._samples, self._steps = samples, steps
        spec = self._prm.spec
        how = aggregation or spec.aggregation
        check_choices(steps, how, alpha)
        self.identity = PRMIdentity(spec.name, spec.revision, spec.family, spec.layout, how, alpha)

    def settings_for_manifest(self) -> dict[str, Any]:
        """Return what scores depend on besides the PRM; where it is served is not part of it."""
        return {"samples": self._samples, "steps": self._steps}

    def score_chunks(self, traces: Iterable[Trace]) -> Iterator[list[ScoredTrace]]:
        """Score traces, `CHUNK_TRACES` at a time.

        Raises:
            PolicyError: The server does not answer at all.
        """
        self._knock()
        rest = iter(traces)
        while chunk := list(islice(rest, CHUNK_TRACES)):
            scored = self._score(chunk)
            if not any(record.status is Status.SCORED for record in scored):
                # Either these traces are all at fault, or the server has gone: then they must be asked about again.
                self._knock()
            yield scored

    def _knock(self) -> None:
        answer = self._prm.policy.generate([Request((Message("user", "Hello."),), max_tokens=1)])[0]
        if isinstance(answer, PolicyError):
            raise answer

    def _score(self, traces: Sequence[Trace]) -> list[ScoredTrace]:
        segmented: list[SegmentedTrace] = []
        faults: list[str | None] = []
        for trace in traces:
            try:
                segmented.append(split(trace, self._steps))
                faults.append(None)
            except InputError as error:
                segmented.append(SegmentedTrace(trace, (), self._steps))
                faults.append(str(error))
        asked = [one for one, fault in zip(segmented, faults, strict=True) if fault is None]
        given = iter(self._prm.score_many(asked))
        return [
            self._record(one, next(given)) if fault is None else self._unscored(one, Status.FAILED, fault, 0)
            for one, fault in zip(segmented, faults, strict=True)
        ]

    def _record(self, segmented: SegmentedTrace, given: GenerativeScores) -> ScoredTrace:
        if not any(segmented.text(step).strip() for step in segmented.steps):
            return self._unscored(segmented, Status.NO_STEPS, "neither thinking nor response holds any text", 0)
        identity = self.identity
        # With alpha 0 the trajectory reward has no say, also where it is the only reward there is.
        trajectory = given.trajectory_reward if identity.alpha else None
        reward = aggregate(given.step_rewards, trajectory, identity.aggregation, identity.alpha)
        if reward is None:
            return self._unscored(segmented, Status.FAILED, given.note or "no verdict", given.tokens)
        return ScoredTrace(
            trace=segmented.trace,
            status=Status.SCORED,
            steps=segmented.steps,
            step_rewards=given.step_rewards,
            trajectory_reward=given.trajectory_reward,
            reward=reward,
            prm=identity,
            tokens=given.tokens,
            note=given.note,
        )

    def _unscored(self, segmented: SegmentedTrace, status: Status, note: str, tokens: int) -> ScoredTrace:
        nothing = (None,) * len(segmented.steps)
        return ScoredTrace(
            segmented.trace, status, segmented.steps, nothing, None, None, self.identity, tokens, note=note
        )
