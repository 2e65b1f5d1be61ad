"""The reference of the command line, made from the parsers: `python -m reasonflux_prm.cli.reference > docs/cli.md`.

It is written from the parsers' actions and not from their help, whose form depends on Python's version and on the width
of the terminal.
"""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Iterator

from reasonflux_prm.cli.main import COMMANDS, PROGRAM, command_parser, load_command

_HEAD = f"""# Command line

Made by `python -m reasonflux_prm.cli.reference > docs/cli.md`; a test keeps it current.

JSON lines in and out, `-` for a pipe. Messages and progress go to standard error; the last line says what to run next.
`{PROGRAM} --version` prints the version. Every command has `--help`, and `--debug`, which shows the traceback of an
error.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | done, but some records were refused or have no score; the last line counts them |
| 2 | wrong usage or input |
| 3 | the machine failed: disk, network, memory, a server |
| 130 | stopped by Ctrl-C; what is scored so far is kept |
| 141 | nobody reads the output any more |
"""


def reference() -> str:
    """Return the whole reference, in Markdown."""
    shared: dict[str, str] = {}
    commands = [_command(name, shared) for name in COMMANDS]
    groups = [f"### {title}\n\n{entries}\n" for title, entries in shared.items()]
    return "\n".join([_HEAD, *commands, "## Flags of several commands\n", *groups])


def _command(name: str, shared: dict[str, str]) -> str:
    """Return the section of a command; groups of flags with a title go to `shared`, because others have them too."""
    parser = command_parser(name, load_command(name))
    usage = " ".join([PROGRAM, name, *_usage(parser)])
    lines = [f"## {name}", "", inspect.cleandoc(parser.description or ""), "", "```", usage, "```", ""]
    titles = []
    for group in parser._action_groups:
        entries = [_entry(action) for action in group._group_actions if action.dest not in ("help", "debug")]
        if group.title in ("positional arguments", "options"):
            lines += entries
        elif group.title and entries:
            # The same title over other flags is a group of this command's own.
            text = "\n".join(entries)
            title = group.title if shared.get(group.title, text) == text else f"{group.title}, of {name}"
            titles.append(title)
            shared[title] = text
    if titles:
        lines += ["", f"Flags of several commands, below: {', '.join(titles)}."]
    return "\n".join([*lines, ""])


def _usage(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Yield what must be given, in order, and one word for the rest."""
    for action in parser._actions:
        if not action.option_strings:
            yield _value(action) if action.nargs is None else f"[{_value(action)}]"
        elif action.required:
            yield f"{action.option_strings[0]} {_value(action)}"
    yield "[OPTIONS]"


def _entry(action: argparse.Action) -> str:
    names = ", ".join(action.option_strings) or _value(action)
    takes = f" {_value(action)}" if action.option_strings and action.nargs != 0 else ""
    return f"- `{names}{takes}`: {action.help}"


def _value(action: argparse.Action) -> str:
    if isinstance(action.metavar, str):
        return action.metavar
    return "|".join(map(str, action.choices)) if action.choices else action.dest.upper()


if __name__ == "__main__":
    print(reference(), end="")
