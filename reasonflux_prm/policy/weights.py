"""Weights that a training run hands to a policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from reasonflux_prm.errors import UsageError


def take_weights(model: Any, state: Mapping[str, torch.Tensor]) -> None:
    """Copy weights into a model in place, cast to its dtype; graphs that were captured over it stay good.

    Args:
        model: A model of `transformers`.
        state: Every parameter by its name; others are left alone.

    Raises:
        UsageError: A parameter is missing, or has another shape; nothing was copied.
    """
    own = dict(model.named_parameters())
    if bad := [name for name, one in own.items() if name not in state or state[name].shape != one.shape]:
        raise UsageError(
            f"of the model's {len(own)} parameters {len(bad)} are missing or of another shape, first {bad[0]}; hand "
            "over the state of the whole model, adapters merged"
        )
    with torch.no_grad():
        for name, one in own.items():
            one.copy_(state[name])
