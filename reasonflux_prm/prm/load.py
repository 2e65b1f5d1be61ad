"""Any discriminative PRM by name: which family its checkpoint is of, and where its layers go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from reasonflux_prm.errors import CheckpointError, UsageError
from reasonflux_prm.prm.base import PRM
from reasonflux_prm.prm.checkpoint import Checkpoint
from reasonflux_prm.prm.config import DecoderConfig
from reasonflux_prm.prm.hub import locate

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_SHARE_FOR_WEIGHTS = 0.8
"""Of a GPU's free memory; the rest is for activations."""


def load_prm(
    name: str = "embedded",
    *,
    dtype: str | None = None,
    device: str | None = None,
    family: str | None = None,
    revision: str | None = None,
    context: int | None = None,
    reference: str | None = None,
) -> PRM:
    """Load a PRM.

    Args:
        name: `embedded`, a checkpoint folder, or a hub id.
        dtype: A key of `DTYPES`; None takes float32 on a CPU and bfloat16 on a GPU.
        device: As torch names it; None takes the first GPU, or all if the weights are too large for it, or the CPU.
        family: A name in `FAMILIES`, where the files do not tell it or tell it wrong.
        revision: Branch, tag or commit on the hub.
        context: Tokens of the longest input, at most as many as the model has positions for; None takes them all.
        reference: The second checkpoint of an implicit PRM, named like the first; None takes the published one.

    Raises:
        UsageError: An argument is out of its range or does not go with this PRM.
        CheckpointError: The checkpoint is incomplete, of no known family, or would give meaningless scores.
        DownloadError: It could not be fetched.
    """
    if dtype is not None and dtype not in DTYPES:
        raise UsageError(f"dtype {dtype!r} is not one of {', '.join(DTYPES)}")
    checkpoint = _open(name, revision, dtype, device)
    row = _family(checkpoint, family)
    if reference is not None and row.reference is None:
        raise UsageError(f"a reference model was given, but a PRM of the family {row.name!r} has none; leave it out")
    checkpoints = [checkpoint]
    if row.reference is not None:
        checkpoints.append(_open(reference or row.reference, None, dtype, device))
    prm = row.load(checkpoints)
    _check_controls(prm, checkpoint)
    if context is not None:
        positions = prm.decoder.config.context
        if not 0 < context <= positions:
            raise UsageError(
                f"context {context:,} is not between 1 and {positions:,}, the positions of {checkpoint.name}"
            )
        prm.spec = replace(prm.spec, context_length=context)
    return prm


# --- families ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Family:
    """One row of the table."""

    name: str
    matches: Callable[[Checkpoint], bool]
    """Whether a checkpoint is of this family, from its configuration, the names of its weights, or its own name."""
    load: Callable[[Sequence[Checkpoint]], PRM]
    """Takes the checkpoint, and the reference model behind it where the family has one."""
    reference: str | None = None
    """The published reference model of a family that needs one."""


def _native(checkpoints: Sequence[Checkpoint]) -> PRM:
    from reasonflux_prm.prm.families.native import NativePRM

    return NativePRM.load(*checkpoints)


def _implicit(checkpoints: Sequence[Checkpoint]) -> PRM:
    from reasonflux_prm.prm.families.implicit import ImplicitPRM

    return ImplicitPRM.load(*checkpoints)


def _math_shepherd(checkpoints: Sequence[Checkpoint]) -> PRM:
    from reasonflux_prm.prm.families.math_shepherd import MathShepherdPRM

    return MathShepherdPRM.load(*checkpoints)


def _rlhflow(checkpoints: Sequence[Checkpoint]) -> PRM:
    from reasonflux_prm.prm.families.rlhflow import RLHFlowPRM

    return RLHFlowPRM.load(*checkpoints)


def _pure(checkpoints: Sequence[Checkpoint]) -> PRM:
    from reasonflux_prm.prm.families.pure import PurePRM

    return PurePRM.load(*checkpoints)


def _reasonflux_scalar(checkpoints: Sequence[Checkpoint]) -> PRM:
    from reasonflux_prm.prm.families.reasonflux_scalar import ReasonFluxScalarPRM

    return ReasonFluxScalarPRM.load(*checkpoints)


def _skywork(checkpoints: Sequence[Checkpoint]) -> PRM:
    from reasonflux_prm.prm.families.skywork import SkyworkPRM

    return SkyworkPRM.load(*checkpoints)


def _reasonflux(checkpoints: Sequence[Checkpoint]) -> PRM:
    from reasonflux_prm.prm.families.qwen import QwenPRM

    return QwenPRM.load_reasonflux(*checkpoints)


def _qwen(checkpoints: Sequence[Checkpoint]) -> PRM:
    from reasonflux_prm.prm.families.qwen import QwenPRM

    return QwenPRM.load(*checkpoints)


def _token_classification(checkpoints: Sequence[Checkpoint]) -> PRM:
    from reasonflux_prm.prm.families.token_classification import TokenClassificationPRM

    return TokenClassificationPRM.load(*checkpoints)


def _named(*parts: str) -> Callable[[Checkpoint], bool]:
    """Return a test of the checkpoint's own name: hub id, or last part of a folder's path."""

    def matches(checkpoint: Checkpoint) -> bool:
        own = checkpoint.name
        if Path(own).is_dir():
            folder = checkpoint.folder.resolve()
            # The hub's cache keeps OWNER/NAME as models--OWNER--NAME/snapshots/COMMIT.
            own = folder.parents[1].name.removeprefix("models--") if folder.parent.name == "snapshots" else folder.name
        own = own.replace("--", "/").casefold()
        return any(part in own for part in parts)

    return matches


FAMILIES: tuple[Family, ...] = (
    Family("native", lambda c: "prm" in c.config, _native),
    # These read a language model's logits, or look like any other token classifier: only the name tells them.
    Family("implicit", _named("eurusprm", "implicitprm"), _implicit, reference="Qwen/Qwen2.5-Math-7B-Instruct"),
    Family("math-shepherd", _named("math-shepherd"), _math_shepherd),
    Family("rlhflow", _named("prm-mistral-data", "prm-deepseek-data"), _rlhflow),
    Family("pure", _named("pure-prm", "jinachris/"), _pure),
    # From here on the weights tell, or the class that a published configuration names.
    Family("reasonflux-scalar", lambda c: _has_scalar_head(c) or _named("reasonflux-prm-1.5b")(c), _reasonflux_scalar),
    Family("skywork", lambda c: "v_head.summary.weight" in c.files or c.architecture == "Qwen2ForPrmModel", _skywork),
    Family("reasonflux", _named("reasonflux-prm"), _reasonflux),
    Family("qwen-math", lambda c: "score.0.weight" in c.files or c.architecture == "Qwen2ForProcessRewardModel", _qwen),
    Family("token-classification", lambda c: c.architecture.endswith("ForTokenClassification"), _token_classification),
)
"""In the order they are tried; `family=` names one."""


def _has_scalar_head(checkpoint: Checkpoint) -> bool:
    return (checkpoint.folder / "reward_head.pt").exists() or "reward_head.weight" in checkpoint.files


def _family(checkpoint: Checkpoint, asked: str | None) -> Family:
    names = ", ".join(family.name for family in FAMILIES)
    for family in FAMILIES:
        if family.name == asked or (asked is None and family.matches(checkpoint)):
            return family
    if asked is not None:
        raise UsageError(f"family {asked!r} is not one of {names}")
    kind = checkpoint.architecture or "no architecture"
    if kind.endswith("ForCausalLM"):
        raise CheckpointError(
            f"{checkpoint.where}: {kind} with a language model's head only: logits would be "
            f"{int(checkpoint.config.get('vocab_size', 0)):,} wide; the reward head is missing. If this PRM reads a "
            "language model's logits, name its family: math-shepherd, rlhflow or implicit"
        )
    raise CheckpointError(
        f"{checkpoint.where}: {kind} is no PRM that is known here; name its family if it is one of {names}"
    )


# --- where the weights go ------------------------------------------------------------------------------------------


def _open(name: str, revision: str | None, dtype: str | None, device: str | None) -> Checkpoint:
    found = locate(name, revision)
    unplaced = Checkpoint(found.folder, name=found.name)
    config = DecoderConfig.from_json(unplaced.config, unplaced.where)
    parameters = config.flops_per_token // 2 + config.vocabulary * config.hidden
    kind = _devices(device, 0)[0].type
    chosen = DTYPES[dtype or ("bfloat16" if kind == "cuda" else "float32")]
    devices = _devices(device, parameters * chosen.itemsize)
    return Checkpoint(found.folder, name=found.name, revision=found.revision, dtype=chosen, devices=devices)


def _devices(device: str | None, weight_bytes: int) -> list[torch.device]:
    """Return the devices for weights of that size: what was asked for, or one GPU, or all, or the CPU."""
    if device is None:
        count = torch.cuda.device_count()
        if not count:
            return [torch.device("cpu")]
        free, _ = torch.cuda.mem_get_info(0)
        fits = count == 1 or weight_bytes <= free * _SHARE_FOR_WEIGHTS
        return [torch.device("cuda", number) for number in range(1 if fits else count)]
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise UsageError(f"device {device!r} is not one that torch knows, such as cpu, cuda or cuda:1") from error
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"device {device!r} was asked for, but torch sees {torch.cuda.device_count()} GPUs here")
    return [chosen]


def _check_controls(prm: PRM, checkpoint: Checkpoint) -> None:
    rows = len(prm.decoder.embedding)
    for number, token in prm.tokenizer.controls.items():
        if number >= rows:
            raise CheckpointError(
                f"{checkpoint.where}: the tokenizer's {token!r} has id {number:,}, the model has {rows:,} embeddings; "
                "tokenizer and weights are not of one checkpoint"
            )
