"""A training run's folder: whose it is, where it stopped, and how it becomes a PRM's.

The PRM's files lie in the folder itself and appear only when training is done; `training.json` comes last and says how
they came about. All that a run needs to go on is in `run/` beneath it.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from reasonflux_prm.errors import ResumeError
from reasonflux_prm.traces.manifest import SCHEMA
from reasonflux_prm.traces.run_files import difference
from reasonflux_prm.traces.write import atomic_path, writing

RECORD: Final = "training.json"
_CLAIM: Final = "run.json"
_STATE: Final = "trainer_state.json"


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The folder of one run.

    Args:
        path: What the user named.
        identity: Everything that the result depends on, as JSON values.
    """

    path: Path
    identity: Mapping[str, Any]

    @property
    def work(self) -> Path:
        """Return the folder of checkpoints, logs and caches."""
        return self.path / "run"

    def check(self, *, fresh: bool) -> bool:
        """Whether the run is complete; changes nothing.

        Raises:
            ResumeError: The folder belongs to another run, or to something else.
        """
        if fresh or not self.path.exists() or (self.path.is_dir() and not any(self.path.iterdir())):
            return False
        try:
            claim = json.loads((self.work / _CLAIM).read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise ResumeError(
                f"{self.path} exists and no training run of ours is in it; choose another output, or pass --fresh to "
                "write into it"
            ) from error
        if changed := difference(claim.get("identity", {}), json.loads(json.dumps(self.identity))):
            raise ResumeError(
                f"{self.path} belongs to a training run with another {changed}; choose another output, or pass --fresh "
                "to start over"
            )
        return (self.path / RECORD).is_file()

    def claim(self, *, fresh: bool) -> None:
        """Make the folder this run's; with `fresh` what an earlier run left is removed."""
        with writing(self.path):
            if fresh:
                shutil.rmtree(self.work, ignore_errors=True)
                (self.path / RECORD).unlink(missing_ok=True)
            self.work.mkdir(parents=True, exist_ok=True)
            self._write(self.work / _CLAIM, {"schema": SCHEMA, "identity": self.identity})

    def last_checkpoint(self) -> Path | None:
        """Return the newest whole checkpoint; what a killed run left unfinished is removed."""
        newest: tuple[int, Path] | None = None
        for path in self.work.glob("checkpoint-*"):
            if not _is_whole(path):
                shutil.rmtree(path, ignore_errors=True)
                continue
            step = int(path.name.partition("-")[2])
            newest = max(newest or (step, path), (step, path))
        return None if newest is None else newest[1]

    def place(self, built: Path) -> None:
        """Move a finished PRM's files to the folder itself, its configuration last."""
        with writing(self.path):
            for path in sorted(built.iterdir(), key=lambda path: path.name == "config.json"):
                os.replace(path, self.path / path.name)
            shutil.rmtree(built)

    def finish(self, record: Mapping[str, Any]) -> None:
        """Write the record, and remove what only an unfinished run needs."""
        with writing(self.path):
            self._write(self.path / RECORD, record)
            for path in (*self.work.glob("checkpoint-*"), self.work / "final"):
                shutil.rmtree(path, ignore_errors=True)

    def record(self) -> dict[str, Any]:
        """Return the record of a complete run."""
        content: dict[str, Any] = json.loads((self.path / RECORD).read_text("utf-8"))
        return content

    def _write(self, path: Path, content: Mapping[str, Any]) -> None:
        with atomic_path(path) as part:
            part.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", "utf-8")


def _is_whole(checkpoint: Path) -> bool:
    """Whether a checkpoint was written to its end: its state is the last file."""
    try:
        json.loads((checkpoint / _STATE).read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return True
