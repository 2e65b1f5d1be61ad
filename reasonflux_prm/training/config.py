"""Everything that a training run depends on, in one place."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal, get_args

from reasonflux_prm.errors import UsageError

Method = Literal["full", "lora", "frozen"]
Loss = Literal["mse", "bce"]
Weighting = Literal["trace", "step"]
Layout = Literal["causal", "response_first"]
Overflow = Literal["window", "refuse"]
CacheType = Literal["float16", "float32"]
Metric = Literal["loss", "step_auc", "best_of_n"]

METHODS: Final[tuple[Method, ...]] = get_args(Method)
LOSSES: Final[tuple[Loss, ...]] = get_args(Loss)
WEIGHTINGS: Final[tuple[Weighting, ...]] = get_args(Weighting)
LAYOUTS: Final[tuple[Layout, ...]] = get_args(Layout)
OVERFLOWS: Final[tuple[Overflow, ...]] = get_args(Overflow)
CACHE_TYPES: Final[tuple[CacheType, ...]] = get_args(CacheType)
METRICS: Final[tuple[Metric, ...]] = get_args(Metric)
TRACKERS: Final = ("tensorboard", "wandb", "trackio", "none")

EMBEDDED_BASE: Final = "embedded-base"
"""Value of `base` that names the language model under the embedded PRM."""
_RATES: Final[Mapping[Method, float]] = {"full": 1e-5, "lora": 2e-4, "frozen": 1e-4}
_NO_MATTER: Final = (
    "output",
    "cache",
    "fresh",
    "threads",
    "trackers",
    "log_steps",
    "save_steps",
    "card_command",
    "license",
)
"""Fields that do not change what is learned, so a run may go on with others."""


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """How to train a PRM; the defaults are a small run on a CPU."""

    data: tuple[str, ...]
    """Files of labels, or of steps with recorded labels; see `training.data`."""
    output: str
    """The folder of the PRM."""
    base: str = EMBEDDED_BASE
    """`embedded-base`, a folder, or a hub id: a causal language model, or a PRM in our own format to go on from."""
    dev: tuple[str, ...] = ()
    """Files of labels to evaluate on; none sets `dev_share` aside."""
    dev_share: float = 0.05
    """Share of the problems of `data` that is set aside if `dev` names nothing; 0 for no evaluation."""
    format: str = "auto"
    columns: Mapping[str, str] = field(default_factory=dict)
    limit: int | None = None
    """Read the first so many records of each file."""
    outcome_targets: bool = False
    """Take a trace's recorded verdict (right 1, wrong 0) as trajectory target where a label has none."""
    layout: Layout = "causal"
    separator: str | None = None
    marker: str | None = None
    """Control tokens to read at; None chooses unused ones of the tokenizer's, or adds two."""
    context: int | None = None
    """Tokens of the longest sequence; None takes what the base has positions for."""
    overflow: Overflow = "window"
    """Longer traces are cut into windows that overlap, each target in one of them; or refused, and counted."""
    # --- objective
    loss: Loss = "mse"
    weighting: Weighting = "trace"
    lambda_step: float = 1.0
    lambda_final: float = 1.0
    lambda_pair: float = 0.0
    """Weight of the Bradley-Terry term between traces of one problem; 0 leaves it out."""
    pair_margin: float = 0.0
    """Trajectory targets that differ by no more than this make no pair."""
    # --- what is trained
    method: Method = "full"
    train_layers: int | None = None
    """`frozen`: so many layers at the top are trained over cached activations; None takes 2, 0 the head alone."""
    cache_type: CacheType = "float16"
    cache: str | None = None
    """`frozen`: the folder of the activations, which runs on the same data can share; None takes the output's."""
    lora_rank: int = 16
    lora_alpha: float = 32.0
    lora_layers: int | None = None
    """`lora`: adapt the top so many layers only; None adapts all."""
    # --- optimisation
    epochs: float = 3.0
    batch_tokens: int = 16_384
    """Tokens of an optimizer step, all processes together."""
    pack_tokens: int | None = None
    """Tokens of one forward pass; None takes 2,048 on a CPU and 16,384 on a GPU."""
    learning_rate: float | None = None
    """Peak; None takes 1e-5 for `full`, 2e-4 for `lora`, 1e-4 for `frozen`."""
    head_rate_factor: float = 10.0
    """The head starts from noise: it learns at this times the rate of the rest."""
    weight_decay: float = 0.0
    warmup: float = 0.05
    """Share of the steps."""
    schedule: str = "linear"
    """A name that transformers knows: `linear`, `cosine`, `constant_with_warmup`, ..."""
    max_grad_norm: float = 1.0
    seed: int = 0
    bf16: bool = False
    gradient_checkpointing: bool = False
    # --- evaluation and run
    evaluate_steps: int | None = None
    """Evaluate every so many steps; None once an epoch."""
    select: Metric = "loss"
    """The checkpoint that is kept is the best by this, on the dev set."""
    patience: int | None = None
    """Stop after so many evaluations in a row that are no better; None never does."""
    save_steps: int | None = None
    """A checkpoint every so many steps besides those of evaluations; None takes the evaluations' alone."""
    log_steps: int = 10
    trackers: tuple[str, ...] | None = None
    """Names in `TRACKERS`; None takes tensorboard if it is installed."""
    threads: int | None = None
    fresh: bool = False
    """Start over and replace what is in the output."""
    adapter: bool = False
    """Also write the small file that turns the embedded base into this PRM."""
    license: str | None = None
    """For the card; None takes the base's, if that is known."""
    card_command: str | None = None
    """For the card: the command that was run."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """More fields of `transformers.TrainingArguments` (`fsdp`, `deepspeed`, `optim`, ...)."""

    def rate(self) -> float:
        """Return the peak learning rate."""
        return _RATES[self.method] if self.learning_rate is None else self.learning_rate

    def layers_trained(self) -> int:
        """Return how many layers `frozen` trains."""
        return 2 if self.train_layers is None else self.train_layers

    def identity(self) -> dict[str, Any]:
        """Return what the result depends on besides the files' contents, as JSON values."""
        values = {name: value for name, value in asdict(self).items() if name not in _NO_MATTER}
        return {**values, "columns": dict(self.columns), "extra": {k: str(v) for k, v in self.extra.items()}}

    def check(self) -> None:
        """Check what can be checked without reading anything.

        Raises:
            UsageError: A field is out of its range, or two do not go together.
        """
        _check_choices(self)
        _check_ranges(self)
        if not self.data:
            raise UsageError("expected at least one file of labels to train on, got none")
        if self.train_layers is not None and self.method != "frozen":
            raise UsageError(f"--train-layers goes with --method frozen, not {self.method}; leave it out")
        if self.lora_layers is not None and self.method != "lora":
            raise UsageError(f"--lora-layers goes with --method lora, not {self.method}; leave it out")
        if not (self.lambda_step or self.lambda_final or self.lambda_pair):
            raise UsageError("all weights of the objective are 0: nothing would be learned; leave one above 0")
        if self.adapter and self.base != EMBEDDED_BASE:
            raise UsageError(f"--adapter is a change of the embedded base, and the base is {self.base}; leave it out")
        if self.adapter and self.method == "full":
            raise UsageError(
                "--adapter stays small with --method lora or frozen only; full training changes all weights"
            )


def _check_choices(config: TrainConfig) -> None:
    for name, value, known in (
        ("method", config.method, METHODS),
        ("loss", config.loss, LOSSES),
        ("weighting", config.weighting, WEIGHTINGS),
        ("layout", config.layout, LAYOUTS),
        ("overflow", config.overflow, OVERFLOWS),
        ("cache_type", config.cache_type, CACHE_TYPES),
        ("select", config.select, METRICS),
        *(("trackers", tracker, TRACKERS) for tracker in config.trackers or ()),
    ):
        if value not in known:
            raise UsageError(f"unknown {name} {value!r}; there are {', '.join(known)}")


def _check_ranges(config: TrainConfig) -> None:
    for name in ("lambda_step", "lambda_final", "lambda_pair", "pair_margin", "weight_decay", "max_grad_norm"):
        value = getattr(config, name)
        if not (math.isfinite(value) and value >= 0):
            raise UsageError(f"{name} must be a finite number of at least 0, got {value}")
    for name in ("epochs", "learning_rate", "head_rate_factor", "lora_alpha"):
        value = getattr(config, name)
        if value is not None and not (math.isfinite(value) and value > 0):
            raise UsageError(f"{name} must be a finite number above 0, got {value}")
    counts = ("batch_tokens", "pack_tokens", "context", "lora_rank", "lora_layers", "log_steps", "evaluate_steps")
    for name in (*counts, "save_steps", "patience", "threads", "limit"):
        value = getattr(config, name)
        if value is not None and value < 1:
            raise UsageError(f"{name} must be at least 1, got {value}")
    if config.train_layers is not None and config.train_layers < 0:
        raise UsageError(f"train_layers must be at least 0, got {config.train_layers}")
    if not 0 <= config.dev_share < 1:
        raise UsageError(f"dev_share must be at least 0 and below 1, got {config.dev_share:g}")
    if not 0 <= config.warmup < 1:
        raise UsageError(f"warmup must be at least 0 and below 1, got {config.warmup:g}")
