"""The joint objective over the reads of a batch (arXiv:2506.18896, the training objective; L = MSE).

    sum over traces of [ lambda_step * (1/T) sum_t L(R_t, r_t) + lambda_final * L(R, r_final) + lambda_pair * P ]

where P is the mean Bradley-Terry loss of the pairs that the trace makes with others of its problem. The sum is divided
by the number of traces of an optimizer step, by the trainer, so that neither the split into packs nor the number of
processes changes it. R = sigmoid(z) for the head's output z. Beside the paper's MSE there is the binary cross entropy
on soft targets, of which hard labels are the special case 0 and 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from reasonflux_prm.training.config import Loss


def read_losses(logits: Tensor, targets: Tensor, loss: Loss) -> Tensor:
    """Return each read's loss, (R,).

    Args:
        logits: (R,) the head's outputs, float32.
        targets: (R,) in [0, 1]; with `mse` any finite number.
        loss: `mse`, (sigmoid(z) - r)^2; or `bce`, -r log sigmoid(z) - (1 - r) log sigmoid(-z).
    """
    if loss == "bce":
        return F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return (torch.sigmoid(logits) - targets) ** 2


def summed_loss(logits: Tensor, batch: Mapping[str, Any], loss: Loss, lambda_pair: float) -> Tensor:
    """Return the sum of a batch's weighted losses, a float32 scalar; it is to be divided by the traces of the step.

    Args:
        logits: (R,) the head's outputs at the batch's reads.
        batch: What `batches.collate` returned.
        loss: See `read_losses`.
        lambda_pair: Weight of the term between traces of one problem: -log sigmoid(z_better - z_worse).
    """
    z = logits.float()
    total: Tensor = (batch["weights"] * read_losses(z, batch["targets"], loss)).sum()
    pairs: Tensor = batch["pairs"]
    if lambda_pair and len(pairs):
        margins = z[pairs[:, 0]] - z[pairs[:, 1]]
        total = total - lambda_pair * (batch["pair_weights"] * F.logsigmoid(margins)).sum()
    return total
