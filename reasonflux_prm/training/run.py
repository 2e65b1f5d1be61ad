"""Train a PRM into a folder: read, build, train, save, evaluate what was saved, and write its card."""

from __future__ import annotations

import gc
import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch

from reasonflux_prm.errors import InputError, MissingExtra, ReasonFluxError
from reasonflux_prm.prm.families.native import NativeInput
from reasonflux_prm.storage import sync
from reasonflux_prm.traces.manifest import SCHEMA
from reasonflux_prm.traces.resumable import Input
from reasonflux_prm.traces.write import atomic_path, json_line
from reasonflux_prm.training.batches import Pack, Packing, all_packs
from reasonflux_prm.training.card import card
from reasonflux_prm.training.config import TrainConfig
from reasonflux_prm.training.data import Data, read_data
from reasonflux_prm.training.dev import Result, evaluate_saved, known_of
from reasonflux_prm.training.folder import RunFolder
from reasonflux_prm.training.model import Base, open_base, require_train

if TYPE_CHECKING:
    from reasonflux_prm.training.progress import Hook

REJECTS: Final = "rejects.jsonl"


class OutOfMemory(ReasonFluxError, MemoryError):
    """The model, or a batch, does not fit into memory."""

    exit_code = 3


@dataclass(frozen=True)
class Prepared:
    """Everything that is known before a weight is loaded."""

    config: TrainConfig
    base: Base
    input: NativeInput
    data: Data
    packs: Sequence[Pack]
    """Of the whole training, over all processes."""
    pack_tokens: int
    accumulate: int
    """Packs of an optimizer step, in each process."""
    processes: int

    @property
    def steps(self) -> int:
        """Return the number of optimizer steps."""
        return math.ceil(len(self.packs) / (self.processes * self.accumulate))

    def step_tokens(self) -> list[int]:
        """Return the tokens of each optimizer step."""
        size = self.processes * self.accumulate
        lengths = [sum(len(self.data.train.examples[n]) for n in pack) for pack in self.packs]
        return [sum(lengths[start : start + size]) for start in range(0, len(lengths), size)]


@dataclass(frozen=True)
class Trained:
    """What came of a run."""

    folder: Path
    results: tuple[Result, ...]
    """Of the saved PRM on the dev set."""
    record: Mapping[str, Any]
    """What `training.json` in the folder says."""
    was_complete: bool = False
    """Whether an earlier call had done it all."""


def prepare(config: TrainConfig) -> Prepared:
    """Read the data and plan the batches; no weights are loaded.

    Raises:
        UsageError, InputError, CheckpointError: See `train`.
    """
    config.check()
    require_train()
    base = open_base(config)
    data = read_data(config, base.input(config.context))
    if not data.train.trajectory_targets:
        # A marker that was never trained would give rewards that mean nothing.
        base = replace(base, settings=replace(base.settings, marker=None))
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    pack_tokens = config.pack_tokens or (16_384 if torch.cuda.is_available() else 2_048)
    packing = Packing(pack_tokens, config.seed, together=config.lambda_pair > 0)
    packs = all_packs(data.train.examples, packing, config.epochs, processes)
    accumulate = max(1, round(config.batch_tokens / (pack_tokens * processes)))
    return Prepared(config, base, base.input(config.context), data, packs, pack_tokens, accumulate, processes)


def train(config: TrainConfig, hook: Hook | None = None) -> Trained:
    """Train a PRM into a folder, or go on where an interrupted run of the same configuration and files stopped.

    Args:
        config: What to do.
        hook: Told how far it is; see `progress.Now`.

    Raises:
        UsageError: The configuration makes no sense.
        InputError: A file cannot be read, or there is nothing to learn from.
        CheckpointError: The base cannot be trained from.
        ResumeError: The folder belongs to another run.
        OutOfMemory: A batch does not fit into memory.
        MissingExtra: What training needs is not installed.
        OutputError: The folder cannot be written.
    """
    config.check()
    require_train()
    if config.threads:
        torch.set_num_threads(config.threads)
    base = open_base(config)
    folder = RunFolder(Path(config.output), _identity(config, base))
    if folder.check(fresh=config.fresh):
        record = folder.record()
        return Trained(folder.path, (), record, was_complete=True)
    prepared = prepare(config)
    try:
        return _run(prepared, folder, hook)
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, ReasonFluxError) or not _is_out_of_memory(error):
            raise
        raise OutOfMemory(
            f"a batch of {prepared.pack_tokens:,} tokens does not fit into memory: pass a smaller --pack-tokens, "
            "--gradient-checkpointing, --context, or --method lora or frozen; the same command goes on from the last "
            "checkpoint"
        ) from error


def _run(prepared: Prepared, folder: RunFolder, hook: Hook | None) -> Trained:
    from reasonflux_prm.training.loop import fit

    began = time.monotonic()
    trainer = fit(prepared, folder, hook)
    trained = folder.work / "final"
    trainer.save_model(str(trained))
    history, main = list(trainer.state.log_history), trainer.is_world_process_zero()
    best = trainer.state.best_global_step
    barrier = trainer.accelerator.wait_for_everyone
    del trainer
    gc.collect()
    results: list[Result] = []
    record: dict[str, Any] = {}
    if main:
        results = _save(prepared, folder, trained)
        record = _record(prepared, folder, history, best, results, time.monotonic() - began)
        with atomic_path(folder.path / "README.md") as part:
            part.write_text(card(prepared.config, prepared.base, prepared.data, record), "utf-8")
        folder.finish(record)
    barrier()
    return Trained(folder.path, tuple(results), record)


def _save(prepared: Prepared, folder: RunFolder, trained: Path) -> list[Result]:
    from reasonflux_prm.training.saving import ADAPTER, assemble, write_adapter, write_prm

    config, base = prepared.config, prepared.base
    built = folder.work / "built"
    model = assemble(base, config, trained)
    write_prm(model, base, config, built)
    if config.adapter:
        write_adapter(model, base, config, trained, built / ADAPTER)
    del model
    gc.collect()
    for path in built.iterdir():
        sync(path)
    folder.place(built)
    return evaluate_saved(folder.path, prepared.data.dev.kept, config.context)


def _identity(config: TrainConfig, base: Base) -> dict[str, Any]:
    files = [*config.data, *config.dev]
    prints = [Input(source, config.format, config.columns, config.limit).fingerprint() for source in files]
    return {
        **json.loads(json.dumps(config.identity())),
        "files": prints,
        "base_revision": base.revision,
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
    }


def _record(
    prepared: Prepared,
    folder: RunFolder,
    history: Sequence[Mapping[str, Any]],
    best: int | None,
    results: Sequence[Result],
    seconds: float,
) -> dict[str, Any]:
    import transformers

    from reasonflux_prm.traces.manifest import Manifest

    data = prepared.data
    with atomic_path(folder.work / REJECTS) as part:
        part.write_bytes(b"".join(json_line(asdict(reject)) for reject in data.rejects))
    return {
        "schema": SCHEMA,
        "kind": "training",
        "settings": dict(folder.identity),
        "data": {
            name: {
                "traces": part.traces,
                "problems": len(part.groups),
                "tokens": part.tokens,
                "step_targets": part.step_targets.total(),
                "trajectory_targets": part.trajectory_targets.total(),
                "windowed": part.long,
                "formulas": dict(part.formulas),
            }
            for name, part in (("train", data.train), ("dev", data.dev))
        },
        "left_out": dict(data.left_out),
        "refused": len(data.rejects),
        "targets_outside_0_1": data.outside,
        "steps": prepared.steps,
        "packs_a_step": prepared.accumulate * prepared.processes,
        "best_step": best,
        "results": [{"name": result.name, **asdict(result.interval)} for result in results],
        "history": [dict(entry) for entry in history],
        "seconds": round(seconds, 1),
        "versions": {**Manifest("training", {}, {}).versions, "transformers": transformers.__version__},
    }


def _is_out_of_memory(error: Exception) -> bool:
    # torch has a class for a GPU that is full; its CPU allocator raises a plain RuntimeError.
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def trackers(config: TrainConfig) -> list[str]:
    """Return the trackers to report to.

    Raises:
        MissingExtra: One is not installed.
    """
    if config.trackers is None:
        return ["tensorboard"] if find_spec("tensorboard") else []
    wanted = [name for name in config.trackers if name != "none"]
    if missing := [name for name in wanted if find_spec(name) is None]:
        raise MissingExtra(f"{' and '.join(missing)} is not installed: pip install {' '.join(missing)}")
    return wanted


def require_metric(prepared: Prepared) -> None:
    """Check that the dev set can tell which checkpoint is the best.

    Raises:
        InputError: It has nothing to measure that by.
    """
    dev, select = prepared.data.dev, prepared.config.select
    good = [target >= 0.5 for target in dev.step_targets]
    if select == "step_auc" and (all(good) or not any(good)):
        raise InputError(
            "--select step_auc needs good and wrong steps in the dev set, and all there are of one kind; use --select "
            "loss, or name other files with --dev"
        )
    if select == "best_of_n":
        several: dict[str, int] = {}
        for group, right in known_of(dev.kept).values():
            several[group] = several.get(group, 0) + (right is not None)
        if not any(number > 1 for number in several.values()):
            raise InputError(
                "--select best_of_n needs several traces of one problem, with their verdicts, in the dev set; use "
                "--select loss, or name other files with --dev"
            )
