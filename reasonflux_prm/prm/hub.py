"""A checkpoint's name to a folder on this machine: the embedded PRM, a folder, or an id on the model hub."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from reasonflux_prm.errors import CheckpointError, DownloadError, UsageError
from reasonflux_prm.prm.embedded.catalog import EMBEDDED, find

_WANTED = ["*.json", "*.safetensors", "*.jinja", "tokenizer.model", "reward_head.pt"]
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")


@dataclass(frozen=True, slots=True)
class Located:
    """Where a checkpoint is."""

    name: str
    folder: Path
    revision: str | None
    """Hub commit; None for a folder of the user's own."""


def locate(name: str, revision: str | None = None) -> Located:
    """Find a checkpoint, fetching it if it is on the hub and not in the hub's cache here.

    Args:
        name: A name in the catalog, a folder, or a hub id.
        revision: Branch, tag or commit on the hub; None takes the main branch.

    Raises:
        UsageError: The name is none of these, or a revision is asked of something that is not on the hub.
        CheckpointError: The hub has it, but not as safetensors.
        DownloadError: It could not be fetched.
    """
    known = find(name)
    if known is EMBEDDED:
        _refuse_revision(name, revision)
        # Building it needs the GGUF reader, which no other PRM does.
        from reasonflux_prm.prm.embedded.install import ensure_embedded

        return Located(EMBEDDED.name, ensure_embedded(), None)
    folder = Path(name).expanduser()
    if name and folder.is_dir():
        _refuse_revision(name, revision)
        return Located(name, folder, None)
    if known is None and not _HUB_ID.fullmatch(name):
        raise UsageError(
            f"{name!r} is not a PRM that is known here: expected {EMBEDDED.name!r}, a checkpoint folder, or a hub id "
            "such as OWNER/NAME; `reasonflux-prm models` lists the known ones"
        )
    return _fetched(known.name if known else name, revision)


def _refuse_revision(name: str, revision: str | None) -> None:
    if revision is not None:
        raise UsageError(f"revision {revision!r} was asked of {name}, which is not on the hub; leave the revision out")


def _fetched(name: str, revision: str | None) -> Located:
    from huggingface_hub import snapshot_download  # half a second to import, and most runs do without the hub

    def snapshot(offline: bool) -> Path:
        return Path(
            snapshot_download(
                name, revision=revision, allow_patterns=_WANTED, ignore_patterns="*/*", local_files_only=offline
            )
        )

    try:
        folder = snapshot(offline=False)
    except Exception as error:  # the hub's client raises OSErrors, ValueErrors and its HTTP library's own kinds
        try:
            folder = snapshot(offline=True)
        except Exception:
            raise DownloadError(
                f"{name} is not in the hub's cache on this machine and could not be fetched ({_first_line(error)}). "
                "Without a network: fetch it elsewhere, copy the folder here and pass its path, or point HF_HOME at a "
                f"cache that has it; {EMBEDDED.name!r} needs no hub"
            ) from error
    if not any(folder.glob("*.safetensors")):
        raise CheckpointError(
            f"{name}: no *.safetensors weights at this revision, and pickles are not loaded; pass a revision that has "
            "them (the hub's own conversions are refs/pr/N), or save it once as safetensors and pass that folder"
        )
    return Located(name, folder, folder.name)


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__
