"""The model card of a trained PRM, written from what the run did."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reasonflux_prm.training.config import EMBEDDED_BASE, TrainConfig
from reasonflux_prm.training.data import Data, Part
from reasonflux_prm.training.model import Base, licence

_LOSSES = {"mse": "mean squared error", "bce": "binary cross entropy on soft targets"}


def card(config: TrainConfig, base: Base, data: Data, record: Mapping[str, Any]) -> str:
    """Return the card, as Markdown with the hub's front matter.

    Args:
        config: The run's.
        base: What it started from.
        data: What it read.
        record: What `training.json` says.
    """
    own = config.license or licence(base)
    front = ["---", *([f"license: {own}"] if own else []), "library_name: transformers"]
    front += ["pipeline_tag: token-classification", "tags: [process-reward-model, reasonflux-prm]", "---"]
    sections = (
        _what(base, config),
        _data(data, config),
        _training(config, base, record),
        _results(record, data.dev),
        _use(base),
        _licence(own, base),
    )
    return "\n".join(front) + "\n\n" + "\n\n".join(sections) + "\n"


def _what(base: Base, config: TrainConfig) -> str:
    settings = base.settings
    trajectory = (
        f", and the trajectory's at `{settings.marker}`" if settings.marker else "; it gives none for the whole"
    )
    order = "problem, thinking, response" if config.layout == "causal" else "problem, response, thinking"
    return (
        f"# A process reward model from {_shown(base)}\n\n"
        f"It reads {order}, and gives a reward in [0, 1] for every step at `{settings.separator}`{trajectory}."
    )


def _data(data: Data, config: TrainConfig) -> str:
    rows = [
        "## Data\n",
        "| part | traces | problems | tokens | step targets | trajectory targets | traces in windows |",
        "|---|---|---|---|---|---|---|",
    ]
    rows += [
        f"| {name} | {part.traces:,} | {len(part.groups):,} | {part.tokens:,} | {part.step_targets.total():,} | "
        f"{part.trajectory_targets.total():,} | {part.long:,} |"
        for name, part in (("train", data.train), ("dev", data.dev))
    ]
    rows.append(f"\nFiles: {', '.join(f'`{_name(source)}`' for source in (*config.data, *config.dev))}.")
    rows.append(
        "Labels: " + ", ".join(f"`{name}` ({n:,} traces)" for name, n in data.train.formulas.most_common()) + "."
    )
    if left := sum(data.left_out.values()) + len(data.rejects):
        reasons = ", ".join(f"{number:,} {reason}" for reason, number in data.left_out.most_common())
        rows.append(f"Left out: {left:,} records ({reasons or 'unreadable'}).")
    if data.outside:
        rows.append(f"{data.outside:,} targets lie outside [0, 1], where the PRM's rewards cannot follow.")
    for name, counts in (("step", data.train.step_targets), ("trajectory", data.train.trajectory_targets)):
        if len(counts) == 1:
            rows.append(f"All {name} targets are {next(iter(counts)):g}: the {name} reward says nothing.")
    return "\n".join(rows)


def _training(config: TrainConfig, base: Base, record: Mapping[str, Any]) -> str:
    share = "1/T a step, every trace alike" if config.weighting == "trace" else "every read alike"
    trajectory = f" + {config.lambda_final:g} * trajectory" if base.settings.marker else ""
    pair = f" + {config.lambda_pair:g} * pairs of one problem (Bradley-Terry)" if config.lambda_pair else ""
    how = {"full": "all weights", "lora": f"LoRA of rank {config.lora_rank}, merged"}.get(
        config.method, f"the top {config.layers_trained()} layers and the head"
    )
    best = f"; the best was step {record['best_step']:,}" if record.get("best_step") else ""
    lines = [
        "## Training\n",
        f"Objective: {config.lambda_step:g} * steps{trajectory}{pair}; "
        f"{_LOSSES[config.loss]}, {share} (arXiv:2506.18896).",
        f"Trained: {how}. Peak learning rate {config.rate():g} (head {config.rate() * config.head_rate_factor:g}), "
        f"{config.epochs:g} epochs, {config.batch_tokens:,} tokens a step, {record['steps']:,} steps{best}, seed "
        f"{config.seed}.",
        f"Base: {_shown(base)}, revision `{base.revision}`.",
    ]
    if config.card_command:
        lines.append(f"\n```\n{config.card_command}\n```")
    return "\n".join(lines)


def _results(record: Mapping[str, Any], dev: Part) -> str:
    if not record["results"]:
        return "## Results\n\nThere was no dev set, so nothing was measured."
    rows = ["## Results\n", "On the dev set, with the saved weights; intervals are 95%, resampled by problem.\n"]
    rows += ["| figure | value | interval | items | problems |", "|---|---|---|---|---|"]
    for result in record["results"]:
        ends = f"{result['low']:.3f} to {result['high']:.3f}" if result["low"] is not None else "-"
        value = "-" if result["value"] is None else f"{result['value']:.3f}"
        rows.append(f"| {result['name']} | {value} | {ends} | {result['n']:,} | {result['clusters']:,} |")
    if not dev.traces:
        rows.append("")
    return "\n".join(rows)


def _use(base: Base) -> str:
    return (
        "## Use\n\n```bash\nreasonflux-prm score traces.jsonl -o scored.jsonl --prm THIS_FOLDER\n```\n\n"
        "It is also a plain `AutoModelForTokenClassification` with one label: a reward is the sigmoid of the logit at "
        f"a `{base.settings.separator}`. Texts around the problem are under `prm` in `config.json`."
    )


def _licence(own: str | None, base: Base) -> str:
    if own:
        return f"## Licence\n\n{own}, as {_shown(base)}; the data may have terms of their own."
    return f"## Licence\n\n{_shown(base)} states none here: look it up before you share this model."


def _shown(base: Base) -> str:
    return "SmolLM2-135M-Instruct" if base.name == EMBEDDED_BASE else _name(base.name)


def _name(source: str) -> str:
    """Return a source without the folders of this machine."""
    return source.rstrip("/").rpartition("/")[2] if source.startswith(("/", ".", "~")) else source
