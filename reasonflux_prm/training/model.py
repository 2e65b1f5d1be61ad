"""What is trained: a base, its tokenizer with the two control tokens, and a head, as transformers holds them.

The model is an `AutoModelForTokenClassification` with one label, head `score`. A base that is a PRM in our own format
is gone on from: its control tokens, layout texts and head are kept.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch
from tokenizers import AddedToken, Tokenizer

from reasonflux_prm.errors import CheckpointError, MissingExtra, UsageError
from reasonflux_prm.prm.checkpoint import Checkpoint
from reasonflux_prm.prm.config import SUPPORTED, DecoderConfig
from reasonflux_prm.prm.families.native import NativeInput, NativeSettings, native_spec
from reasonflux_prm.prm.hub import locate
from reasonflux_prm.prm.tokenizer import TextTokenizer, tokenizer_settings
from reasonflux_prm.training import attention
from reasonflux_prm.training.config import EMBEDDED_BASE, TrainConfig

_UNUSED: Final = (
    *("<extra_0>", "<extra_1>"),
    *("<file_sep>", "<empty_output>"),
    *("<|object_ref_end|>", "<|object_ref_start|>"),
    *("<|reserved_special_token_0|>", "<|reserved_special_token_1|>"),
    *("[control_8]", "[control_9]"),
)
"""Control tokens that text models have and do not use: Qwen's PRMs, SmolLM2, Qwen2.5 and Qwen3, Llama 3, Mistral."""
_ADDED: Final = ("<|step_end|>", "<|trace_end|>")
_HEADS: Final = ("ForCausalLM", "ForTokenClassification", "LlamaModel", "MistralModel", "Qwen2Model", "Qwen3Model")
_COPIED: Final = ("tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "LICENSE")
_LINEAR: Final = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class Base:
    """The checkpoint that training starts from."""

    name: str
    folder: Path
    revision: str
    settings: NativeSettings
    tokenizer: Tokenizer
    """With the control tokens in it."""
    added: tuple[str, ...]
    """Control tokens that the base's tokenizer did not have."""
    decoder: DecoderConfig
    goes_on: bool
    """Whether the base is a PRM in our own format."""

    def input(self, context: int | None) -> NativeInput:
        """Return what builds the model's input."""
        most = self.decoder.context
        if context is not None and context > most:
            raise UsageError(f"context {context:,} is not between 1 and {most:,}, the positions of {self.name}")
        tokenizer = TextTokenizer(Tokenizer.from_str(self.tokenizer.to_str()), str(self.folder))
        return NativeInput(
            native_spec(self.settings, self.name, self.revision, context or most), tokenizer, self.settings
        )

    def control_ids(self) -> list[int]:
        """Return the ids of the control tokens."""
        names = (self.settings.separator, self.settings.marker)
        return [number for name in names if name and (number := self.tokenizer.token_to_id(name)) is not None]


def require_train() -> None:
    """Check that what training needs is installed.

    Raises:
        MissingExtra: It is not.
    """
    missing = [name for name in ("transformers", "accelerate", "peft") if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtra(f'training needs {" and ".join(missing)}: pip install "reasonflux-prm[train]"')


def open_base(config: TrainConfig) -> Base:
    """Find the base, fetching it if need be, and choose the control tokens.

    Raises:
        CheckpointError: It is of an unsupported class, or its tokenizer has no room for a control token.
        DownloadError: It could not be fetched.
        UsageError: A control token that the configuration names is not there.
    """
    folder, name, revision = _located(config.base)
    checkpoint = Checkpoint(folder, name=name, revision=revision)
    decoder = DecoderConfig.from_json(checkpoint.config, checkpoint.where)
    if checkpoint.architecture and not checkpoint.architecture.endswith(_HEADS):
        raise CheckpointError(
            f"{checkpoint.where}: {checkpoint.architecture} cannot be trained from; expected a causal language model "
            f"(...ForCausalLM) or a PRM in our own format, of the types {', '.join(SUPPORTED)}"
        )
    own = checkpoint.config.get("prm")
    tokenizer = _tokenizer(folder)
    if own is not None:
        # A calibration belongs to the weights that it was fitted to.
        settings = replace(NativeSettings.from_json(own, checkpoint.where), layout=config.layout, calibration=None)
        if settings.marker is None or config.separator or config.marker:
            settings, added = _with_controls(settings, tokenizer, config, checkpoint.where)
        else:
            added = ()
    else:
        settings = NativeSettings("", layout=config.layout, **_texts(tokenizer, folder))
        settings, added = _with_controls(settings, tokenizer, config, checkpoint.where)
    _check_room(tokenizer, added, decoder, config, checkpoint.where)
    return Base(name, folder, checkpoint.revision, settings, tokenizer, added, decoder, own is not None)


def build(base: Base, config: TrainConfig) -> Any:
    """Load the model, ready to be trained in full; its attention is that of `attention`.

    Raises:
        CheckpointError: Weights are missing, or the head of a PRM has another number of labels than one.
    """
    from transformers import AutoConfig, AutoModelForTokenClassification
    from transformers.utils import logging

    attention.register()
    torch.manual_seed(config.seed)  # the head starts from noise
    settings = AutoConfig.from_pretrained(str(base.folder), trust_remote_code=False)
    if base.goes_on and settings.num_labels != 1:
        raise CheckpointError(
            f"{base.name}: its head has {settings.num_labels} labels, and training goes on from one; start from its "
            "language model instead"
        )
    settings.num_labels, settings.classifier_dropout, settings.use_cache = 1, 0.0, False
    half = config.bf16 and config.method == "lora"
    level = logging.get_verbosity()
    logging.set_verbosity_error()  # that the head is new is known; what else is missing is checked below
    try:
        model, loading = AutoModelForTokenClassification.from_pretrained(
            str(base.folder),
            config=settings,
            dtype=torch.bfloat16 if half else torch.float32,
            attn_implementation=attention.NAME,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    except OSError as error:
        raise CheckpointError(f"{base.name} ({base.folder}): no readable safetensors weights ({error})") from error
    finally:
        logging.set_verbosity(level)
    fresh = {"score.weight", "score.bias"} if not base.goes_on else set()
    if missing := sorted(set(loading["missing_keys"]) - fresh):
        raise CheckpointError(
            f"{base.name} ({base.folder}): {len(missing)} weights are missing ({', '.join(missing[:3])}); fetch the "
            "checkpoint again"
        )
    if base.tokenizer.get_vocab_size() > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(base.tokenizer.get_vocab_size(), mean_resizing=False)
    _start_embeddings(model, base)
    return model


def with_lora(model: Any, base: Base, config: TrainConfig) -> Any:
    """Put LoRA on all linear layers of the body; the head and the control tokens' embeddings are trained in full."""
    from peft import LoraConfig, get_peft_model

    layers = base.decoder.layers
    top = config.lora_layers
    lora = LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        target_modules=list(_LINEAR),
        layers_to_transform=None if top is None else list(range(max(0, layers - top), layers)),
        modules_to_save=["score"],
        trainable_token_indices={"embed_tokens": base.control_ids()},
    )
    torch.manual_seed(config.seed)
    return get_peft_model(model, lora)


def save_tokenizer(base: Base, folder: Path) -> None:
    """Write the tokenizer's files."""
    base.tokenizer.save(str(folder / "tokenizer.json"))
    for name in _COPIED:
        if (base.folder / name).is_file():
            shutil.copyfile(base.folder / name, folder / name)


def licence(base: Base) -> str | None:
    """Return the base's licence as its card states it; None if there is no card, or it states none."""
    if base.name == EMBEDDED_BASE:
        return "apache-2.0"
    card = base.folder / "README.md"
    if not card.is_file():
        return None
    front = card.read_text("utf-8", errors="replace").split("---")
    lines = front[1].splitlines() if len(front) > 2 and not front[0].strip() else []
    return next((line.partition(":")[2].strip() or None for line in lines if line.startswith("license:")), None)


# --- the checkpoint ------------------------------------------------------------------------------------------------


def _located(name: str) -> tuple[Path, str, str | None]:
    if name == EMBEDDED_BASE:
        from reasonflux_prm.prm.embedded.install import ensure_base

        return ensure_base(), name, None
    found = locate(name)
    return found.folder, found.name, found.revision


def _tokenizer(folder: Path) -> Tokenizer:
    path = folder / "tokenizer.json"
    if path.exists():
        try:
            return Tokenizer.from_file(str(path))
        except Exception as error:  # the tokenizers library raises plain Exception
            raise CheckpointError(f"{path}: not a readable tokenizer ({error}); fetch the checkpoint again") from error
    if not (folder / "tokenizer.model").exists():
        raise CheckpointError(f"{folder}: no tokenizer.json; download the checkpoint's tokenizer files too")
    from transformers import AutoTokenizer

    fast = AutoTokenizer.from_pretrained(str(folder), use_fast=True, trust_remote_code=False)
    backend: Tokenizer = fast.backend_tokenizer
    return backend


def _texts(tokenizer: Tokenizer, folder: Path) -> Mapping[str, Any]:
    """Return the texts around the problem in the base's own chat format, told from its control tokens."""
    if tokenizer.token_to_id("<|im_start|>") is not None:
        return {}
    bos = tokenizer_settings(folder).get("bos_token")
    begin = str(bos.get("content") if isinstance(bos, dict) else bos or "")
    if tokenizer.token_to_id("<|start_header_id|>") is not None:
        turn = "<|start_header_id|>{}<|end_header_id|>\n\n"
        opening, closing = begin + turn.format("user"), "<|eot_id|>" + turn.format("assistant")
    elif tokenizer.token_to_id("[INST]") is not None:
        opening, closing = begin + "[INST]", "[/INST]"
    else:
        opening, closing = begin + "Problem: ", "\n\n"
    return {"before_problem": opening, "after_problem": closing}


def _with_controls(
    settings: NativeSettings, tokenizer: Tokenizer, config: TrainConfig, where: str
) -> tuple[NativeSettings, tuple[str, ...]]:
    """Choose the control tokens, and add to the tokenizer those that it lacks."""
    for named in (config.separator, config.marker):
        if named is not None and tokenizer.token_to_id(named) is None:
            raise UsageError(
                f"{where}: the tokenizer has no token {named!r}; name one that it has, or leave --separator and "
                "--marker out"
            )
    taken = {token for token in (config.separator, config.marker, settings.separator) if token}
    free = iter([token for token in _UNUSED if tokenizer.token_to_id(token) is not None and token not in taken])
    new = iter(token for token in _ADDED if token not in taken)
    separator = config.separator or settings.separator or next(free, None) or next(new)
    marker = config.marker or settings.marker or next(free, None) or next(new)
    if separator == marker:
        raise UsageError(f"separator and marker are both {marker!r}; the two are read as different things, so name two")
    added = tuple(token for token in (separator, marker) if tokenizer.token_to_id(token) is None)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in added])
    return replace(settings, separator=separator, marker=marker), added


def _check_room(
    tokenizer: Tokenizer, added: tuple[str, ...], decoder: DecoderConfig, config: TrainConfig, where: str
) -> None:
    if added and config.method == "frozen":
        raise CheckpointError(
            f"{where}: the tokenizer has no unused control token to close a step with, and --method frozen does not "
            "train embeddings of new ones; name two that it has with --separator and --marker, or train with --method "
            "lora or full, which add them"
        )
    if added and config.adapter:
        raise CheckpointError(f"{where}: an adapter cannot add {', '.join(added)} to the base's tokenizer")
    highest = max(tokenizer.get_vocab().values())
    if not added and highest >= decoder.vocabulary:
        raise CheckpointError(
            f"{where}: the tokenizer has ids up to {highest:,}, the model {decoder.vocabulary:,} embeddings; tokenizer "
            "and weights are not of one checkpoint"
        )


def _start_embeddings(model: Any, base: Base) -> None:
    """Give added tokens the mean of all embeddings, a little apart from one another."""
    if not base.added:
        return
    table: torch.Tensor = model.get_input_embeddings().weight
    with torch.no_grad():
        mean, spread = table.mean(dim=0), table.std(dim=0)
        for token in base.added:
            table[base.tokenizer.token_to_id(token)] = mean + 0.1 * spread * torch.randn_like(mean)
