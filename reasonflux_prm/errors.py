"""One root error and one subclass for each boundary a run crosses.

Each message says what was expected, what came, which record, and what to do. To add an error: inherit from the root and
from the standard class a caller would expect, pass one complete message, and keep it picklable (no extra required
arguments).
"""

from __future__ import annotations


class ReasonFluxError(Exception):
    """Root of all errors that the package raises on purpose."""

    exit_code = 2
    """The command line's exit code: 2 for wrong usage or input, 3 when the machine failed us."""


class UsageError(ReasonFluxError, ValueError):
    """An argument or a combination of arguments makes no sense."""


class InputError(ReasonFluxError, ValueError):
    """A file, or a record in it, is not what was expected."""


class CheckpointError(ReasonFluxError, ValueError):
    """A PRM's folder is incomplete, of another architecture, or would give meaningless scores."""


class ContextError(ReasonFluxError, ValueError):
    """A trace does not fit the PRM's context in the way the user asked for."""


class ResumeError(ReasonFluxError, ValueError):
    """An output on disk belongs to another run."""


class MissingExtra(ReasonFluxError, ImportError):
    """An optional dependency is not installed; the message has the pip line."""


class DownloadError(ReasonFluxError, OSError):
    """A model or data set could not be fetched."""

    exit_code = 3


class OutputError(ReasonFluxError, OSError):
    """The output could not be written (full disk, no permission)."""

    exit_code = 3


class PolicyError(ReasonFluxError, RuntimeError):
    """A policy (a model that writes text) refused, failed, or answered in a form we cannot use."""

    exit_code = 3


class PolicyStopped(PolicyError):
    """No request will succeed from here on: wrong key, unknown model, no connection, or the budget is spent.

    What is done so far is kept; the same command goes on from there once the cause is gone.
    """


class ServiceError(ReasonFluxError, RuntimeError):
    """A PRM's service could not be reached, is busy or stopping, refused the token, or failed."""

    exit_code = 3


class SandboxUnavailable(ReasonFluxError, RuntimeError):
    """Nothing on this machine keeps a program that a model wrote from the rest of it."""

    exit_code = 3
