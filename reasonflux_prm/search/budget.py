"""What a search has taken, in tokens of the policy and of the PRM alike, and the most it may take.

Methods are compared at equal cost, so both models' tokens are counted, and the cap is on their sum. What the policy
reads is counted too, but is not part of the sum: a policy that keeps its cache reads a prefix once, and one that does
not is no reason to search less.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from reasonflux_prm.errors import UsageError
from reasonflux_prm.policy.base import Completion, Request
from reasonflux_prm.policy.usage import usage_of


@dataclass(slots=True)
class Budget:
    """The tokens of one problem's search.

    A round is not begun once the cap is reached, so a search can go over it by what its last round takes.

    Raises:
        UsageError: The cap is below 1.
    """

    cap: int | None = None
    """The most that policy and PRM may take together; None for no limit."""
    policy_tokens: int = 0
    """Tokens that the policy wrote, those of branches that were given up included."""
    prompt_tokens: int = 0
    """Tokens that the policy read, as its backend counts them; prefixes that were read again are counted again."""
    prm_tokens: int = 0
    """Tokens that the PRM read."""
    requests: int = 0
    """Requests to the policy that brought something."""
    estimated: int = 0
    """Requests whose tokens are our estimate, because the backend counts none."""

    def __post_init__(self) -> None:
        if self.cap is not None and self.cap < 1:
            raise UsageError(f"a search's cap must be at least 1 token, and is {self.cap:,}")

    @property
    def spent(self) -> int:
        """Tokens that the policy wrote and the PRM read."""
        return self.policy_tokens + self.prm_tokens

    @property
    def reached(self) -> bool:
        """Whether the cap is reached."""
        return self.cap is not None and self.spent >= self.cap

    def charge_policy(self, request: Request, completions: Sequence[Completion]) -> None:
        """Count what came of a request."""
        if not completions:
            return
        used = usage_of(request, completions)
        self.policy_tokens += used.completion_tokens
        self.prompt_tokens += used.prompt_tokens
        self.requests += 1
        self.estimated += used.estimated

    def charge_prm(self, tokens: int) -> None:
        """Count what the PRM read."""
        self.prm_tokens += tokens

    def row(self) -> dict[str, int]:
        """Return the counts, without the cap."""
        return {name: value for name, value in asdict(self).items() if name != "cap"}
