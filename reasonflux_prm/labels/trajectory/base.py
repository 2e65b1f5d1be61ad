"""What a trajectory rater is: a trace in, the terms of its trajectory reward out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from reasonflux_prm.records import SegmentedTrace, Term

TRAJECTORY = "trajectory"
"""The term that every rater gives: in [0, 1], 1 is good. It is what formulas take."""

TrajectoryTerms = Mapping[str, Term]


class TrajectoryRater(Protocol):
    """Says how good a whole trace is."""

    @property
    def name(self) -> str:
        """The rater's name, as records and manifests show it."""

    def identity(self) -> Mapping[str, Any]:
        """Return what its ratings depend on, as JSON values: policies, prompts by hash, grader, settings."""

    async def rate(self, segmented: SegmentedTrace) -> TrajectoryTerms:
        """Return the terms of a trace, with `trajectory` among them.

        A term that cannot be had is a `Term` without value, with its reason, and never 0.

        Raises:
            PolicyStopped: no request will succeed from here on.
        """


class NoTrajectory:
    """The rater `none`: no trajectory reward is wanted."""

    name = "none"

    def identity(self) -> Mapping[str, Any]:
        """Return the rater's name."""
        return {"rater": self.name}

    async def rate(self, segmented: SegmentedTrace) -> TrajectoryTerms:
        """Return `trajectory` without value."""
        return {TRAJECTORY: Term(None, "no trajectory reward was asked for")}
