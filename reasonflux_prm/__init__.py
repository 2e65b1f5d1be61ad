"""Process reward models for whole reasoning traces.

    from reasonflux_prm import load_prm, read_traces, score_traces

    for scored in score_traces(load_prm(), read_traces("traces.jsonl")):
        print(scored.trace.id, scored.reward, scored.step_rewards)

The names below are imported when they are first used, so that `import reasonflux_prm` alone loads neither torch nor
numpy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reasonflux_prm.errors import ReasonFluxError
    from reasonflux_prm.prm.load import load_prm
    from reasonflux_prm.records import ScoredTrace, SegmentedTrace, Step, Trace
    from reasonflux_prm.scoring.engine import EngineSettings, score_traces
    from reasonflux_prm.scoring.session import Session
    from reasonflux_prm.steps.split import split
    from reasonflux_prm.traces.read import read_traces

    __version__: str

__all__ = [
    "EngineSettings",
    "ReasonFluxError",
    "ScoredTrace",
    "SegmentedTrace",
    "Session",
    "Step",
    "Trace",
    "__version__",
    "load_prm",
    "read_traces",
    "score_traces",
    "split",
]

_HOMES = {
    "EngineSettings": "scoring.engine",
    "ReasonFluxError": "errors",
    "ScoredTrace": "records",
    "SegmentedTrace": "records",
    "Session": "scoring.session",
    "Step": "records",
    "Trace": "records",
    "load_prm": "prm.load",
    "read_traces": "traces.read",
    "score_traces": "scoring.engine",
    "split": "steps.split",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    if name == "__version__":
        value: Any = _version()
    elif name in _HOMES:
        value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names beside what is loaded."""
    return sorted({*globals(), *__all__})


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("reasonflux-prm")
    except PackageNotFoundError:
        # A source tree on the path that was never installed.
        return "unknown"
