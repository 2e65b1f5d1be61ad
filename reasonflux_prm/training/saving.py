"""A trained model as a folder that our engine, plain transformers and vLLM load, and as a small adapter.

The folder is a `...ForTokenClassification` checkpoint (head `score`, `id2label` written, which vLLM needs to see that
there is one label) with the PRM's settings under `prm` in `config.json`; see `prm.families.native`.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from reasonflux_prm.errors import CheckpointError
from reasonflux_prm.prm.embedded.adapter import Adapter, save_adapter
from reasonflux_prm.training.config import TrainConfig
from reasonflux_prm.training.model import Base, build, save_tokenizer, with_lora

ADAPTER = "adapter.safetensors"


def assemble(base: Base, config: TrainConfig, trained: Path) -> Any:
    """Return the whole trained model, on the CPU; LoRA is merged.

    Args:
        base: What training started from.
        config: The run's.
        trained: What the trainer saved: all weights, those of the top layers, or LoRA's.
    """
    model = build(base, config)
    if config.method == "lora":
        return _merged(model, base, config, trained)
    state = _saved(trained)
    if config.method == "frozen":
        state = _shifted(state, base.decoder.layers - config.layers_trained())
    problems = model.load_state_dict(state, strict=False)
    unknown, missing = problems.unexpected_keys, set(problems.missing_keys)
    if unknown or (missing and config.method == "full"):
        raise CheckpointError(f"{trained}: what was saved does not fit the base: {unknown[:3] or sorted(missing)[:3]}")
    return model


def write_prm(model: Any, base: Base, config: TrainConfig, folder: Path) -> None:
    """Write the PRM's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = model.config
    settings.id2label, settings.label2id = {0: "LABEL_0"}, {"LABEL_0": 0}
    settings.use_cache = True
    settings.prm = base.settings.to_json()
    if config.bf16:
        model = model.to(torch.bfloat16)
    model.save_pretrained(str(folder))
    save_tokenizer(base, folder)
    for weights in folder.glob("*.safetensors"):
        # safetensors writes for the owner only; a PRM may be shared.
        shutil.copymode(folder / "config.json", weights)


def write_adapter(model: Any, base: Base, config: TrainConfig, trained: Path, path: Path) -> None:
    """Write what turns the embedded base into this PRM, in bfloat16; see `prm.embedded.adapter` for the format.

    Args:
        model: The whole trained model.
        base: The embedded base.
        config: The run's.
        trained: As for `assemble`.
        path: The file.
    """
    from reasonflux_prm.prm.embedded.fetch import SMOLLM2

    state: Mapping[str, Tensor] = model.state_dict()
    changed = {name: state[name] for name in ("score.weight", "score.bias")}
    if config.method == "lora":
        changed |= _lora_pairs(trained, config)
        changed |= _rows(base, config, state["model.embed_tokens.weight"])
    else:
        first = base.decoder.layers - config.layers_trained()
        tops = tuple(f"model.layers.{index}." for index in range(first, base.decoder.layers))
        changed |= {name: state[name] for name in state if name.startswith((*tops, "model.norm."))}
    tensors = {name: tensor.detach().to(torch.bfloat16) for name, tensor in changed.items()}
    save_adapter(path, Adapter(tensors, base.settings.to_json(), SMOLLM2.gguf_sha256))


def _merged(model: Any, base: Base, config: TrainConfig, trained: Path) -> Any:
    from peft import load_peft_weights, set_peft_model_state_dict

    adapted = with_lora(model, base, config)
    problems = set_peft_model_state_dict(adapted, load_peft_weights(str(trained), device="cpu"))
    if problems.unexpected_keys:
        raise CheckpointError(f"{trained}: what was saved does not fit the base: {problems.unexpected_keys[:3]}")
    return adapted.merge_and_unload()


def _saved(folder: Path) -> dict[str, Tensor]:
    """Return all tensors of a saved model, in one file or several."""
    found: dict[str, Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        found |= load_file(path)
    if not found:
        raise CheckpointError(f"{folder}: the trainer saved no safetensors weights")
    return found


def _shifted(state: Mapping[str, Tensor], by: int) -> dict[str, Tensor]:
    """Return the tensors of the top layers under their numbers in the whole model."""
    moved: dict[str, Tensor] = {}
    for name, tensor in state.items():
        head, layers, rest = name.partition("model.layers.")
        if layers:
            number, _, tail = rest.partition(".")
            name = f"{head}{layers}{int(number) + by}.{tail}"
        moved[name] = tensor
    return moved


def _lora_pairs(trained: Path, config: TrainConfig) -> dict[str, Tensor]:
    """Return LoRA's matrices under the base's names, the scale in `lora_B`."""
    scale = config.lora_alpha / config.lora_rank
    pairs: dict[str, Tensor] = {}
    for name, tensor in _saved(trained).items():
        for kind, factor in (("lora_A", 1.0), ("lora_B", scale)):
            if f".{kind}." in name:
                target = name.removeprefix("base_model.model.").partition(f".{kind}.")[0]
                pairs[f"{target}.weight.{kind}"] = tensor * factor
    return pairs


def _rows(base: Base, config: TrainConfig, table: Tensor) -> dict[str, Tensor]:
    """Return the change of the control tokens' embeddings as a product of two thin matrices."""
    before: Tensor = build(base, config).get_input_embeddings().weight
    ids = base.control_ids()
    places = torch.zeros(len(table), len(ids))
    for column, number in enumerate(ids):
        places[number, column] = 1.0
    name = "model.embed_tokens.weight"
    return {f"{name}.lora_A": (table[ids] - before[ids]).detach(), f"{name}.lora_B": places}
