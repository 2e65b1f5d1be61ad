"""Runs our own commands and a recipe's stages one after another; each skips by itself what an earlier run finished."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from reasonflux_prm.cli.main import main as command

OK = (0, 1)
"""Exit codes to go on from: 1 says that single records were set aside, and counted."""


def run(*words: str | Path) -> None:
    """Run one of our commands, shown as one would type it; stop where it fails."""
    print("+ reasonflux-prm", shlex.join(map(str, words)), file=sys.stderr, flush=True)
    if (code := command([str(word) for word in words])) not in OK:
        raise SystemExit(code)


def run_stages(stages: Mapping[str, Callable[[], None]], names: Collection[str] | None) -> None:
    """Run the named stages, in their order; all of them without names."""
    if unknown := sorted(set(names or ()) - stages.keys()):
        raise SystemExit(f"there is no stage {unknown[0]}; there are {', '.join(stages)}")
    for name, stage in stages.items():
        if not names or name in names:
            stage()
