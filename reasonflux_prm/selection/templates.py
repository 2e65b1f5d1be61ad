"""How students of each family write thinking and response.

What each family's chat template makes of it in training is told in docs/selection.md, with the sources, and held to the
templates that TRL ships by `tests/selection/test_selection_templates.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from reasonflux_prm.errors import UsageError

_CHATML = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
_TAGS = ("<think>", "</think>")


@dataclass(frozen=True, slots=True)
class Template:
    """How one family writes a trace."""

    name: str
    text: str
    """The assistant's turn, with `{thinking}` and `{response}`."""
    forbidden: tuple[str, ...] = ()
    """Marks and control tokens: a text that holds one would be cut elsewhere."""
    field: str | None = None
    """The key of a message that holds the thinking; None if it stands in the content."""
    prompt: str | None = None
    """The prompt as plain text, with `{problem}`, where the chat template cannot carry thinking in training; None if it
    can. The tokenizer puts its opening token in front, and trainers the ending one behind."""
    opening: str = ""
    """What the prompt as plain text has of the assistant's turn already."""

    def turn(self, thinking: str, response: str) -> str:
        """Return the assistant's turn as one text."""
        # Not str.format: the texts hold braces.
        parts = {"{thinking}": thinking.strip(), "{response}": response.strip()}
        before, _, rest = self.text.partition("{thinking}") if "{thinking}" in self.text else ("", "", self.text)
        middle, _, after = rest.partition("{response}")
        thought = parts["{thinking}"] if "{thinking}" in self.text else ""
        return f"{before}{thought}{middle}{parts['{response}']}{after}"

    def mark_in(self, *texts: str) -> str | None:
        """Return the first mark or control token of this template that a text holds."""
        return next((mark for mark in self.forbidden for text in texts if mark in text), None)


_ALL: Final = (
    Template("think", "<think>\n{thinking}\n</think>\n\n{response}", (*_TAGS, *_CHATML)),
    Template("qwen3", "<think>\n{thinking}\n</think>\n\n{response}", (*_TAGS, *_CHATML)),
    Template("qwen3.8", "<think>\n{thinking}\n</think>\n\n{response}", (*_TAGS, *_CHATML), field="reasoning_content"),
    Template(
        "deepseek-r1",
        "<think>\n{thinking}\n</think>\n\n{response}",
        (*_TAGS, "<｜User｜>", "<｜Assistant｜>", "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),
        prompt="<｜User｜>{problem}<｜Assistant｜><think>\n",
        opening="<think>\n",
    ),
    Template("smollm3", "<think>\n{thinking}\n</think>\n{response}", (*_TAGS, *_CHATML)),
    Template(
        "gpt-oss",
        "<|channel|>analysis<|message|>{thinking}<|end|><|start|>assistant<|channel|>final<|message|>{response}",
        ("<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|return|>", "<|call|>"),
        field="thinking",
    ),
    Template("glm4.5", "<think>{thinking}</think>\n{response}", (*_TAGS, "<|user|>", "<|assistant|>", "<|endoftext|>")),
    Template(
        "openthoughts",
        "<|begin_of_thought|>\n\n{thinking}\n\n<|end_of_thought|>\n\n"
        "<|begin_of_solution|>\n\n{response}\n\n<|end_of_solution|>",
        (
            "<|begin_of_thought|>",
            "<|end_of_thought|>",
            "<|begin_of_solution|>",
            "<|end_of_solution|>",
            *_CHATML,
        ),
    ),
    Template("none", "{thinking}\n\n{response}", _CHATML),
    Template("response", "{response}", _CHATML),
)
TEMPLATES: Final[Mapping[str, Template]] = MappingProxyType({template.name: template for template in _ALL})


def find_template(name: str) -> Template:
    """Return the template of a name.

    Raises:
        UsageError: There is none.
    """
    if name not in TEMPLATES:
        raise UsageError(
            f"unknown template {name!r}; there are {', '.join(TEMPLATES)}. For a student whose chat template leaves "
            "the text of a turn as it is, take think or none"
        )
    return TEMPLATES[name]
