"""How well a step follows the step before it, against steps of other problems in its place.

The paper prints

    r_t^coh = log [ exp(sim(Phi(s_(t-1)), Phi(s_t)) / tau) / sum_(s' in N) exp(sim(Phi(s_(t-1)), Phi(s')) / tau) ]

(arXiv 2506.18896) with negatives N from unrelated traces; tau, |N| and the step before the first are not given. The
denominator holds negatives only, so the value is no log-probability: it lies in [-2/tau - ln |N|, 2/tau - ln |N|],
which with tau = 0.1 swamps the other terms, and it falls by ln 2 whenever |N| doubles. Its sigmoid is what a softmax
over the negatives and the true step together gives the true step.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reasonflux_prm.errors import UsageError

Values = NDArray[np.float64]

TEMPERATURE = 0.1
NEGATIVES = 16


def coherence(true: ArrayLike, negatives: ArrayLike, temperature: float = TEMPERATURE) -> Values:
    """Return the paper's log-ratio for each step.

        r_t = sim(s_(t-1), s_t) / tau  -  log sum_(s' in N) exp(sim(s_(t-1), s') / tau)

    Args:
        true: (S,) cosines of the step before and the step.
        negatives: (S, N) cosines of the step before and each negative, N at least 1. Keep N fixed: values for
            different N are not comparable.
        temperature: tau, above 0.

    Returns:
        (S,) unbounded in name, within 2 / tau + ln N of 0; higher for a better continuation.

    Raises:
        UsageError: The temperature is not above 0, or there is no negative.
    """
    scaled = np.asarray(negatives, np.float64)
    if not (np.isfinite(temperature) and temperature > 0):
        raise UsageError(f"expected a temperature above 0 for coherence, got {temperature}; 0.1 is the default")
    if scaled.ndim != 2 or scaled.shape[1] == 0:
        raise UsageError(f"expected negatives of the shape (steps, negatives), at least one a step, got {scaled.shape}")
    scaled = scaled / temperature
    highest = scaled.max(axis=1)
    total: Values = highest + np.log(np.exp(scaled - highest[:, None]).sum(axis=1))
    return np.asarray(true, np.float64) / temperature - total


def probability(log_ratio: ArrayLike) -> Values:
    """Return the probability of the true step among it and its negatives: the bounded form of `coherence`.

        sigmoid(r_t) = exp(sim+ / tau) / (exp(sim+ / tau) + sum_N exp(sim- / tau))

    Args:
        log_ratio: What `coherence` gives, any shape; NaN stays NaN.

    Returns:
        In [0, 1], of the same shape; a step as close as each of its N negatives has 1 / (N + 1).
    """
    values = np.asarray(log_ratio, np.float64)
    # exp of what is never above 0 cannot overflow.
    small = np.exp(-np.abs(values))
    chance: Values = np.where(values >= 0, 1.0, small) / (1.0 + small)
    return chance
