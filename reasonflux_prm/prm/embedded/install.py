"""Checkpoint folders made from the fetched base: the embedded PRM, and the plain base for training.

A folder is built once, beside its final place, and renamed when it is whole. `built.json` in it records the size and
SHA-256 of every file. The folder's name holds the hashes of what went in, so a new adapter never meets an old folder.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from tokenizers import Tokenizer

from reasonflux_prm.prm.embedded.adapter import load_adapter, merge
from reasonflux_prm.prm.embedded.fetch import SMOLLM2, BaseRelease, fetch_gguf
from reasonflux_prm.prm.embedded.gguf_weights import read_gguf
from reasonflux_prm.storage import cache_folder, one_writer, sha256, sync

log = logging.getLogger(__name__)

ADAPTER = Path(__file__).with_name("adapter.safetensors")
"""The adapter and head that ship with the package."""
_RECORD = "built.json"
_LAYOUT = 1
"""Part of the folders' names: raise it when the same inputs are to give other files."""


def ensure_embedded(adapter: Path = ADAPTER, release: BaseRelease = SMOLLM2) -> Path:
    """Return the embedded PRM's checkpoint folder, building it if it is not in the cache or is damaged there.

    The folder is a plain `LlamaForTokenClassification` with the head `score` and the PRM's settings under `prm` in
    `config.json`: transformers and vLLM load it as it is.

    Args:
        adapter: The adapter file (see `adapter`).
        release: The base that the adapter was trained on.

    Raises:
        CheckpointError: There is no adapter, or it does not fit the base.
        DownloadError: The base is not here and could not be fetched.
        OutputError: The cache folder cannot be written.
    """
    loaded = load_adapter(adapter)
    adapter_sha256 = sha256(adapter)

    def build(folder: Path) -> None:
        model = read_gguf(fetch_gguf(release=release))
        tensors = merge(model.tensors, loaded, release.gguf_sha256)
        labels = {str(i): f"LABEL_{i}" for i in range(len(tensors["score.bias"]))}
        config = {
            **model.config,
            "architectures": ["LlamaForTokenClassification"],
            "id2label": labels,
            "label2id": {label: int(i) for i, label in labels.items()},
            "classifier_dropout": 0.0,
            "prm": dict(loaded.prm),
            # Part of the configuration, so two adapters never share a revision.
            "built_from": {"base_sha256": release.gguf_sha256, "adapter_sha256": adapter_sha256},
        }
        _write(folder, config, tensors, model.tokenizer, model.tokenizer_config)

    name = f"prm-{release.name}-{release.gguf_sha256[:12]}-{adapter_sha256[:12]}-v{_LAYOUT}"
    return _ensure(cache_folder() / name, build, release)


def ensure_base(release: BaseRelease = SMOLLM2) -> Path:
    """Return the base's folder, a plain `LlamaForCausalLM` in float32, building it if it is missing or damaged.

    Raises:
        DownloadError: The base is not here and could not be fetched.
        OutputError: The cache folder cannot be written.
    """

    def build(folder: Path) -> None:
        model = read_gguf(fetch_gguf(release=release))
        _write(folder, model.config, model.tensors, model.tokenizer, model.tokenizer_config)

    return _ensure(cache_folder() / f"{release.name}-{release.gguf_sha256[:12]}-v{_LAYOUT}", build, release)


def verify(folder: Path, *, read_all: bool = True) -> list[str]:
    """Return what is wrong with a folder built here, one sentence a fault; empty if it is sound.

    Args:
        folder: A folder that `ensure_embedded` or `ensure_base` returned.
        read_all: Hash every file. Else a file whose size and time of change are those of the build is taken as sound,
            which costs microseconds instead of about a second.
    """
    try:
        record = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
        files: Mapping[str, Mapping[str, Any]] = record["files"]
        faults = [_fault(folder / name, entry, read_all) for name, entry in files.items()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return [f"{folder / _RECORD} cannot be read: {error!r}"]
    return [fault for fault in faults if fault is not None]


def _fault(path: Path, entry: Mapping[str, Any], read_all: bool) -> str | None:
    if not path.is_file():
        return f"{path} is missing"
    found = path.stat()
    if found.st_size != entry["bytes"]:
        return f"{path} has {found.st_size} bytes, not {entry['bytes']}"
    if not read_all and found.st_mtime_ns == entry["changed_ns"]:
        return None
    return None if sha256(path) == entry["sha256"] else f"{path} has another SHA-256 than when it was built"


def _ensure(folder: Path, build: Callable[[Path], None], release: BaseRelease) -> Path:
    if not verify(folder, read_all=False):
        return folder
    with one_writer(folder, 4 * release.parameters + release.gguf_bytes):
        if folder.exists():
            faults = verify(folder, read_all=False)
            if not faults:
                return folder
            log.warning("the cached model is damaged and is built again: %s", "; ".join(faults))
        building = folder.with_name(f".{folder.name}.building")
        # Whatever a killed build left: the lock says that nobody is using it.
        shutil.rmtree(building, ignore_errors=True)
        try:
            building.mkdir()
            build(building)
            shutil.rmtree(folder, ignore_errors=True)
            building.rename(folder)
            sync(folder.parent)
        finally:
            shutil.rmtree(building, ignore_errors=True)
    return folder


def _write(
    folder: Path,
    config: Mapping[str, Any],
    tensors: dict[str, torch.Tensor],
    tokenizer: Tokenizer,
    tokenizer_config: Mapping[str, Any],
) -> None:
    texts = {
        "config.json": json.dumps(config, indent=2, ensure_ascii=False),
        "tokenizer.json": tokenizer.to_str(),
        "tokenizer_config.json": json.dumps(tokenizer_config, indent=2, ensure_ascii=False),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    weights = folder / "model.safetensors"
    try:
        save_file(tensors, weights, metadata={"format": "pt"})
    except SafetensorError as error:  # a full disk is one of these and no OSError
        raise OSError(str(error)) from error
    # safetensors writes for the owner only; a cache may be shared.
    shutil.copymode(folder / "config.json", weights)
    files = {}
    for path in sorted(folder.iterdir()):
        sync(path)
        found = os.stat(path)
        files[path.name] = {"sha256": sha256(path), "bytes": found.st_size, "changed_ns": found.st_mtime_ns}
    (folder / _RECORD).write_text(json.dumps({"schema": 1, "files": files}, indent=2), encoding="utf-8")
    sync(folder / _RECORD)
