"""Tiny random PRMs in our own format, made-up traces, and a slow reference that shares no code with the package."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tiny
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModel

from reasonflux_prm.records import SegmentedTrace, Step, Trace

SEPARATOR, MARKER = "<extra_0>", "<extra_1>"
PROMPT = {
    "before_problem": "<|im_start|>user\n",
    "after_problem": "<|im_end|>\n<|im_start|>assistant\n",
    "before_thinking": "<think>\n",
    "after_thinking": "</think>\n\n",
}
_WORDS = [
    "so",
    "the",
    "sum",
    "of",
    "is",
    "then",
    "wait",
    "check",
    "this",
    "again",
    "therefore",
    "which",
    "right",
    "42",
    "12",
    "30",
    "x = 3",
    "é漢",
    "\\boxed{7}",
]


def write_native(folder: Path, *, layout: str = "causal", seed: int = 0, shapes: dict[str, Any] | None = None) -> Path:
    """Write a checkpoint with one label, random and with scores far apart."""
    tokens = tiny.tokenizer("byte-bpe", (*tiny.CHATML, MARKER))
    model = tiny.body("qwen2", tokens.get_vocab_size(), seed, **(shapes or {}))
    width = model.config.hidden_size
    tensors = {
        **tiny.prefixed(model.state_dict(), "model."),
        "score.weight": tiny.head(1, width, seed + 1, 2.0),
        "score.bias": torch.tensor([0.1]),
    }
    settings = {"separator": SEPARATOR, "marker": MARKER, "layout": layout, **PROMPT}
    return tiny.write(
        folder,
        model.config,
        tensors,
        tokens,
        architecture="Qwen2ForTokenClassification",
        extra={"prm": settings},
    )


def made_up(seed: int, thinking: int = 4, response: int = 2, longest: int = 25) -> SegmentedTrace:
    """Return a trace of random words, with that many steps of at most `longest` words in each part."""
    rng = random.Random(seed)

    def part(count: int) -> str:
        steps = (" ".join(rng.choices(_WORDS, k=rng.randint(1, longest))) for _ in range(count))
        return "\n\n".join(steps)

    problem = " ".join(rng.choices(_WORDS, k=rng.randint(3, 20)))
    return tiny.segmented(problem, part(thinking), part(response), id=f"t{seed}")


# --- the reference -------------------------------------------------------------------------------------------------


@dataclass
class Reading:
    """A trace as tokens: what every window repeats, and (tokens, step) of what windows slide over."""

    head: list[int]
    kept: list[tuple[list[int], int]]
    pieces: list[tuple[list[int], int]]


class Reference:
    """Scores a trace, or windows of it, one forward pass of transformers each."""

    def __init__(self, folder: Path, layout: str) -> None:
        config = AutoConfig.from_pretrained(folder)
        self.model = AutoModel.from_config(config).eval()
        weights = load_file(folder / "model.safetensors")
        body = {name.removeprefix("model."): t for name, t in weights.items() if name.startswith("model.")}
        self.model.load_state_dict(body)
        self.weight, self.bias = weights["score.weight"], weights["score.bias"]
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.layout = layout

    def _text(self, text: str) -> list[int]:
        self.tokenizer.encode_special_tokens = True
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def _template(self, text: str) -> list[int]:
        self.tokenizer.encode_special_tokens = False
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def reading(self, segmented: SegmentedTrace) -> Reading:
        """Lay a trace out as the docstring of `families/native.py` says."""
        head = self._template(PROMPT["before_problem"]) + self._text(segmented.trace.problem.strip())
        head += self._template(PROMPT["after_problem"])
        numbered = [(n, step) for n, step in enumerate(segmented.steps) if segmented.text(step).strip()]
        thinking = [item for item in numbered if item[1].part == "thinking"]
        response = [item for item in numbered if item[1].part == "response"]
        separator, marker = self.tokenizer.token_to_id(SEPARATOR), self.tokenizer.token_to_id(MARKER)

        def piece(item: tuple[int, Step], mark: str) -> tuple[list[int], int]:
            tokens = self._template(mark) + self._text(segmented.text(item[1]).strip())
            return [*tokens, separator], item[0]

        # The mark stands before the first step of a part; "</think>" only if there is thinking before it.
        think = [piece(item, PROMPT["before_thinking"] if n == 0 else "") for n, item in enumerate(thinking)]
        closes = thinking and self.layout == "causal"
        respond = [
            piece(item, PROMPT["after_thinking"] if n == 0 and closes else "") for n, item in enumerate(response)
        ]
        end = ([marker], -1)
        if self.layout == "causal":
            return Reading(head, [], [*think, *respond, end])
        return Reading(head, respond, [*think, end])

    def read(self, head: Sequence[int], pieces: Sequence[tuple[Sequence[int], int]]) -> dict[int, float]:
        """Return the reward at the last token of every piece, by step; -1 is the trajectory."""
        tokens, at = list(head), {}
        for piece, step in pieces:
            tokens += piece
            at[step] = len(tokens) - 1
        with torch.no_grad():
            hidden = self.model(torch.tensor([tokens])).last_hidden_state[0]
            logits = hidden @ self.weight[0] + self.bias[0]
        return {step: float(torch.sigmoid(logits[position])) for step, position in at.items()}

    def whole(self, segmented: SegmentedTrace) -> dict[int, float]:
        """Return the rewards of a trace that fits, by step."""
        reading = self.reading(segmented)
        return self.read(reading.head, reading.kept + reading.pieces)

    def windowed(self, segmented: SegmentedTrace, limit: int, overlap: float) -> dict[int, float]:
        """Return the rewards of a trace that does not fit, by step, as the docstring of `windows.fit` says."""
        reading = self.reading(segmented)
        room = limit - len(reading.head) - sum(len(tokens) for tokens, _ in reading.kept)
        pieces = [((tokens[-(room - 1) :] if step >= 0 else tokens), step) for tokens, step in reading.pieces]
        found: dict[int, float] = {}
        while len(found) < len(pieces) + len(reading.kept):
            first = next(n for n, (_, step) in enumerate(pieces) if step not in found)
            rewards = self.read(reading.head, reading.kept + pieces[slice(*_bounds(pieces, first, room, overlap))])
            found = rewards | found  # what was read before stands
        return found


def _bounds(pieces: Sequence[tuple[list[int], int]], first: int, room: int, overlap: float) -> tuple[int, int]:
    def size(start: int, stop: int) -> int:
        return sum(len(tokens) for tokens, _ in pieces[start:stop])

    # The longest past within its share that leaves room for the first unread piece; then all that fits behind; then
    # what still fits in front.
    start = min(s for s in range(first + 1) if size(s, first) <= room * overlap and size(s, first + 1) <= room)
    stop = max(s for s in range(first + 1, len(pieces) + 1) if size(start, s) <= room)
    start = min(s for s in range(start + 1) if size(s, stop) <= room)
    return start, stop


def trace_row(number: int, thinking: int = 2) -> dict[str, Any]:
    """Return a made-up record of an input file."""
    trace: Trace = made_up(number, thinking, 1, 12).trace
    return {"id": f"t{number}", "problem": trace.problem, "thinking": trace.thinking, "response": trace.response}
