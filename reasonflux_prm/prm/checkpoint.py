"""A checkpoint folder: configuration, safetensors weights and tokenizer, each checked before a score is made from it.

No remote code and no pickle: weights come from safetensors, and an official `.pt` head is read with weights-only
loading.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from reasonflux_prm.errors import CheckpointError
from reasonflux_prm.prm.config import DecoderConfig
from reasonflux_prm.prm.decoder import Decoder
from reasonflux_prm.prm.tokenizer import TextTokenizer

_BODY_PREFIXES = ("model.", "pretrained_model.model.", "")


class Checkpoint:
    """A folder as `save_pretrained` leaves it.

    Args:
        folder: Has `config.json`, `*.safetensors` and the tokenizer's files.
        name: What the user called it; used in messages and records.
        revision: Hub commit; computed from the files if None.
        dtype: Weights are cast to it.
        devices: Where the layers go: one device, or several to spread the layers over evenly.
    """

    def __init__(
        self,
        folder: Path,
        *,
        name: str,
        revision: str | None = None,
        dtype: torch.dtype = torch.float32,
        devices: Sequence[torch.device] = (torch.device("cpu"),),
    ) -> None:
        self.folder, self.name, self.dtype, self.devices = folder, name, dtype, tuple(devices)
        self.where = str(folder) if name == str(folder) else f"{name} ({folder})"
        self._revision = revision

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """Return `config.json`."""
        path = self.folder / "config.json"
        if not path.exists():
            raise CheckpointError(f"{self.where}: expected a checkpoint folder, found no config.json in it")
        try:
            config = json.loads(path.read_text("utf-8"))
        except ValueError as error:
            raise CheckpointError(f"{path}: not valid JSON ({error}); fetch the checkpoint again") from error
        if not isinstance(config, dict):
            raise CheckpointError(f"{path}: expected a JSON object, found {type(config).__name__}")
        return config

    @property
    def architecture(self) -> str:
        """Return the class name the checkpoint was saved from, or an empty string."""
        names = self.config.get("architectures") or [""]
        return str(names[0])

    @cached_property
    def revision(self) -> str:
        """Return the hub commit, or a digest of configuration, file names and sizes."""
        if self._revision:
            return self._revision
        digest = hashlib.sha256((self.folder / "config.json").read_bytes())
        for path in sorted(self.folder.glob("*.safetensors")):
            digest.update(f"{path.name} {path.stat().st_size}".encode())
            with path.open("rb") as file:
                # The header names every tensor; head and tail of the data tell apart checkpoints of one shape.
                digest.update(file.read(1 << 16))
                file.seek(max(0, path.stat().st_size - (1 << 16)))
                digest.update(file.read())
        return digest.hexdigest()[:12]

    @cached_property
    def files(self) -> Mapping[str, Path]:
        """Return the file that holds each tensor.

        Raises:
            CheckpointError: A shard is missing or not a safetensors file, the index cannot be read, or only pickled
                weights are there.
        """
        index = self.folder / "model.safetensors.index.json"
        if index.exists():
            try:
                table: dict[str, str] = dict(json.loads(index.read_text("utf-8"))["weight_map"])
            except (ValueError, KeyError, TypeError) as error:
                raise CheckpointError(
                    f"{index}: not an index of weights ({error!r}); fetch the checkpoint again"
                ) from error
            missing = sorted({name for name in table.values() if not (self.folder / name).exists()})
            if missing:
                raise CheckpointError(
                    f"{self.where}: {len(missing)} of {len(set(table.values()))} weight files are missing "
                    f"({', '.join(missing[:3])}); fetch the checkpoint again"
                )
            return {tensor: self.folder / name for tensor, name in table.items()}
        paths = sorted(self.folder.glob("*.safetensors"))
        if not paths:
            pickled = [path.name for path in self.folder.glob("*.bin")]
            hint = (
                f"; {pickled[0]} is a pickle, which is not loaded: convert it to safetensors first" if pickled else ""
            )
            raise CheckpointError(f"{self.where}: no *.safetensors weights found{hint}")
        found: dict[str, Path] = {}
        for path in paths:
            try:
                with safe_open(str(path), framework="pt") as file:
                    found.update(dict.fromkeys(file.keys(), path))
            except SafetensorError as error:
                raise CheckpointError(f"{path}: not a readable safetensors file ({error}); fetch it again") from error
        return found

    def tensors(self, names: Sequence[str]) -> dict[str, Tensor]:
        """Read some tensors, cast to the dtype, on the CPU.

        Raises:
            CheckpointError: One of them is not in the checkpoint.
        """
        missing = [name for name in names if name not in self.files]
        if missing:
            raise CheckpointError(
                f"{self.where}: {len(missing)} weights are missing "
                f"({', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}); "
                "with fresh random values in their place every score would be meaningless"
            )
        found: dict[str, Tensor] = {}
        for path in sorted({self.files[name] for name in names}):
            try:
                with safe_open(str(path), framework="pt") as file:
                    for name in names:
                        if self.files[name] == path:
                            found[name] = file.get_tensor(name).to(self.dtype)
            except SafetensorError as error:
                raise CheckpointError(f"{path}: not a readable safetensors file ({error}); fetch it again") from error
        return found

    def linear(self, name: str, *, allowed_rows: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        """Read the weight `(rows, d)` and, where there is one, the bias `(rows,)` of a linear head, on the last device.

        Raises:
            CheckpointError: It is missing, or its number of rows is not among `allowed_rows`.
        """
        has_bias = f"{name}.bias" in self.files
        found = self.tensors([f"{name}.weight", *([f"{name}.bias"] if has_bias else [])])
        return self.checked_linear(name, found[f"{name}.weight"], found.get(f"{name}.bias"), allowed_rows=allowed_rows)

    def checked_linear(
        self, name: str, weight: Tensor, bias: Tensor | None, *, allowed_rows: Sequence[int]
    ) -> tuple[Tensor, Tensor | None]:
        """Return a linear head on the last device, in the dtype, once its shape and values make sense.

        Raises:
            CheckpointError: Its number of rows is not among `allowed_rows`, or its values are all zeros or not finite.
        """
        hidden = int(self.config.get("hidden_size", weight.shape[-1]))
        if weight.dim() != 2 or weight.shape[0] not in allowed_rows or weight.shape[1] != hidden:
            wanted = " or ".join(str(rows) for rows in allowed_rows)
            raise CheckpointError(
                f"{self.where}: the head {name!r} has shape {tuple(weight.shape)}, expected ({wanted}, {hidden}); "
                "this is not the reward head of this family"
            )
        if bias is not None and tuple(bias.shape) != (len(weight),):
            raise CheckpointError(
                f"{self.where}: the bias of the head {name!r} has shape {tuple(bias.shape)}, expected ({len(weight)},)"
            )
        if not weight.any() or not weight.isfinite().all():
            raise CheckpointError(
                f"{self.where}: the head {name!r} is all zeros or not finite; fetch the checkpoint again"
            )
        weight, bias = weight.to(self.dtype), None if bias is None else bias.to(self.dtype)
        return weight.to(self.devices[-1]), None if bias is None else bias.to(self.devices[-1])

    def decoder(self) -> Decoder:
        """Read the body.

        Raises:
            CheckpointError: The architecture is not supported, or a weight is missing or of the wrong shape.
        """
        config = DecoderConfig.from_json(self.config, self.where)
        prefix = next((p for p in _BODY_PREFIXES if f"{p}embed_tokens.weight" in self.files), None)
        if prefix is None:
            raise CheckpointError(f"{self.where}: no embed_tokens.weight; this is not a {config.model_type} checkpoint")
        shapes = body_shapes(config)
        weights = {
            name.removeprefix(prefix): tensor
            for name, tensor in self.tensors([prefix + name for name in shapes]).items()
        }
        for name, shape in shapes.items():
            if name != "embed_tokens.weight" and tuple(weights[name].shape) != shape:
                raise CheckpointError(
                    f"{self.where}: {prefix}{name} has shape {tuple(weights[name].shape)}, config.json says {shape}"
                )
        spread = [self.devices[index * len(self.devices) // config.layers] for index in range(config.layers)]
        return Decoder(config, weights, spread)

    def tokenizer(self) -> TextTokenizer:
        """Read the tokenizer."""
        return TextTokenizer.from_folder(self.folder)


def body_shapes(config: DecoderConfig) -> dict[str, tuple[int, ...]]:
    """Return the shape of every weight of the body, under its transformers name without a leading `model.`."""
    c, q, kv = config, config.heads * config.head_dim, config.kv_heads * config.head_dim
    layer: dict[str, tuple[int, ...]] = {
        "input_layernorm.weight": (c.hidden,),
        "self_attn.q_proj.weight": (q, c.hidden),
        "self_attn.k_proj.weight": (kv, c.hidden),
        "self_attn.v_proj.weight": (kv, c.hidden),
        "self_attn.o_proj.weight": (c.hidden, q),
        "post_attention_layernorm.weight": (c.hidden,),
        "mlp.gate_proj.weight": (c.intermediate, c.hidden),
        "mlp.up_proj.weight": (c.intermediate, c.hidden),
        "mlp.down_proj.weight": (c.hidden, c.intermediate),
    }
    if c.qkv_bias:
        layer |= {"self_attn.q_proj.bias": (q,), "self_attn.k_proj.bias": (kv,), "self_attn.v_proj.bias": (kv,)}
    if c.out_bias:
        layer["self_attn.o_proj.bias"] = (c.hidden,)
    if c.qk_norm:
        layer |= {"self_attn.q_norm.weight": (c.head_dim,), "self_attn.k_norm.weight": (c.head_dim,)}
    body: dict[str, tuple[int, ...]] = {"embed_tokens.weight": (c.vocabulary, c.hidden), "norm.weight": (c.hidden,)}
    body |= {f"layers.{index}.{name}": shape for index in range(c.layers) for name, shape in layer.items()}
    return body
