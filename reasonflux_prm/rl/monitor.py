"""Signs that training on rewards goes wrong, read from the rollouts alone.

PRM rewards can be gamed: training lifts them above 0.9 while accuracy falls below 4% (arXiv:2603.06621), or collapses
within a few hundred steps (arXiv:2608.03119 on ReasonFlux-PRM). Neither is seen in the mean reward. A monitor keeps a
few numbers a batch and compares the last batches with the first.

| alarm | condition |
|---|---|
| `gamed` | the PRM's mean reward rose beyond chance and accuracy fell beyond chance |
| `disagree` | within groups, the PRM's reward ranks right above wrong less often than `least_auc` |
| `longer`, `shorter` | mean tokens left [1 / `length_ratio`, `length_ratio`] times those of the first batches |
| `repetitive` | the mean share of repeated word 4-grams exceeds `most_repeated`, and the first batches' |
| `flat` | more than `most_flat` of the groups have outcomes, and PRM rewards, without spread: nothing to learn from |
| `unscored` | more than `most_unscored` of the rollouts are unscored |

"Beyond chance" is a difference of more than `z` standard errors, which are taken between batches.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from reasonflux_prm.errors import UsageError
from reasonflux_prm.rl.normalise import Moments, known
from reasonflux_prm.rl.rollouts import Rollout, is_right, members

_FLAT_STD = 1e-6


@dataclass(frozen=True, slots=True)
class MonitorSettings:
    """When to raise an alarm; see the head of this module."""

    window: int = 10
    """Batches that are averaged, at the start and at the end; nothing is compared before twice as many."""
    z: float = 3.0
    least_auc: float = 0.5
    length_ratio: float = 2.0
    most_repeated: float = 0.5
    most_flat: float = 0.8
    most_unscored: float = 0.2

    def __post_init__(self) -> None:
        if self.window < 2 or not self.z > 0 or not self.length_ratio > 1:
            raise UsageError(
                f"expected a window of at least 2 batches, z above 0 and length_ratio above 1, got {self.window}, "
                f"{self.z:g} and {self.length_ratio:g}"
            )


@dataclass(frozen=True, slots=True)
class BatchSigns:
    """The numbers of one batch; None where there is nothing to tell it by."""

    reward: float | None
    """Mean r_hat."""
    accuracy: float | None
    """Share of right ones among rollouts with an outcome."""
    auc: float | None
    """Within groups: how often a right rollout's r_hat is above a wrong one's; ties count half."""
    tokens: float
    steps: float
    group_std: float | None
    """Mean over groups of the deviation of r_hat."""
    flat: float | None
    """Share of groups without spread in outcomes and in r_hat; of groups with two scored rollouts or more."""
    unscored: float
    repeated: float | None

    def metrics(self) -> dict[str, float]:
        """Return the numbers that there are, by name."""
        return {name: value for name in self.__slots__ if (value := getattr(self, name)) is not None}


@dataclass(frozen=True, slots=True)
class Alarm:
    """One sign that training goes wrong."""

    kind: str
    message: str


@dataclass(slots=True)
class Monitor:
    """Watches the batches of one training run.

    An alarm is given when its condition begins to hold, and again only after it has ceased to.
    """

    settings: MonitorSettings = field(default_factory=MonitorSettings)
    first: list[BatchSigns] = field(default_factory=list)
    last: deque[BatchSigns] = field(default_factory=deque)
    batches: int = 0
    standing: set[str] = field(default_factory=set)
    """Alarms whose condition holds."""

    def update(self, rollouts: Sequence[Rollout], texts: Sequence[str] = ()) -> tuple[BatchSigns, list[Alarm]]:
        """Take in a batch; return its numbers, and the alarms that begin with it.

        Args:
            rollouts: All rollouts of the batch, of whole groups.
            texts: Their completions, for repetition; none leaves that sign out.
        """
        signs = batch_signs(rollouts, texts)
        return signs, self.add(signs)

    def add(self, signs: BatchSigns) -> list[Alarm]:
        """Take in the numbers of a batch, as a log has them; return the alarms that begin with it."""
        self.batches += 1
        window = self.settings.window
        if len(self.first) < window:
            self.first.append(signs)
        self.last.append(signs)
        if len(self.last) > window:
            self.last.popleft()
        alarms = _alarms(self.first, list(self.last), self.settings) if self.batches >= 2 * window else []
        begun = [alarm for alarm in alarms if alarm.kind not in self.standing]
        self.standing = {alarm.kind for alarm in alarms}
        return begun


def batch_signs(rollouts: Sequence[Rollout], texts: Sequence[str] = ()) -> BatchSigns:
    """Return the numbers of one batch."""
    if not rollouts:
        raise UsageError("a batch needs at least one rollout, got none")
    outcomes = known(rollout.outcome for rollout in rollouts)
    groups = [[rollouts[i] for i in group] for group in members(rollout.group for rollout in rollouts)]
    pairs = [_wins(group) for group in groups]
    contests = sum(count for _, count in pairs)
    spreads = [(_std(r.reward for r in group), _std(r.outcome for r in group)) for group in groups]
    stds = known(reward for reward, _ in spreads)
    told = [spread for spread in spreads if spread != (None, None)]
    flat = [all(std is None or std < _FLAT_STD for std in spread) for spread in told]
    return BatchSigns(
        reward=_mean(known(rollout.reward for rollout in rollouts)),
        accuracy=_mean([float(is_right(outcome)) for outcome in outcomes]),
        auc=sum(wins for wins, _ in pairs) / contests if contests else None,
        tokens=sum(rollout.tokens for rollout in rollouts) / len(rollouts),
        steps=sum(len(rollout.step_rewards) for rollout in rollouts) / len(rollouts),
        group_std=_mean(stds),
        flat=_mean([float(value) for value in flat]),
        unscored=sum(_is_unscored(rollout) for rollout in rollouts) / len(rollouts),
        repeated=_mean([repeated_share(text) for text in texts]),
    )


def repeated_share(text: str, n: int = 4) -> float:
    """Return the share of a text's word n-grams that stood before in it, in [0, 1]; 0 of a text with fewer words."""
    words = text.split()
    grams = Counter(zip(*(words[k:] for k in range(n)), strict=False))
    total = sum(grams.values())
    return 1 - len(grams) / total if total else 0.0


def _is_unscored(rollout: Rollout) -> bool:
    return rollout.note is not None or (rollout.reward is None and rollout.outcome is None)


def _wins(group: Sequence[Rollout]) -> tuple[float, int]:
    scored = [(r.reward, is_right(r.outcome)) for r in group if r.reward is not None and r.outcome is not None]
    right = [reward for reward, verdict in scored if verdict]
    wrong = [reward for reward, verdict in scored if not verdict]
    return sum((a > b) + (a == b) / 2 for a in right for b in wrong), len(right) * len(wrong)


def _alarms(first: Sequence[BatchSigns], last: Sequence[BatchSigns], s: MonitorSettings) -> list[Alarm]:
    alarms: list[Alarm] = []
    reward, accuracy = (_change(first, last, name) for name in ("reward", "accuracy"))
    if reward and accuracy and reward[2] > s.z and accuracy[2] < -s.z:
        alarms.append(
            Alarm(
                "gamed",
                f"the PRM's mean reward rose from {reward[0]:.3f} to {reward[1]:.3f} while accuracy fell from "
                f"{accuracy[0]:.3f} to {accuracy[1]:.3f}: the policy games the PRM; lower its share, or gate it",
            )
        )
    auc = _mean(known(signs.auc for signs in last))
    if auc is not None and auc < s.least_auc:
        alarms.append(
            Alarm(
                "disagree",
                f"within groups the PRM puts right above wrong in {auc:.3f} of the pairs only: its reward works "
                "against the verifier; lower its share",
            )
        )
    before, now = (sum(signs.tokens for signs in batches) / len(batches) for batches in (first, last))
    if before > 0 and not 1 / s.length_ratio <= now / before <= s.length_ratio:
        kind = "longer" if now > before else "shorter"
        advice = (
            "another credit, a step cost or the overlong penalty" if now > before else "the rewards of short traces"
        )
        alarms.append(Alarm(kind, f"mean tokens went from {before:.0f} to {now:.0f}; look at {advice}"))
    repeated, repeated_first = (_mean(known(b.repeated for b in batches)) for batches in (last, first))
    if repeated is not None and repeated > max(s.most_repeated, repeated_first or 0.0):
        alarms.append(Alarm("repetitive", f"{repeated:.0%} of the word 4-grams repeat an earlier one of their text"))
    flat = _mean(known(signs.flat for signs in last))
    if flat is not None and flat > s.most_flat:
        alarms.append(
            Alarm("flat", f"in {flat:.0%} of the groups all rollouts have the same rewards: nothing to learn from them")
        )
    unscored = sum(signs.unscored for signs in last) / len(last)
    if unscored > s.most_unscored:
        alarms.append(
            Alarm("unscored", f"{unscored:.0%} of the rollouts are unscored and teach nothing; see the notes")
        )
    return alarms


def _change(first: Sequence[BatchSigns], last: Sequence[BatchSigns], name: str) -> tuple[float, float, float] | None:
    """Return (before, now, difference in standard errors) of one number; None if there is too little of it."""
    one, other = (Moments.of(known(getattr(signs, name) for signs in batches)) for batches in (first, last))
    if one.count < 2 or other.count < 2:
        return None
    error = math.sqrt(one.std**2 / one.count + other.std**2 / other.count)
    difference = other.mean - one.mean
    # Batches that are all alike leave no doubt about any difference.
    return (
        one.mean,
        other.mean,
        difference / error if error > 0 else math.copysign(math.inf, difference) * bool(difference),
    )


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _std(values: Iterable[float | None]) -> float | None:
    numbers = known(values)
    return Moments.of(numbers).std if len(numbers) > 1 else None
