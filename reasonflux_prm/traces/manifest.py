"""What a run says of itself, in `X.manifest.json` beside its output `X.jsonl`."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from reasonflux_prm.errors import InputError
from reasonflux_prm.traces.write import atomic_path, side_path, writing

SCHEMA: Final = 1
"""The number of the present form of the files and their manifests."""
MANIFEST_SUFFIX: Final = ".manifest.json"


def _versions() -> dict[str, str]:
    """Return what made the output. torch is named only if the run loaded it: a manifest is no reason to."""
    try:
        package = version("reasonflux-prm")
    except PackageNotFoundError:
        package = "unknown"
    versions = {"reasonflux-prm": package, "python": platform.python_version()}
    if torch := sys.modules.get("torch"):
        versions["torch"] = str(torch.__version__)
    return versions


@dataclass(frozen=True, slots=True)
class Manifest:
    """Counts, settings, versions and timings of one run."""

    kind: str
    """What the output holds: `scored`, `picks`, ..."""
    counts: Mapping[str, int]
    """Records of the output by status; no status without records."""
    settings: Mapping[str, Any]
    """Everything that the output depends on, as JSON values."""
    rejects: int = 0
    """Input records that could not be read."""
    timings_s: Mapping[str, float] = field(default_factory=dict)
    """Wall time by stage, in seconds."""
    versions: Mapping[str, str] = field(default_factory=_versions)
    """Version of the package, of Python, and of torch if it was loaded."""
    schema: int = SCHEMA
    details: Mapping[str, Any] = field(default_factory=dict)
    """What else there is to say of the run, as JSON values: reasons, cost. Left out of the file if there is nothing."""


def write_manifest(manifest: Manifest, output: str | Path) -> Path:
    """Write a manifest beside an output, whole or not at all.

    Returns:
        The manifest's path.

    Raises:
        OutputError: The file could not be written.
    """
    path = side_path(Path(output), MANIFEST_SUFFIX)
    content = {"schema": manifest.schema, **asdict(manifest)}
    if not manifest.details:
        del content["details"]
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, indent=2)
    with atomic_path(path) as part, writing(path):
        part.write_text(f"{text}\n", encoding="utf-8")
    return path


def read_manifest(output: str | Path) -> Manifest:
    """Read the manifest beside an output.

    Raises:
        InputError: There is none, it is damaged, or a newer version of the package wrote it.
    """
    path = side_path(Path(output), MANIFEST_SUFFIX)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"expected a manifest {path} beside {output}, but there is none") from error
    except (OSError, ValueError) as error:
        raise InputError(f"expected the manifest {path} to be readable JSON, got: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("schema"), int):
        raise InputError(f"expected the manifest {path} to be an object with a schema number")
    if content["schema"] > SCHEMA:
        raise InputError(
            f"expected the manifest {path} to have schema {SCHEMA} or less, got {content['schema']}: "
            "upgrade reasonflux-prm"
        )
    names = {known.name for known in fields(Manifest)}
    if content.keys() | {"details"} != names:
        raise InputError(
            f"expected the manifest {path} to have {', '.join(sorted(names))}, got {', '.join(sorted(content))}"
        )
    return Manifest(**content)
