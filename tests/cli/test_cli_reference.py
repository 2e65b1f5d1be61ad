"""docs/cli.md is what the parsers say now."""

from __future__ import annotations

import argparse

from cli_inputs import ROOT

from reasonflux_prm.cli.main import COMMANDS, command_parser, load_command
from reasonflux_prm.cli.reference import reference


def test_the_page_is_current():
    page = (ROOT / "docs" / "cli.md").read_text("utf-8")
    assert page == reference(), "run: python -m reasonflux_prm.cli.reference > docs/cli.md"


def test_the_terminal_makes_no_difference(monkeypatch):
    before = reference()
    monkeypatch.setenv("COLUMNS", "40")
    assert reference() == before


def test_every_flag_is_explained():
    page = reference()
    for name in COMMANDS:
        for action in command_parser(name, load_command(name))._actions:
            assert action.help
            assert action.help != argparse.SUPPRESS
            assert action.dest == "help" or action.help in page or action.dest == "debug"
