"""A conversation as the tokens that a model in this process reads."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from reasonflux_prm.errors import PolicyError
from reasonflux_prm.policy.base import Message

Tokenizer = Any
"""A transformers tokenizer, which has no types that a checker could read."""
_THINK = "<think>"
_TAIL = 16
"""Tokens at the end of a prompt that surely hold such a mark, if it ends with one."""


class ChatPrompt:
    """Writes conversations with a model's chat template; with none, as texts with blank lines between them.

    Control tokens come from the template alone: one that stands in a message is read as ordinary text, so no trace can
    end its own message and speak with another voice (as far as the installed transformers can tell them apart).

    Args:
        tokenizer: The model's tokenizer.
        name: The model, as errors call it.
    """

    def __init__(self, tokenizer: Tokenizer, name: str) -> None:
        self._tokenizer, self._name = tokenizer, name
        known = inspect.signature(tokenizer.apply_chat_template).parameters
        self._options = {"sanitize_control_tokens": True} if "sanitize_control_tokens" in known else {}

    def tokens(self, messages: Sequence[Message], prefix: str = "") -> list[int]:
        """Return the prompt, up to where the model's answer begins, or up to the end of what it has written already.

        Raises:
            PolicyError: The template refuses the conversation, or there is nothing in it.
        """
        turns = [{"role": message.role, "content": message.content} for message in messages]
        try:
            tokens = self._written(turns)
        except Exception as error:  # templates raise errors of their own, in jinja2's name or in Python's
            if len(turns) < 2 or turns[0]["role"] != "system":
                raise self._refused(error) from error
            # Templates without a place for a system message, such as Gemma's.
            merged = {"role": turns[1]["role"], "content": f"{turns[0]['content']}\n\n{turns[1]['content']}"}
            try:
                tokens = self._written([merged, *turns[2:]])
            except Exception as again:
                raise self._refused(again) from again
        if not tokens:
            raise PolicyError("the conversation has no text, and the model needs at least one token to begin with")
        return tokens + self._continued(tokens, prefix)

    def _continued(self, tokens: list[int], prefix: str) -> list[int]:
        """Return the tokens of a prefix behind those of the prompt."""
        if not prefix:
            return []
        # Many templates open the thinking themselves; it must not be opened twice.
        end = str(self._tokenizer.decode(tokens[-_TAIL:], skip_special_tokens=False))
        if end.rstrip().endswith(_THINK) and prefix.lstrip().startswith(_THINK):
            prefix = prefix.lstrip().removeprefix(_THINK)
            prefix = prefix.lstrip("\n") if end.endswith("\n") else prefix
        return list(self._tokenizer.encode(prefix, add_special_tokens=False, split_special_tokens=True))

    def _written(self, turns: list[dict[str, str]]) -> list[int]:
        if not self._tokenizer.chat_template:
            text = "".join(turn["content"] + "\n\n" for turn in turns)
            return list(self._tokenizer.encode(text, split_special_tokens=True))
        tokens = self._tokenizer.apply_chat_template(
            turns, add_generation_prompt=True, tokenize=True, return_dict=False, **self._options
        )
        return list(tokens)

    def _refused(self, error: Exception) -> PolicyError:
        return PolicyError(f"the conversation could not be written for {self._name}: {type(error).__name__}: {error}")
