"""The adapter that turns the base into the embedded PRM: its file format, and how it is merged.

An adapter is one safetensors file. `NAME` stands for a base tensor's full Hugging Face name.

- `score.weight` (labels, hidden) and `score.bias` (labels,): the head.
- `NAME.lora_A` (r, in) and `NAME.lora_B` (out, r): the base tensor becomes `NAME + lora_B @ lora_A`; any LoRA scale is
  already in `lora_B`.
- `NAME`: the base tensor is replaced.

Tensors may be float32, bfloat16 or float16; merging happens in float32. The file's metadata holds `format`, `prm` (the
PRM's settings as a JSON object, copied into the merged checkpoint's `config.json`), and `base_sha256`: the SHA-256 of
the GGUF file that the adapter was trained on, because on another base its scores would be meaningless.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from reasonflux_prm.errors import CheckpointError

FORMAT = "reasonflux-prm-adapter-1"
_LORA = (".lora_A", ".lora_B")


@dataclass(frozen=True)
class Adapter:
    """What an adapter file holds."""

    tensors: Mapping[str, torch.Tensor]
    prm: Mapping[str, Any]
    """The PRM's settings: separators, layout, range."""
    base_sha256: str


def load_adapter(path: Path) -> Adapter:
    """Read an adapter file.

    Raises:
        CheckpointError: There is no such file, it is no adapter, or its metadata is incomplete.
    """
    if not path.is_file():
        raise CheckpointError(
            f"There should be an adapter for the embedded PRM at {path}, but there is none: install the package "
            "again, or name another PRM with --prm."
        )
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except SafetensorError as error:
        raise CheckpointError(f"{path} should be a safetensors file, but cannot be read as one: {error}.") from error
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{path} should be an adapter of format {FORMAT}, but says {metadata.get('format')!r}.")
    try:
        prm = json.loads(metadata["prm"])
        if not isinstance(prm, dict):
            raise TypeError(f"prm is a {type(prm).__name__}")
        return Adapter(tensors, prm, metadata["base_sha256"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path}: the metadata should hold base_sha256, and prm as a JSON object, but: {error!r}."
        ) from error


def save_adapter(path: Path, adapter: Adapter) -> None:
    """Write an adapter file."""
    metadata = {
        "format": FORMAT,
        "prm": json.dumps(dict(adapter.prm), ensure_ascii=False, sort_keys=True),
        "base_sha256": adapter.base_sha256,
    }
    save_file({name: tensor.contiguous() for name, tensor in adapter.tensors.items()}, path, metadata=metadata)


def merge(base: Mapping[str, torch.Tensor], adapter: Adapter, base_sha256: str) -> dict[str, torch.Tensor]:
    """Return the float32 tensors of the PRM: the adapted base without a language-model head, and the score head.

    Args:
        base: Float32 tensors of the base by their Hugging Face names; they are not changed.
        adapter: The adapter.
        base_sha256: SHA-256 of the GGUF file that `base` was read from.

    Raises:
        CheckpointError: The adapter was trained on another base, or a tensor has no counterpart, another shape than it
            needs, a type that is not floating point, or a value that is not finite.
    """
    if adapter.base_sha256 != base_sha256:
        raise CheckpointError(
            f"The adapter was trained on the base with SHA-256 {adapter.base_sha256}, but this base has {base_sha256}: "
            "its scores would be meaningless. Use the adapter and the base of one release."
        )
    for name, tensor in adapter.tensors.items():
        if not tensor.is_floating_point() or not torch.isfinite(tensor).all():
            raise CheckpointError(f"The adapter's {name} should hold finite floating-point numbers, but does not.")
    merged = {name: tensor for name, tensor in base.items() if name != "lm_head.weight"}
    changes = {name: tensor.float() for name, tensor in adapter.tensors.items()}
    head = _head(changes, hidden=merged["model.embed_tokens.weight"].shape[1])
    for name in sorted({_target(name) for name in changes}):
        if name not in merged:
            raise CheckpointError(f"The adapter changes {name}, but the base has no such tensor.")
        merged[name] = _changed(name, merged[name], changes)
    return {**merged, **head}


def _target(name: str) -> str:
    for suffix in _LORA:
        name = name.removesuffix(suffix)
    return name


def _head(changes: dict[str, torch.Tensor], hidden: int) -> dict[str, torch.Tensor]:
    """Take the head out of `changes`."""
    weight, bias = changes.pop("score.weight", None), changes.pop("score.bias", None)
    if weight is None or bias is None:
        raise CheckpointError("The adapter should hold score.weight and score.bias, but at least one is missing.")
    if weight.ndim != 2 or weight.shape[1] != hidden or bias.shape != weight.shape[:1]:
        raise CheckpointError(
            f"The adapter's score.weight and score.bias should have the shapes (labels, {hidden}) and (labels,), "
            f"but have {tuple(weight.shape)} and {tuple(bias.shape)}."
        )
    return {"score.weight": weight, "score.bias": bias}


def _changed(name: str, old: torch.Tensor, changes: Mapping[str, torch.Tensor]) -> torch.Tensor:
    held = {suffix: changes[name + suffix] for suffix in ("", *_LORA) if name + suffix in changes}
    if set(held) == {""}:
        replaces, change = True, held[""]
    elif set(held) == set(_LORA) and _fit(held[".lora_B"], held[".lora_A"]):
        replaces, change = False, held[".lora_B"] @ held[".lora_A"]
    else:
        shapes = {name + suffix: tuple(tensor.shape) for suffix, tensor in held.items()}
        raise CheckpointError(
            f"The adapter should change {name} either by one tensor or by a pair lora_A (r, in) and lora_B (out, r), "
            f"but holds {shapes}."
        )
    # Before the sum, where a wrong shape could pass by broadcasting.
    if change.shape != old.shape:
        raise CheckpointError(
            f"The adapter's change to {name} should have the shape {tuple(old.shape)}, but has {tuple(change.shape)}."
        )
    return change if replaces else old + change


def _fit(left: torch.Tensor, right: torch.Tensor) -> bool:
    return left.ndim == right.ndim == 2 and left.shape[1] == right.shape[0]
