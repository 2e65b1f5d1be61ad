"""Tokens that a request reads and writes: as the backend counts them, or estimated from the text where it does not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from reasonflux_prm.policy.base import Completion, Request

_BYTES_PER_TOKEN = 3.5
"""UTF-8 bytes; about 4 in English prose, 3 in mathematics, 3 (one character) in Chinese."""
_TOKENS_PER_MESSAGE = 4
"""What chat templates put around a message."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one request, over all its completions."""

    prompt_tokens: int
    completion_tokens: int
    estimated: bool
    """Whether either number is our estimate, because the backend gave none."""


def estimated_tokens(text: str) -> int:
    """Estimate the tokens of a text from its bytes, within about a third for most languages and tokenizers."""
    return math.ceil(len(text.encode(errors="surrogatepass")) / _BYTES_PER_TOKEN)


def estimated_prompt(request: Request) -> int:
    """Estimate the tokens that a request reads, once for all its completions."""
    messages = sum(_TOKENS_PER_MESSAGE + estimated_tokens(message.content) for message in request.messages)
    return messages + estimated_tokens(request.prefix)


def usage_of(request: Request, completions: Sequence[Completion]) -> Usage:
    """Return the tokens of completions that came for a request."""
    read = [one.prompt_tokens for one in completions]
    written = [one.completion_tokens for one in completions]
    return Usage(
        sum(count or 0 for count in read) if any(count is not None for count in read) else estimated_prompt(request),
        sum(
            estimated_tokens(one.thinking) + estimated_tokens(one.text) if count is None else count
            for one, count in zip(completions, written, strict=True)
        ),
        None in written or all(count is None for count in read),
    )
