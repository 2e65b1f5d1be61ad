"""The command `reasonflux-prm`: dispatch, and what the user sees when something goes wrong.

A command's module is imported when the command is chosen, and torch when there is something to score: `--help` takes
no time. Exit codes: 0 done; 1 some records were refused or have no score; 2 wrong usage or input; 3 the machine failed
us; 130 stopped by Ctrl-C; 141 nobody reads our output any more.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Final, NoReturn, Protocol, cast

from reasonflux_prm.errors import ReasonFluxError

PROGRAM: Final = "reasonflux-prm"
COMMANDS: Final[Mapping[str, str]] = {
    "score": "score traces: a reward for every step and every trace",
    "label": "make reward labels: terms of every step, and training targets",
    "label combine": "make other targets of the terms in a label file",
    "label export": "write labels as training rows of other tools",
    "train": "train a PRM from labels",
    "best-of-n": "pick the best of several candidates of each problem",
    "search": "search for answers with a policy: sample, stop early, or step by step",
    "evaluate": "measure what choosing among N candidates buys on a benchmark",
    "calibrate": "make a PRM's rewards say how often they are right",
    "select": "choose traces to train a student on, and write them as training rows",
    "view": "look at scored or labelled traces, in the terminal or as one HTML file",
    "serve": "serve one PRM over HTTP: scores, vLLM's /pooling, OpenRLHF's /get_reward",
    "models": "list, fetch, verify and find PRMs",
    "demo": "score and rank packaged sample traces, and show what to run next",
}
"""Each command, of one word or two, and what it does; `reasonflux_prm.cli.NAME` holds it."""

INTERRUPTED: Final = 130
BROKEN_PIPE: Final = 141
MACHINE_FAILED: Final = 3


class Command(Protocol):
    """What the module of a command has."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's own arguments."""

    def run(self, arguments: argparse.Namespace) -> int:
        """Do it, and return the exit code."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    top_parser().parse_args(given[:1])
    words = 2 if " ".join(given[:2]) in COMMANDS else 1
    name = " ".join(given[:words])
    command = load_command(name)
    parsed = command_parser(name, command).parse_args(given[words:])
    parsed.given = given[words:]
    _show_log()
    try:
        return command.run(parsed)
    except KeyboardInterrupt:
        _say("stopped")
        return INTERRUPTED
    except BrokenPipeError:
        # Python flushes standard output at exit, which would fail once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except ReasonFluxError as error:
        return _failed(str(error), error.exit_code, parsed.debug)
    except (OSError, MemoryError) as error:
        return _failed(str(error) or "out of memory", MACHINE_FAILED, parsed.debug)
    except Exception as error:  # a fault of ours, or of a library: the user gets a sentence, with --debug the place
        return _failed(f"{type(error).__name__}: {error} (--debug shows where)", MACHINE_FAILED, parsed.debug)


def load_command(name: str) -> Command:
    """Import the module of a command."""
    return cast(Command, import_module(f"reasonflux_prm.cli.{name.replace('-', '_').replace(' ', '_')}"))


def top_parser() -> argparse.ArgumentParser:
    """Return the parser of the first argument."""
    width = max(map(len, COMMANDS)) + 2
    parser = _Parser(
        prog=PROGRAM,
        usage=f"{PROGRAM} COMMAND [OPTIONS]",
        description="Score the reasoning of thinking models: every step of the thinking, and the trace as a whole.",
        epilog="\n".join(["commands:", *(f"  {name:{width}}{does}" for name, does in COMMANDS.items())])
        + f"\n\n`{PROGRAM} COMMAND --help` explains a command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version)
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help=argparse.SUPPRESS)
    return parser


def command_parser(name: str, command: Command) -> argparse.ArgumentParser:
    """Return the parser of a command's arguments."""
    parser = _Parser(
        prog=f"{PROGRAM} {name}",
        description=command.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.add_arguments(parser)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in the same form as every other error, and where to read on."""

    def error(self, message: str) -> NoReturn:
        _say(f"error: {message} (see {self.prog} --help)")
        sys.exit(2)


class _Version(argparse.Action):
    """Prints the version; it is looked up only if it is asked for."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help="print the version")

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(PROGRAM, version(PROGRAM))
        except PackageNotFoundError:
            print(PROGRAM, "unknown (not installed)")
        parser.exit()


def _show_log() -> None:
    """Let the package say what it fetches and builds."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    log = logging.getLogger("reasonflux_prm")
    log.addHandler(handler)
    log.setLevel(logging.INFO)


def _failed(message: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    _say(f"error: {message}")
    return code


def _say(message: str) -> None:
    from reasonflux_prm.cli.console import say

    say(message)


if __name__ == "__main__":
    sys.exit(main())
