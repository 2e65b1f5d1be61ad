"""Tiny bases, labels that can be learned, and slow references that share no code with the package."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import tiny

from reasonflux_prm.labels.files import labelled_row
from reasonflux_prm.records import LabelledTrace, LabelStatus, Step, Term, Trace
from reasonflux_prm.training import TrainConfig

CONTROLS = (*tiny.CHATML, "<extra_1>")


def write_base(folder: Path, kind: str = "qwen2", special: tuple[str, ...] = CONTROLS, **shapes: Any) -> Path:
    """Write a random causal language model with three layers."""
    tokens = tiny.tokenizer("byte-bpe", special)
    model = tiny.causal(kind, tokens.get_vocab_size(), 0, **{"num_hidden_layers": 3, **shapes})
    architecture = type(model).__name__
    return tiny.write(folder, model.config, model.state_dict(), tokens, architecture=architecture)


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def _step(rng: random.Random, good: bool) -> str:
    words = ("the sum is right", "so 12 + 30 = 42") if good else ("wait, x = 3", "check this again")
    return " ".join(rng.choices(words, k=rng.randint(1, 3)))


def trl_rows(number: int, seed: int = 0) -> list[dict[str, Any]]:
    """Return rows of TRL's form, four a problem; the words of a step tell its label."""
    rng = random.Random(seed)
    rows = []
    for index in range(number):
        labels = [rng.random() < 0.6 for _ in range(rng.randint(1, 5))]
        steps = [_step(rng, label) for label in labels]
        rows.append(
            {"id": f"t{index}", "prompt": f"What is {index // 4} + 30?", "completions": steps, "labels": labels}
        )
    return rows


def labelled(number: int, seed: int = 0) -> list[LabelledTrace]:
    """Return labels with soft targets, thinking and response; some targets are missing."""
    rng = random.Random(seed)
    found = []
    for index in range(number):
        parts = {"thinking": [], "response": []}
        steps, targets = [], []
        right = rng.random() < 0.5
        for part, most in (("thinking", 4), ("response", 2)):
            for _ in range(rng.randint(1, most)):
                good = rng.random() < (0.8 if right else 0.4)
                text = _step(rng, good) + "\n\n"
                start = sum(map(len, parts[part]))
                parts[part].append(text)
                steps.append(Step(part, start, start + len(text)))
                targets.append(
                    None if rng.random() < 0.1 else round(rng.uniform(0.6, 1) if good else rng.uniform(0, 0.4), 3)
                )
        trace = Trace(
            f"l{index}",
            f"Add {index // 3} and 30.",
            "".join(parts["thinking"]),
            "".join(parts["response"]),
            correct=right,
            group=f"g{index // 3}",
        )
        found.append(
            LabelledTrace(
                trace,
                LabelStatus.LABELLED,
                tuple(steps),
                tuple({"quality": Term(value)} for value in targets),
                tuple(targets),
                {},
                None if index % 7 == 0 else round(rng.uniform(0.6, 1) if right else rng.uniform(0, 0.4), 3),
                "mean(quality)",
            )
        )
    return found


def label_rows(number: int, seed: int = 0) -> list[dict[str, Any]]:
    """Return such labels as `label` writes them."""
    return [labelled_row(label) for label in labelled(number, seed)]


def config(data: Path, output: Path, base: Path, **changes: Any) -> TrainConfig:
    """Return a configuration for a run of some seconds."""
    settings = {
        "epochs": 2.0,
        "batch_tokens": 512,
        "pack_tokens": 256,
        "dev_share": 0.25,
        "learning_rate": 3e-3,
        "trackers": ("none",),
        "log_steps": 1,
        "cache_type": "float32",
    }
    return TrainConfig(data=(str(data),), output=str(output), base=str(base), **{**settings, **changes})
