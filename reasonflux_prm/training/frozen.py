"""Training the top layers over cached activations of the layers below: the way to train on a CPU.

The lower layers do not change, so what they make of every window is computed once, written to disk, and read back in
every epoch. The file's name holds a digest of all that it depends on; a build that was killed goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from torch import Tensor, nn

from reasonflux_prm.errors import OutputError, UsageError
from reasonflux_prm.traces.write import atomic_path, writing
from reasonflux_prm.training.batches import collate
from reasonflux_prm.training.examples import Example
from reasonflux_prm.training.model import Base

_PACKS_A_FLUSH = 16


@dataclass(frozen=True)
class Activations:
    """What the lower layers made of every window."""

    states: NDArray[Any]
    """(T of all windows, d), mapped from the file."""
    starts: tuple[int, ...]
    """Where each window starts."""

    def of(self, numbers: Sequence[int], lengths: Sequence[int]) -> Tensor:
        """Return the states of some windows end to end, (T, d) float32."""
        rows = [
            self.states[self.starts[n] : self.starts[n] + length] for n, length in zip(numbers, lengths, strict=True)
        ]
        return torch.from_numpy(np.concatenate(rows).astype(np.float32))


def check_layers(top: int, layers: int) -> None:
    """Check that there are so many layers.

    Raises:
        UsageError: There are not.
    """
    if top > layers:
        raise UsageError(f"--train-layers {top} is more than the base's {layers} layers; use --method full")


def without_lower(model: Any, top: int) -> Any:
    """Take off all but the top layers; the model then takes the lower ones' output as `inputs_embeds`."""
    layers = list(model.model.layers)
    check_layers(top, len(layers))
    model.model.layers = nn.ModuleList(layers[len(layers) - top :])
    model.model.embed_tokens = nn.Identity()  # no parameters: it is neither trained nor saved
    kinds = _kinds(model)
    _say_layers(model, top, None if kinds is None else kinds[len(kinds) - top :])
    return model


def _kinds(model: Any) -> list[str] | None:
    """Return what the configuration says of each layer; None where it says nothing."""
    kinds = getattr(model.config, "layer_types", None)
    return None if kinds is None else list(kinds)


def _say_layers(model: Any, number: int, kinds: list[str] | None) -> None:
    model.config.num_hidden_layers = number
    if kinds is not None:
        model.config.layer_types = kinds


@dataclass(frozen=True, slots=True)
class Below:
    """Which activations."""

    base: Base
    """What the model was loaded from."""
    top: int
    """So many layers are left out."""
    dtype: str
    """Of the file: `float16` or `float32`."""


Tell = Callable[[int, int, int], None]
"""Told of the windows done, of how many there are, and of the tokens computed so far."""


def cached(
    whole: Any, below: Below, examples: Sequence[Example], folder: Path, pack_tokens: int, tell: Tell
) -> Activations:
    """Return the activations below the top layers, computing those that are not on the disk yet.

    Args:
        whole: The whole model.
        below: Which activations.
        examples: The windows.
        folder: Where the file is, or is to be.
        pack_tokens: Tokens of one forward pass.
        tell: Told of each pack.

    Raises:
        UsageError: There are not so many layers.
        OutputError: The file cannot be written, or a value is too large for the type.
    """
    check_layers(below.top, len(whole.model.layers))
    starts = tuple(accumulate(map(len, examples), initial=0))
    dtype, base = below.dtype, below.base
    digest = hashlib.sha256(f"{base.revision} {below.top} {dtype} {base.added}".encode())
    for example in examples:
        digest.update(np.int64(len(example)).tobytes() + example.tokens.tobytes())
    path = folder / f"activations-{digest.hexdigest()[:16]}.{dtype}"
    width = whole.config.hidden_size
    with writing(path):
        folder.mkdir(parents=True, exist_ok=True)
    # Of several processes the first to come computes, and the others wait here.
    with FileLock(f"{path}.lock"), writing(path):
        done = _done(path)
        if done < len(examples):
            mode = "r+" if path.exists() and done else "w+"
            file = np.memmap(path, dtype=dtype, mode=mode, shape=(starts[-1], width))  # type: ignore[call-overload]
            with _Cut(whole, below.top):
                _compute(whole, examples, file, path, list(_runs(examples, done, pack_tokens)), tell)
    return Activations(np.memmap(path, dtype=dtype, mode="r", shape=(starts[-1], width)), starts)


def _compute(
    whole: Any,
    examples: Sequence[Example],
    file: NDArray[Any],
    path: Path,
    runs: Sequence[tuple[int, int]],
    tell: Tell,
) -> None:
    device = next(whole.parameters()).device
    start = sum(map(len, examples[: runs[0][0]]))
    computed = 0
    for turn, (first, last) in enumerate(runs):
        batch = collate([(n, examples[n], True) for n in range(first, last)])
        with torch.inference_mode():
            states = whole.model(
                input_ids=batch["input_ids"].to(device),
                position_ids=batch["position_ids"].to(device),
                packed_starts=batch["packed_starts"],
                use_cache=False,
            ).last_hidden_state[0]
        rows = states.float().cpu().numpy().astype(file.dtype)
        if not np.isfinite(rows).all():
            raise OutputError(f"activations do not fit into {file.dtype}: train with --cache-type float32")
        file[start + computed : start + computed + len(rows)] = rows
        computed += len(rows)
        if turn % _PACKS_A_FLUSH == 0 or last == len(examples):
            file.flush()  # type: ignore[attr-defined]
            with atomic_path(path.with_name(f"{path.name}.json")) as part:
                part.write_text(json.dumps({"windows": last}), "utf-8")
        tell(last, len(examples), computed)


def _runs(examples: Sequence[Example], done: int, budget: int) -> Iterator[tuple[int, int]]:
    """Yield (first, one behind the last) of runs of windows that fit into the budget."""
    first = done
    while first < len(examples):
        last, used = first + 1, len(examples[first])
        while last < len(examples) and used + len(examples[last]) <= budget:
            used += len(examples[last])
            last += 1
        yield first, last
        first = last


def _done(path: Path) -> int:
    """Return the number of windows that are on the disk."""
    try:
        return (
            int(json.loads(path.with_name(f"{path.name}.json").read_text("utf-8"))["windows"]) if path.exists() else 0
        )
    except (OSError, ValueError, KeyError, TypeError):
        return 0


class _Cut:
    """Within, the model's body ends below its top layers."""

    def __init__(self, whole: Any, top: int) -> None:
        self.whole, self.layers, self.norm = whole, whole.model.layers, whole.model.norm
        self.kept, self.kinds = len(self.layers) - top, _kinds(whole)

    def __enter__(self) -> None:
        self.whole.eval()
        self.whole.model.layers, self.whole.model.norm = self.layers[: self.kept], nn.Identity()
        _say_layers(self.whole, self.kept, None if self.kinds is None else self.kinds[: self.kept])

    def __exit__(self, *_: object) -> None:
        self.whole.model.layers, self.whole.model.norm = self.layers, self.norm
        _say_layers(self.whole, len(self.layers), self.kinds)
