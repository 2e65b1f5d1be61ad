"""The data set's card: what the hub and `datasets` read in front, and below it how the data was made."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from reasonflux_prm.selection.export import Export

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_LOSS = {
    "messages": "TRL's SFTTrainer takes the loss on all tokens of `messages`, the problem's too, unless "
    "`assistant_only_loss=True` and a chat template with generation marks say otherwise.",
    "prompt-completion": "TRL's SFTTrainer takes the loss on `completion` alone.",
    "sharegpt": "LLaMA-Factory reads it with `formatting: sharegpt` and the tags `human` and `gpt`, its defaults; "
    "`dataset_info.json` has the entry.",
    "alpaca": "LLaMA-Factory reads it with `formatting: alpaca`; `dataset_info.json` has the entry.",
    "openthoughts": "The columns are those of OpenThoughts-114k.",
}


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a card tells."""

    title: str
    file: str
    """The data file, as the repository has it."""
    command: str
    export: Export
    counts: Mapping[str, int]
    """Traces by `reasons.Reason`."""
    settings: Mapping[str, Any]
    prms: Sequence[str] = ()
    benchmarks: Mapping[str, int] = field(default_factory=dict)
    """Name -> problems that the pool was compared with."""
    sources: Mapping[str, int] = field(default_factory=dict)
    """Teacher -> kept traces."""
    longest_tokens: int | None = None
    tokenizer: str | None = None
    license: str | None = None
    source: str = ""
    version: str = ""


def write_card(recipe: Recipe) -> str:
    """Return the card's text: YAML between `---`, then Markdown."""
    return f"---\n{_front(recipe)}---\n\n{_body(recipe)}"


def _front(recipe: Recipe) -> str:
    kept = recipe.counts.get("kept", 0)
    size = next((name for most, name in _SIZES if kept < most), "n>1M")
    lines = [] if recipe.license is None else [f"license: {json.dumps(recipe.license)}"]
    lines += [
        "task_categories:",
        "- text-generation",
        "tags:",
        "- reasoning",
        "- sft",
        "- reasonflux-prm",
        "size_categories:",
        f"- {size}",
        "configs:",
        "- config_name: default",
        "  data_files:",
        "  - split: train",
        f"    path: {json.dumps(recipe.file)}",
    ]
    return "\n".join(lines) + "\n"


def _body(recipe: Recipe) -> str:
    kept, pool = recipe.counts.get("kept", 0), sum(recipe.counts.values())
    template = recipe.export.template
    parts = [
        f"# {_plain(recipe.title)}",
        f"{kept:,} traces, chosen from {pool:,} by `reasonflux-prm select` {recipe.version}. Made with:",
        _fence(recipe.command),
        "## What was left out",
        _table(("why", "traces"), [(why, f"{n:,}") for why, n in recipe.counts.items() if why != "kept"]),
        "## Whose traces are kept",
        _table(("teacher", "traces"), [(name, f"{n:,}") for name, n in recipe.sources.items()]),
        "## How they were ranked",
        f"By `{recipe.settings['by']}`, seed {recipe.settings['seed']}. "
        + (f"Rewards of {', '.join(f'`{_plain(name)}`' for name in recipe.prms)}." if recipe.prms else "No PRM."),
        "## How to train on it",
        f"Format `{recipe.export.form}`, template `{template.name}`. {_LOSS[recipe.export.form]}",
        _length(recipe),
    ]
    if recipe.benchmarks:
        named = ", ".join(f"{_plain(name)} ({number:,} problems)" for name, number in recipe.benchmarks.items())
        n = recipe.settings["filters"]["ngram"]
        parts.insert(6, f"Traces that share {n} words in a row with a problem of these were left out: {named}.")
    return "\n\n".join(part for part in parts if part) + "\n"


def _length(recipe: Recipe) -> str:
    trap = "SFTTrainer cuts rows at `max_length`, by default 1,024 tokens, without a word"
    if recipe.longest_tokens is None:
        return f"{trap}: set it to the longest row of yours."
    return (
        f"The longest row has {recipe.longest_tokens:,} tokens of `{_plain(str(recipe.tokenizer))}`, the chat "
        f"template's own not counted. {trap}: set it higher."
    )


def _table(head: tuple[str, str], rows: Sequence[tuple[str, str]]) -> str:
    if not rows:
        return "None."
    lines = [f"| {head[0]} | {head[1]} |", "|---|---:|", *(f"| {_plain(name)} | {number} |" for name, number in rows)]
    return "\n".join(lines)


def _fence(command: str) -> str:
    return f"```console\n{_plain(command)}\n```"


def _plain(text: str) -> str:
    """Text of strangers in one line, without what ends a table's cell or a block."""
    return " ".join(text.split()).replace("|", "\\|").replace("`", "'")


def llama_factory_info(name: str, file: str, form: str, *, system: bool) -> dict[str, Any]:
    """Return the entry of LLaMA-Factory's `dataset_info.json` (its data/README.md) for a file of ours."""
    extra = {"system": "system"} if system else {}
    if form == "alpaca":
        columns = {"prompt": "instruction", "query": "input", "response": "output", **extra}
        return {name: {"file_name": file, "formatting": "alpaca", "columns": columns}}
    return {name: {"file_name": file, "formatting": "sharegpt", "columns": {"messages": "conversations", **extra}}}
