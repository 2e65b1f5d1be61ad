"""A penalty for completions that run into the limit of tokens; guards against many steps are in `dense.process`."""

from __future__ import annotations

from collections.abc import Sequence

from reasonflux_prm.errors import UsageError


def overlong(tokens: Sequence[int], limit: int, buffer: int) -> list[float]:
    """Return the soft overlong punishment of every completion, in [-1, 0] (DAPO, arXiv:2503.14476, eq. 13).

        0                               up to limit - buffer tokens
        (limit - buffer - T) / buffer   in the buffer
        -1                              beyond the limit

    It is added to the outcome. It says nothing of how a completion spends the tokens that it is free to use.

    Args:
        tokens: (B,) T of each completion.
        limit: Tokens at which the whole penalty is due.
        buffer: Tokens before the limit in which it grows; at least 1 and at most `limit`.

    Raises:
        UsageError: The buffer does not fit in the limit.
    """
    if not 1 <= buffer <= limit:
        raise UsageError(f"the buffer must have between 1 token and the limit's {limit}, got {buffer}")
    return [max(-1.0, min(0.0, (limit - buffer - count) / buffer)) for count in tokens]
