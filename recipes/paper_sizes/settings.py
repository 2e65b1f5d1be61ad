"""The paper's two sizes (arXiv:2506.18896): what is known of how they were trained, and what is chosen here.

Known: base models Qwen2.5-1.5B-Instruct and -7B-Instruct, traces of OpenThoughts-114K with about 10,000 labelled by
step and 1,000 by template, the joint objective with the mean squared error. Not published anywhere: weights of the
terms, rate, epochs, batch, context and hardware. Those below are ours: both weights 1, rate 1e-5, 3 epochs, 32 traces a
step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from reasonflux_prm.prm.config import DecoderConfig
from reasonflux_prm.training.config import TrainConfig

STEP_LABELLED: Final = 10_000
"""Traces with step labels."""
TRACES_A_STEP: Final = 32
MEAN_TOKENS: Final = 6_000
"""Tokens of a trace, assumed: `train --dry-run` counts those of the real labels."""
CONTEXT: Final = 16_384
"""Longer traces are cut into windows; both bases have positions for 32,768."""


@dataclass(frozen=True, slots=True)
class Size:
    """One of the two."""

    name: str
    base: str
    shape: Mapping[str, Any]
    """The fields of the base's `config.json` that memory and time depend on."""
    gpus: int
    """GPUs of 80 GB that the configuration is meant for; more than one share weights and optimizer (FSDP)."""
    pack_tokens: int
    """Tokens of a forward pass on each."""

    def decoder(self) -> DecoderConfig:
        """Return the shape as the package reads it."""
        return DecoderConfig.from_json({"model_type": "qwen2", **self.shape}, self.base)

    def config(self, labels: tuple[str, ...], output: str) -> TrainConfig:
        """Return the configuration of the training.

        Args:
            labels: What `reasonflux-prm label` wrote.
            output: The PRM's folder.
        """
        return TrainConfig(
            data=labels,
            output=output,
            base=self.base,
            layout="response_first",
            context=CONTEXT,
            loss="mse",
            lambda_step=1.0,
            lambda_final=1.0,
            method="full",
            epochs=3.0,
            batch_tokens=TRACES_A_STEP * MEAN_TOKENS,
            pack_tokens=self.pack_tokens,
            learning_rate=1e-5,
            schedule="cosine",
            bf16=True,
            gradient_checkpointing=True,
        )


SIZES: Final[Mapping[str, Size]] = {
    "1.5b": Size(
        name="1.5b",
        base="Qwen/Qwen2.5-1.5B-Instruct",
        shape={
            "hidden_size": 1536,
            "intermediate_size": 8960,
            "num_hidden_layers": 28,
            "num_attention_heads": 12,
            "num_key_value_heads": 2,
            "vocab_size": 151_936,
            "max_position_embeddings": 32_768,
            "rope_theta": 1e6,
        },
        gpus=1,
        pack_tokens=16_384,
    ),
    "7b": Size(
        name="7b",
        base="Qwen/Qwen2.5-7B-Instruct",
        shape={
            "hidden_size": 3584,
            "intermediate_size": 18_944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "vocab_size": 152_064,
            "max_position_embeddings": 32_768,
            "rope_theta": 1e6,
        },
        gpus=4,
        pack_tokens=16_384,
    ),
}
