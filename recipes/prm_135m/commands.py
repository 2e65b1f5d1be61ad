"""Runs our own commands one after another; each resumes or skips by itself what an earlier run finished."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from reasonflux_prm.cli.main import main as command

OK = (0, 1)
"""Exit codes to go on from: 1 says that single records were set aside, and counted."""


def run(*words: str | Path) -> None:
    """Run one of our commands, shown as one would type it; stop where it fails."""
    print("+ reasonflux-prm", shlex.join(map(str, words)), file=sys.stderr, flush=True)
    if (code := command([str(word) for word in words])) not in OK:
        raise SystemExit(code)
