"""Where the PRM decides which rollouts count, and the outcome what they count for.

| function | idea | source |
|---|---|---|
| `consistent` | learn only from rollouts on which verifier and PRM agree | PROF, arXiv:2509.03403 |
| `when_degenerate` | the PRM speaks where the verifier says the same of a whole group | VeriGate, arXiv:2605.30451 |
| `among_right` | the PRM orders the right rollouts, and says nothing of the wrong | PAPO, arXiv:2603.26535 |

Each follows the idea as its abstract or README gives it; where the source leaves a choice, the docstring says what is
done here.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from reasonflux_prm.errors import UsageError
from reasonflux_prm.rl.normalise import EPS, Baseline, Scale, group_advantages
from reasonflux_prm.rl.rollouts import Rewards, is_right, members
from reasonflux_prm.rl.scalar import check_share


def consistent(
    outcomes: Rewards, rewards: Rewards, groups: Sequence[Hashable], keep: float = 0.5, *, balance: bool = True
) -> list[bool]:
    """Return which rollouts to keep: right ones with high rewards, wrong ones with low rewards.

    In each group, right rollouts are ranked by falling and wrong ones by rising reward, and the last of a ranking go
    first, until a share `keep` of the scored rollouts is left (rounded, at least one). With `balance` each is taken
    from whichever side is larger (the wrong one on a tie), as PROF does to bring the two closer; else both sides shrink
    in proportion. A group whose rollouts are all right or all wrong is kept whole: it teaches nothing, and a filter
    cannot change that.

    Args:
        outcomes: (B,); above 0 is right.
        rewards: (B,) what the PRM says, as PROF the mean of the step rewards.
        groups: (B,).
        keep: In [0, 1].
        balance: Whether to even out right and wrong.

    Returns:
        (B,); False for an unscored rollout.
    """
    check_share("keep", keep)
    _check_lengths(outcomes, rewards, groups)
    kept = [False] * len(outcomes)
    for group in members(groups):
        scored = [(i, reward) for i in group if (reward := rewards[i]) is not None and outcomes[i] is not None]
        right = [i for i, _ in sorted(scored, key=lambda pair: -pair[1]) if is_right(outcomes[i])]
        wrong = [i for i, _ in sorted(scored, key=lambda pair: pair[1]) if not is_right(outcomes[i])]
        if right and wrong:
            total = max(1, round(keep * len(scored)))
            few = _few_right(len(right), len(wrong), total, balance)
            right, wrong = right[:few], wrong[: total - few]
        for i in (*right, *wrong):
            kept[i] = True
    return kept


def _few_right(right: int, wrong: int, total: int, balance: bool) -> int:
    """Return how many right rollouts are among the `total` that are kept."""
    few = total - total // 2 if balance else round(total * right / (right + wrong))
    return min(right, max(few, total - wrong))


def filtered(outcomes: Rewards, keep: Sequence[bool]) -> list[float | None]:
    """Return the outcomes, None where a rollout is not kept: it leaves its group's statistics and gets advantage 0."""
    return [outcome if kept else None for outcome, kept in zip(outcomes, keep, strict=True)]


def when_degenerate(
    outcomes: Rewards,
    rewards: Rewards,
    groups: Sequence[Hashable],
    *,
    weight: float = 1.0,
    baseline: Baseline = "mean",
    scale: Scale = "group",
    eps: float = EPS,
) -> list[float]:
    """Return advantages of the outcomes; in groups whose outcomes are all equal, `weight` times those of the rewards.

    A group that is all wrong then learns from the PRM alone, so wrong rollouts can gain here; `among_right` and
    `scalar.gated` never let them.

    Args:
        outcomes: (B,).
        rewards: (B,).
        groups: (B,).
        weight: Of the rewards' advantages, at least 0.
        baseline: As in `normalise`.
        scale: As in `normalise`; with `batch`, outcomes and rewards each have the deviation of their own.
        eps: As in `normalise`.
    """
    _check_lengths(outcomes, rewards, groups)
    _check_weight(weight)
    spoken: set[int] = set()
    for group in members(groups):
        if len({outcomes[i] for i in group if outcomes[i] is not None}) <= 1:
            spoken.update(group)
    verdicts = [None if i in spoken else outcome for i, outcome in enumerate(outcomes)]
    # Without an outcome the rollout is unscored, whatever the PRM says.
    words = [reward if i in spoken and outcomes[i] is not None else None for i, reward in enumerate(rewards)]
    of_outcomes = group_advantages(verdicts, groups, baseline=baseline, scale=scale, eps=eps)
    of_rewards = group_advantages(words, groups, baseline=baseline, scale=scale, eps=eps)
    return [weight * of_rewards[i] if i in spoken else of_outcomes[i] for i in range(len(outcomes))]


def among_right(
    outcomes: Rewards,
    rewards: Rewards,
    groups: Sequence[Hashable],
    *,
    weight: float = 1.0,
    baseline: Baseline = "mean",
    scale: Scale = "group",
    eps: float = EPS,
) -> list[float]:
    """Return advantages of the outcomes, and for right rollouts also `weight` times their reward's among the right.

    Wrong rollouts keep the outcome's advantage. A right one may lose more than its outcome earned it, if its reward is
    far below that of the other right ones; a `weight` well below 1 prevents that.

    Args:
        outcomes: (B,); above 0 is right.
        rewards: (B,).
        groups: (B,).
        weight: Of the process advantage, at least 0.
        baseline: As in `normalise`.
        scale: As in `normalise`.
        eps: As in `normalise`.
    """
    _check_lengths(outcomes, rewards, groups)
    _check_weight(weight)
    right = [reward if is_right(outcome) else None for outcome, reward in zip(outcomes, rewards, strict=True)]
    verdicts = group_advantages(outcomes, groups, baseline=baseline, scale=scale, eps=eps)
    process = group_advantages(right, groups, baseline=baseline, scale=scale, eps=eps)
    return [verdict + weight * extra for verdict, extra in zip(verdicts, process, strict=True)]


def _check_lengths(outcomes: Rewards, rewards: Rewards, groups: Sequence[Hashable]) -> None:
    if not len(outcomes) == len(rewards) == len(groups):
        raise UsageError(
            f"expected as many outcomes as rewards and groups, got {len(outcomes)}, {len(rewards)} and {len(groups)}"
        )


def _check_weight(weight: float) -> None:
    if not weight >= 0:
        raise UsageError(f"weight must be at least 0, got {weight:g}")
