"""A native checkpoint's folder written anew with a calibration, so that whoever loads it gets calibrated rewards.

The configuration is part of a folder's revision, so a calibrated PRM never passes for the one it was made of.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from reasonflux_prm.errors import CheckpointError, ResumeError
from reasonflux_prm.prm.calibration import Calibration
from reasonflux_prm.storage import sync
from reasonflux_prm.traces.run_files import RunFiles
from reasonflux_prm.traces.write import atomic_path, writing

_BUILT: Final = "built.json"
"""What `embedded.install` says of the folders that it builds."""


def calibration_of(folder: Path, where: str) -> Calibration:
    """Return the calibration of a native checkpoint; one without maps if it is not calibrated.

    Raises:
        CheckpointError: The folder is no native checkpoint, or its calibration cannot be read.
    """
    return Calibration.from_json(_settings(_config(folder, where), where).get("calibration") or {}, where)


def write_calibrated(
    source: Path,
    target: Path,
    calibration: Calibration,
    records: Mapping[str, str],
    *,
    where: str,
    replace: bool = False,
) -> None:
    """Copy a native checkpoint with another calibration, whole or not at all.

    Args:
        source: The checkpoint's folder.
        target: The new folder. If it is the source itself, its configuration is replaced in one move.
        calibration: In the place of the one that the source has, if any.
        records: Texts to put beside the weights, by the name of their file.
        where: Names the source in messages.
        replace: Replace what is at `target`.

    Raises:
        CheckpointError: The source is no native checkpoint, or one that the package keeps in its cache.
        ResumeError: There is something at `target`, and it is not to be replaced.
        OutputError: The folder could not be written.
    """
    config = _config(source, where)
    settings = {name: own for name, own in _settings(config, where).items() if name != "calibration"}
    config["prm"] = {**settings, "calibration": calibration.to_json()}
    texts = {**records, "config.json": json.dumps(config, indent=2, ensure_ascii=False) + "\n"}
    same = target.exists() and target.resolve() == source.resolve()
    if same and (source / _BUILT).exists():
        raise CheckpointError(f"{source} is built by the package, which would build it anew; choose another folder")
    if target.exists() and not replace:
        what = "is the PRM itself" if same else "exists already"
        raise ResumeError(f"{target} {what}; choose another folder, or pass --fresh to replace it")
    if target.exists() and not (target / "config.json").is_file():
        raise ResumeError(f"{target} exists and is no checkpoint, so it is not replaced; choose another folder")
    if same:
        # The configuration comes last: with it the rewards change.
        for name, text in texts.items():
            with atomic_path(target / name) as part:
                part.write_text(text, "utf-8")
        return
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    with RunFiles(target).only_writer():
        _copy(source, target, texts)


def _copy(source: Path, target: Path, texts: Mapping[str, str]) -> None:
    building = target.with_name(f".{target.name}.building")
    # Whatever a killed run left: the lock says that nobody is using it.
    shutil.rmtree(building, ignore_errors=True)
    try:
        with writing(target):
            building.mkdir()
            for path in sorted(source.iterdir()):
                if path.is_file() and path.name not in (_BUILT, *texts):
                    shutil.copy2(path, building / path.name)
            for name, text in texts.items():
                (building / name).write_text(text, "utf-8")
            for path in building.iterdir():
                sync(path)
            shutil.rmtree(target, ignore_errors=True)
            building.rename(target)
            sync(target.parent)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _config(folder: Path, where: str) -> dict[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        return dict(config)
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{where}: expected a checkpoint folder with a config.json, got: {error}") from error


def _settings(config: dict[str, Any], where: str) -> dict[str, Any]:
    settings = config.get("prm")
    if not isinstance(settings, dict):
        raise CheckpointError(
            f"{where} is no PRM in our own format, and only these carry a calibration; write the maps to a .json file "
            "instead"
        )
    return settings
