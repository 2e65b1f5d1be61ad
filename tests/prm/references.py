"""Slow, obvious scores, written from the published contracts with plain transformers models.

One trace at a time, the whole published text, hidden states of every position, then the positions that matter. Control
tokens are placed by id and everything else is encoded as plain text: that is the package's contract for a separator
that somebody typed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor
from transformers import AutoConfig, AutoModel

from reasonflux_prm.records import SegmentedTrace

QWEN_SYSTEM = r"Please reason step by step, and put your final answer within \boxed{}."


class Plain:
    """A checkpoint folder as transformers sees it, without any class of ours."""

    def __init__(self, folder: Path, prefix: str = "model.") -> None:
        self.folder = folder
        self.tensors = load_file(folder / "model.safetensors")
        self.model = AutoModel.from_config(AutoConfig.from_pretrained(folder)).eval()
        weights = {name.removeprefix(prefix): t for name, t in self.tensors.items() if name.startswith(prefix)}
        own = self.model.state_dict()
        self.model.load_state_dict({name: weights[name] for name in own}, strict=True)
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.encode_special_tokens = True
        self.bos = json.loads((folder / "tokenizer_config.json").read_text()).get("bos_token")

    def text(self, text: str) -> list[int]:
        """Ids of plain text, as `tokenizer(text, add_special_tokens=False)` gives them."""
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def control(self, token: str) -> list[int]:
        """Id of a control token."""
        return [self.tokenizer.token_to_id(token)]

    def opening(self) -> list[int]:
        """The bos token, if the checkpoint names one."""
        return self.control(self.bos) if self.bos else []

    def hidden(self, ids: Sequence[int], padding: int = 0) -> Tensor:
        """Last hidden states, (T + padding, d)."""
        mask = torch.tensor([[1] * len(ids) + [0] * padding])
        with torch.no_grad():
            output = self.model(input_ids=torch.tensor([[*ids, *[0] * padding]]), attention_mask=mask, use_cache=False)
        return output.last_hidden_state[0]

    def linear(self, name: str, x: Tensor) -> Tensor:
        """x W^T + b."""
        y = x @ self.tensors[f"{name}.weight"].T
        return y + self.tensors[f"{name}.bias"] if f"{name}.bias" in self.tensors else y


@dataclass(frozen=True)
class Input:
    """What a family reads for one trace: the opening, then what each step adds. Steps are read at their last id."""

    head: list[int]
    steps: list[list[int]]
    closing: list[int]
    """What the published text has behind the last step."""


@dataclass(frozen=True)
class Reference:
    """One family, slowly."""

    encode: Callable[[Plain, str, Sequence[str]], Input]
    read: Callable[[Plain, Tensor], Tensor]
    prefix: str = "model."

    def scores(self, folder: Path, segmented: SegmentedTrace) -> tuple[list[float], float]:
        """Rewards of the steps that hold text, and that of the released practice for a trace: all of it as one step."""
        plain = Plain(folder, self.prefix)
        steps = texts(segmented)
        parts = [part.strip() for part in (segmented.trace.thinking, segmented.trace.response)]
        whole = "\n\n".join(part for part in parts if part)
        return self.rewards(plain, segmented.trace.problem, steps), self.rewards(
            plain, segmented.trace.problem, [whole]
        )[0]

    def rewards(self, plain: Plain, problem: str, steps: Sequence[str]) -> list[float]:
        """Rewards of the steps in one reading."""
        given = self.encode(plain, problem, steps)
        ids = given.head + [token for step in given.steps for token in step] + given.closing
        reads, position = [], len(given.head)
        for step in given.steps:
            position += len(step)
            reads.append(position - 1)
        return self.read(plain, plain.hidden(ids)[reads]).tolist()

    def windowed(self, folder: Path, segmented: SegmentedTrace, limit: int, overlap: float) -> list[float]:
        """Step rewards with at most `limit` ids at once.

        Every window opens with the head. It begins with steps already read, as many as fit into `overlap` of the room,
        goes on with unread steps while they fit, and takes what room is left for earlier steps.
        """
        plain = Plain(folder, self.prefix)
        steps = texts(segmented)
        given = self.encode(plain, segmented.trace.problem, steps)
        size = [len(step) for step in given.steps]
        room = limit - len(given.head)
        rewards: list[float] = []
        while len(rewards) < len(size):
            new = len(rewards)
            begin, end = new, new
            while begin > 0 and sum(size[begin - 1 : new]) <= min(int(room * overlap), room - size[new]):
                begin -= 1
            while end < len(size) and sum(size[begin : end + 1]) <= room:
                end += 1
            while begin > 0 and sum(size[begin - 1 : end]) <= room:
                begin -= 1
            ids = given.head + [token for step in given.steps[begin:end] for token in step]
            assert len(ids) <= limit
            reads = [len(given.head) + sum(size[begin : number + 1]) - 1 for number in range(new, end)]
            rewards += self.read(plain, plain.hidden(ids)[reads]).tolist()
        return rewards


def texts(segmented: SegmentedTrace) -> list[str]:
    """The steps without surrounding blank space; one that holds nothing else is no step to a PRM."""
    return [text for step in segmented.steps if (text := segmented.text(step).strip())]


# --- families ------------------------------------------------------------------------------------------------------


def _chatml(system: str) -> Callable[[Plain, str, Sequence[str]], Input]:
    def encode(plain: Plain, problem: str, steps: Sequence[str]) -> Input:
        begin, end, line = plain.control("<|im_start|>"), plain.control("<|im_end|>"), plain.text("\n")
        separator = plain.control("<extra_0>")
        head = begin + plain.text("system\n" + system) + end + line
        head += begin + plain.text("user\n" + problem) + end + line
        head += begin + plain.text("assistant\n")
        return Input(head, [plain.text(step) + separator for step in steps], end + line)

    return encode


def _two_layers(plain: Plain, hidden: Tensor) -> Tensor:
    logits = plain.linear("score.2", torch.relu(plain.linear("score.0", hidden)))
    return torch.softmax(logits, dim=-1)[:, 1]


def _skywork(plain: Plain, problem: str, steps: Sequence[str]) -> Input:
    head = plain.opening() + plain.text(problem + "\n")
    return Input(head, [(plain.text(step) if step else []) + plain.text("\n")[-1:] for step in steps], [])


def _value(plain: Plain, hidden: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-plain.linear("v_head.summary", hidden)[:, 0]))


def _trl(plain: Plain, problem: str, steps: Sequence[str]) -> Input:
    return Input(plain.opening() + plain.text(problem), [plain.text(step) + plain.text("\n") for step in steps], [])


def _second_label(plain: Plain, hidden: Tensor) -> Tensor:
    return torch.softmax(plain.linear("score", hidden), dim=-1)[:, 1]


def _pure(plain: Plain, problem: str, steps: Sequence[str]) -> Input:
    return Input(plain.text(problem), [plain.text(step) + plain.text("\n\n") for step in steps], [])


def _difference(plain: Plain, hidden: Tensor) -> Tensor:
    both = torch.softmax(plain.linear("score", hidden), dim=-1)
    return both[:, 1] - both[:, 0]


def qwen(system: str = QWEN_SYSTEM) -> Reference:
    """Qwen2.5-Math-PRM and ReasonFlux-PRM-7B, which differ in the system message."""
    return Reference(_chatml(system), _two_layers)


SKYWORK = Reference(_skywork, _value)
TRL = Reference(_trl, _second_label)
PURE = Reference(_pure, _difference)


def scalar(folder: Path, segmented: SegmentedTrace, head: dict[str, Tensor]) -> float:
    """ReasonFlux-PRM-1.5B: raw text, padded on the right, the state at the last id that the mask covers."""
    plain = Plain(folder)
    trace = segmented.trace
    completion = "\n\n".join(part.strip() for part in (trace.thinking, trace.response) if part.strip())
    ids = plain.opening() + plain.text(trace.problem + completion)
    hidden = plain.hidden(ids, padding=5)[len(ids) - 1]
    return float(torch.sigmoid(hidden @ head["weight"][0] + head["bias"][0]))
