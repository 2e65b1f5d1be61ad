"""Training the top layers over cached activations of the layers below: the way to train on a CPU.

The lower layers do not change, so what they make of every window is computed once, written to disk, and read back in
every epoch. The file is named for the base and the layers; windows in it are found by their tokens, so runs with other
seeds, objectives or more data compute only what is new, and one that was killed goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Activations:
    """What the lower layers made of every window."""

    states: NDArray[Any]
    """(T of all windows in the file, d), mapped from it."""
    starts: tuple[int, ...]
    """Where each window starts."""

    def of(self, numbers: Sequence[int], lengths: Sequence[int]) -> Tensor:
        """Return the states of some windows end to end, (T, d) float32."""
        places = zip(numbers, lengths, strict=True)
        rows = [self.states[self.starts[number] : self.starts[number] + length] for number, length in places]
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
    digest = hashlib.sha256(f"{below.base.revision} {below.top} {below.base.added}".encode()).hexdigest()
    path = folder / f"activations-{digest[:16]}.{below.dtype}"
    with writing(path):
        folder.mkdir(parents=True, exist_ok=True)
    # Of several processes the first to come computes, and the others wait here.
    with FileLock(f"{path}.lock"), writing(path):
        store = _Store(path, whole.config.hidden_size, np.dtype(below.dtype))
        missing = store.missing(examples)
        if missing:
            with _Cut(whole, below.top):
                _compute(whole, missing, store, pack_tokens, tell)
    return Activations(store.states(), tuple(store.places[_key(example)] for example in examples))


class _Store:
    """A file of states that grows, and beside it an index: a line a window, written once its states are there."""

    def __init__(self, path: Path, width: int, dtype: np.dtype[Any]) -> None:
        self.path, self.width, self.dtype = path, width, dtype
        self.places: dict[str, int] = {}
        """Where the window with these tokens starts."""
        self.rows = 0
        self._index = path.with_name(f"{path.name}.index")
        self._read_index()

    def _read_index(self) -> None:
        there = self.path.stat().st_size // (self.width * self.dtype.itemsize) if self.path.exists() else 0
        good = []
        for line in self._index.read_text("utf-8").splitlines() if self._index.exists() else []:
            key, *numbers = line.split()
            # A line that a kill cut short, and what follows it.
            if len(numbers) != 3 or numbers[2] != "." or int(numbers[0]) + int(numbers[1]) > there:
                break
            self.places[key] = int(numbers[0])
            self.rows = int(numbers[0]) + int(numbers[1])
            good.append(line)
        with atomic_path(self._index) as part:
            part.write_text("".join(f"{line}\n" for line in good), "utf-8")
        self.path.touch()
        os.truncate(self.path, self.rows * self.width * self.dtype.itemsize)

    def missing(self, examples: Sequence[Example]) -> list[Example]:
        """Return the windows that are not in the file, each once."""
        found = {_key(example): example for example in examples}
        return [example for key, example in found.items() if key not in self.places]

    def append(self, examples: Sequence[Example], states: NDArray[Any]) -> None:
        """Add windows; `states` are theirs, end to end."""
        with self.path.open("ab") as file:
            file.write(states.tobytes())
        lines = []
        for example in examples:
            self.places[_key(example)] = self.rows
            lines.append(f"{_key(example)} {self.rows} {len(example)} .\n")
            self.rows += len(example)
        with self._index.open("a", encoding="utf-8") as index:
            index.writelines(lines)

    def states(self) -> NDArray[Any]:
        """Return all states, (T, d), mapped from the file."""
        return np.memmap(self.path, dtype=self.dtype, mode="r", shape=(self.rows, self.width))


def _key(example: Example) -> str:
    return hashlib.blake2b(example.tokens.tobytes(), digest_size=16).hexdigest()


def _compute(whole: Any, examples: Sequence[Example], store: _Store, pack_tokens: int, tell: Tell) -> None:
    device = next(whole.parameters()).device
    computed = 0
    for first, last in _runs(examples, pack_tokens):
        batch = collate([(number, examples[number], True) for number in range(first, last)])
        with torch.inference_mode():
            states = whole.model(
                input_ids=batch["input_ids"].to(device),
                position_ids=batch["position_ids"].to(device),
                packed_starts=batch["packed_starts"],
                use_cache=False,
            ).last_hidden_state[0]
        with np.errstate(over="ignore"):
            rows = states.float().cpu().numpy().astype(store.dtype)
        if not np.isfinite(rows).all():
            raise OutputError(f"activations do not fit into {store.dtype}: train with --cache-type float32")
        store.append(examples[first:last], rows)
        computed += len(rows)
        tell(last, len(examples), computed)


def _runs(examples: Sequence[Example], budget: int) -> Iterator[tuple[int, int]]:
    """Yield (first, one behind the last) of runs of windows that fit into the budget."""
    first = 0
    while first < len(examples):
        last, used = first + 1, len(examples[first])
        while last < len(examples) and used + len(examples[last]) <= budget:
            used += len(examples[last])
            last += 1
        yield first, last
        first = last


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
