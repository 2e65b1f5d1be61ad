"""The prompts that labels are made with, as files: what a model was asked is part of what a label is.

A file is Markdown. What stands before its first `## system`, `## user` heading is for people and is not sent; each such
heading opens one message. `{{name}}` is a place to fill in. The SHA-256 of the whole file is the prompt's version: it
goes into manifests, and requests that were worded differently never share a cached completion.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import cast

from reasonflux_prm.errors import UsageError
from reasonflux_prm.policy.base import Message, Role

_HEADING = re.compile(r"^## (system|user|assistant)\n", re.MULTILINE)
_PLACE = re.compile(r"\{\{(\w+)\}\}")


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt file."""

    name: str
    version: str
    """SHA-256 of the file's text, in hex."""
    turns: tuple[tuple[Role, str], ...]
    """Role and text of each message, places not yet filled."""

    @property
    def places(self) -> frozenset[str]:
        """The names that `fill` needs."""
        return frozenset(name for _, text in self.turns for name in _PLACE.findall(text))

    def fill(self, values: Mapping[str, str]) -> tuple[Message, ...]:
        """Return the messages, every place filled in one pass: a value that looks like a place stays as it is.

        Raises:
            UsageError: `values` lacks a place of the prompt, or has one that the prompt does not know.
        """
        if self.places != values.keys():
            raise UsageError(
                f"prompt {self.name!r} has the places {', '.join(sorted(self.places)) or '(none)'}, "
                f"and got {', '.join(sorted(values)) or '(none)'}"
            )
        return tuple(
            Message(role, _PLACE.sub(lambda place: values[place[1]], text).strip()) for role, text in self.turns
        )


@cache
def load_prompt(name: str) -> Prompt:
    """Load a prompt that comes with the package, such as `judge_steps`.

    Raises:
        UsageError: there is no such prompt, or its file has no message.
    """
    path = files(__name__) / f"{name}.md"
    if not path.is_file():
        raise UsageError(f"there is no prompt {name!r}; there are {', '.join(prompt_names())}")
    return parse_prompt(name, path.read_text("utf-8"))


def prompt_names() -> tuple[str, ...]:
    """Return the names of the prompts that come with the package, sorted."""
    return tuple(
        sorted(path.name.removesuffix(".md") for path in files(__name__).iterdir() if path.name.endswith(".md"))
    )


def parse_prompt(name: str, text: str) -> Prompt:
    """Read a prompt from its file's text.

    Raises:
        UsageError: it has no message.
    """
    _, *parts = _HEADING.split(text)
    if not parts:
        raise UsageError(f"prompt {name!r} has no message; begin each with a line '## system' or '## user'")
    turns = tuple((cast(Role, role), body) for role, body in zip(parts[::2], parts[1::2], strict=True))
    return Prompt(name, hashlib.sha256(text.encode("utf-8")).hexdigest(), turns)


def prompt_versions(prompts: Sequence[Prompt]) -> dict[str, str]:
    """Return name -> version, as `identity()` of judges and raters shows it."""
    return {prompt.name: prompt.version for prompt in prompts}
