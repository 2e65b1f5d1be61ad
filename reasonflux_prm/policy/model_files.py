"""A causal language model's folder or hub id: its configuration, its tokenizer, and what tells it from all others."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from reasonflux_prm.errors import MissingExtra, PolicyStopped
from reasonflux_prm.storage import sha256

LOADING = threading.Lock()
"""Held while a model is loaded: transformers changes torch for the whole process as it does, and of two models that
load side by side one is left without weights."""
_FILES = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt")
"""What a model's answers depend on."""
_MARKS = ("<think>", "</think>")
"""Texts that are kept where a tokenizer counts them as special."""


class ModelFiles:
    """What is known of a model without its weights.

    Args:
        model: A folder, or an id on the hub.

    Raises:
        MissingExtra: `transformers` is not installed.
        PolicyStopped: There is no such model, or it cannot be read.
    """

    def __init__(self, model: str) -> None:
        try:
            import transformers
        except ImportError as error:
            raise MissingExtra('a local model needs transformers: pip install "reasonflux-prm[hf]"') from error
        self.source = model
        self._folder = Path(model).resolve() if Path(model).is_dir() else None
        self.name = self._folder.name if self._folder else model
        try:
            # Code that comes with a model is never run.
            config = transformers.AutoConfig.from_pretrained(model, trust_remote_code=False)
            self.tokenizer: Any = transformers.AutoTokenizer.from_pretrained(model, trust_remote_code=False)
        except Exception as error:  # a missing file, JSON that is none, an unknown architecture, a hub out of reach
            raise PolicyStopped(
                f"'{model}' is neither a model's folder nor an id on the hub that can be read "
                f"({type(error).__name__}: {str(error).partition(chr(10))[0]})"
            ) from error
        self._config = config.get_text_config()
        self._revision = getattr(config, "_commit_hash", None)
        special = zip(self.tokenizer.all_special_ids, self.tokenizer.all_special_tokens, strict=True)
        self._words = cache(lambda token: str(self.tokenizer.decode([token], clean_up_tokenization_spaces=False)))
        self._hidden = {token for token, text in special if text not in _MARKS}

    def load(self, dtype: str, device: Any) -> Any:
        """Return the model, ready to read and to write.

        Args:
            dtype: A name in torch.
            device: A torch device.

        Raises:
            PolicyStopped: It cannot be loaded, or its file lacks some of its weights.
        """
        import torch
        from transformers import AutoModelForCausalLM

        try:
            with LOADING:
                model, loading = AutoModelForCausalLM.from_pretrained(
                    self.source,
                    dtype=getattr(torch, dtype),
                    trust_remote_code=False,
                    use_safetensors=True,
                    output_loading_info=True,
                )
            model = model.to(device).eval()
        except Exception as error:  # a missing file, a wrong shape, an unknown architecture, no memory: all end the run
            raise PolicyStopped(
                f"the model {self.name} could not be loaded ({type(error).__name__}: {error})"
            ) from error
        if missing := sorted(loading["missing_keys"]):
            more = f" and {len(missing) - 1} more weights" if missing[1:] else ""
            raise PolicyStopped(
                f"the model {self.name} could not be loaded: its files have no {missing[0]}{more}; without "
                "them it would write at random"
            )
        return model

    @property
    def context(self) -> int:
        """Most tokens of prompt and completion together."""
        declared = getattr(self._config, "max_position_embeddings", None)
        return int(declared or self.tokenizer.model_max_length)

    @property
    def pad_token(self) -> int:
        """A token to fill up with; it is masked out, so any will do."""
        return next(
            token for token in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id, 0) if token is not None
        )

    def end_tokens(self, declared: int | list[int] | None) -> set[int]:
        """Return the tokens that end an answer: the tokenizer's, and those that the model's generation declares."""
        ends = declared if isinstance(declared, list) else [declared]
        return {token for token in (*ends, self.tokenizer.eos_token_id) if token is not None}

    def cache_values_per_token(self) -> int:
        """Return how many numbers attention keeps of a token: keys and values of every layer."""
        heads = self._config.num_attention_heads
        head_size = getattr(self._config, "head_dim", None) or self._config.hidden_size // heads
        return int(
            2
            * self._config.num_hidden_layers
            * (getattr(self._config, "num_key_value_heads", None) or heads)
            * head_size
        )

    def text(self, tokens: list[int]) -> str:
        """Return what tokens say, without control tokens."""
        shown = [token for token in tokens if token not in self._hidden]
        return str(self.tokenizer.decode(shown, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def word(self, token: int) -> str:
        """Return what a token says by itself; part of a character gives a replacement character."""
        return self._words(token)

    def identity(self) -> Mapping[str, Any]:
        """Return the model's name, and the commit on the hub or one hash of all files; reads every file of a folder."""
        if self._folder is None:
            return {"model": self.name, "revision": self._revision}
        files = sorted({path for pattern in _FILES for path in self._folder.glob(pattern)})
        listing = "".join(f"{sha256(path)}  {path.name}\n" for path in files)
        return {"model": self.name, "files_sha256": hashlib.sha256(listing.encode()).hexdigest()}
