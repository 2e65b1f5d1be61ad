"""A tiny PRM in the native format, traces for it, and the command line as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli_inputs import ROOT, write_rows


@pytest.fixture(scope="session")
def tiny_prm(tmp_path_factory) -> Path:
    """A checkpoint folder of a random PRM in our own format, context 512."""
    for sibling in ("prm", "scoring"):
        sys.path.append(str(ROOT / "tests" / sibling))
    from tiny_native import write_native

    return write_native(tmp_path_factory.mktemp("prm") / "tiny", shapes={"max_position_embeddings": 512})


@pytest.fixture
def candidates(tmp_path) -> Path:
    """Three problems with candidates; the last has a candidate without text."""
    texts = {
        ("add", "What is 12 + 30?", "42"): ["12 + 30 = 42.\n\nThe answer is 42.", "It is 43.\n\n#### 43", "A: 42.0"],
        ("half", "What is half of 84?", "42"): ["<think>\nhalf\n</think>\n\n\\boxed{42}", "\\boxed{21}"],
        ("none", "What is 1 + 1?", "2"): ["I do not know.", ""],
    }
    rows = [
        {"id": name, "problem": problem, "answer": answer, "candidates": [{"text": text} for text in given]}
        for (name, problem, answer), given in texts.items()
    ]
    return write_rows(tmp_path / "candidates.jsonl", rows)


@pytest.fixture
def traces(tmp_path) -> Path:
    """Forty traces of one to eight steps."""
    rows = [
        {
            "id": f"t{i}",
            "problem": f"What is {i} + 1?",
            "response": "\n\n".join(f"Step {k} of {i}." for k in range(i % 8 + 1)),
        }
        for i in range(40)
    ]
    return write_rows(tmp_path / "traces.jsonl", rows)


@pytest.fixture
def shell(tmp_path):
    """Run the command line as a user does, in its own process, in `tmp_path`."""

    def run(*arguments, stdin: bytes | None = None) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "reasonflux_prm.cli.main", *map(str, arguments)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
        return subprocess.run(command, input=stdin, capture_output=True, cwd=tmp_path, env=environment, timeout=120)

    return run


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    """Run the command line in this process, in `tmp_path`; return exit code, standard output and standard error."""
    from reasonflux_prm.cli.main import main

    monkeypatch.chdir(tmp_path)

    def call(*arguments) -> tuple[int, str, str]:
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = stop.code
        out, err = capsys.readouterr()
        return code, out, err

    return call
