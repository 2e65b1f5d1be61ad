"""What a local policy answers: completions from the tokens that were written."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING

from reasonflux_prm.errors import PolicyError
from reasonflux_prm.policy.base import Completion, Outcome, PartlyAnswered, Request, TokenLogprob
from reasonflux_prm.policy.model_files import ModelFiles
from reasonflux_prm.policy.thinking import split_thinking

if TYPE_CHECKING:
    from reasonflux_prm.policy.sampling import Row, Seen

_CONTEXT = 8
"""Tokens of a prefix that what comes behind it is decoded with."""


class Replies:
    """Makes completions of rows.

    Args:
        files: The model's tokenizer.
    """

    def __init__(self, files: ModelFiles) -> None:
        self._files = files
        self.ends: Collection[int] = ()
        """Tokens that end a text; known once the model is loaded."""

    def completion(self, row: Row, request: Request, is_first: bool) -> Completion:
        """Return the completion that a row is; the tokens of a request's prompt count with its first."""
        tokens = row.written
        end = next((place for place, token in enumerate(tokens) if token in self.ends), None)
        whole = self._behind(row.prompt, tokens[:end]) if request.prefix else self._files.text(tokens[:end])
        cut, met = min(((place, stop) for stop in row.stop if (place := whole.find(stop)) >= 0), default=(None, ""))
        text, thinking = (whole[:cut], "") if request.raw else split_thinking(whole[:cut], request.prefix)
        return Completion(
            text,
            thinking,
            "length" if end is None and cut is None else "stop",
            logprobs=None if row.logprobs is None else self._logprobs(row.seen[:end]),
            prompt_tokens=len(row.prompt) if is_first else 0,
            completion_tokens=len(tokens),
            stopped_at=met if row.stop else None,
        )

    def _logprobs(self, seen: Sequence[Seen]) -> tuple[TokenLogprob, ...]:
        word = self._files.word
        return tuple(
            TokenLogprob(word(token), value, tuple((word(one), logprob) for one, logprob in top))
            for token, value, top in seen
        )

    def _behind(self, prompt: list[int], tokens: list[int]) -> str:
        """Return what tokens say behind a prefix: tokenizers drop the space in front of a text's first word."""
        before = self._files.text(prompt[-_CONTEXT:])
        whole = self._files.text(prompt[-_CONTEXT:] + tokens)
        return whole[len(before) :] if whole.startswith(before) else self._files.text(tokens)


def joined(outcomes: Sequence[Completion | PolicyError | None]) -> Outcome:
    """Return a request's outcome from those of its samples."""
    completions = list(takewhile(lambda one: isinstance(one, Completion), outcomes))
    if len(completions) == len(outcomes):
        return [one for one in completions if isinstance(one, Completion)]
    error = outcomes[len(completions)]
    partly = PartlyAnswered(str(error))
    partly.completions = tuple(one for one in completions if isinstance(one, Completion))
    return partly
