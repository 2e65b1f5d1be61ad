"""Random rollouts for the property tests of `rl`."""

from __future__ import annotations

import random

from hypothesis import strategies as st

from reasonflux_prm.rl.rollouts import Rollout

shares = st.floats(0, 1, allow_nan=False).map(lambda x: round(x, 3))


def rollouts(complete: bool = False, groups: int = 3, most: int = 12):
    """Draw up to `most` rollouts in a few groups, mixed; unless `complete`, some lack rewards."""
    # From one seed: drawing every number on its own takes seconds a test.
    return st.integers(0, 1 << 32).map(lambda seed: _batch(random.Random(seed), complete, groups, most))


def _batch(rng, complete, groups, most):
    def maybe(value):
        return value if complete or rng.random() < 0.7 else None

    found = []
    for _ in range(rng.randint(1, most)):
        tokens = rng.randint(1, 15)
        ends = sorted(rng.choices(range(tokens), k=rng.randint(int(complete), 6)))
        if ends:
            ends[-1] = tokens - 1
        found.append(
            Rollout(
                group=rng.randrange(groups),
                tokens=tokens,
                outcome=maybe(float(rng.random() < 0.5)),
                reward=maybe(round(rng.random(), 2)),
                step_rewards=tuple(maybe(round(rng.random(), 2)) for _ in ends),
                step_ends=tuple(ends),
                thinking_steps=rng.randint(0, len(ends)),
            )
        )
    return found


def by_group(items, groups):
    """Return the items of each group."""
    return [[item for item, own in zip(items, groups, strict=True) if own == group] for group in sorted(set(groups))]
