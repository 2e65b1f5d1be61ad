"""Help is there at once: no torch, nothing heavy, under 0.3 s. (That the package loads nothing heavy: test_layers.)"""

import subprocess
import sys
import time

import pytest

from reasonflux_prm.cli.main import COMMANDS

HELP_S = 0.3
HEAVY = ("torch", "numpy", "tokenizers", "safetensors", "transformers", "pyarrow", "openai", "huggingface_hub", "rich")


def run_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def help_of(*arguments: str) -> str:
    """Return code that shows a help text and then names the heavy modules that were loaded."""
    return (
        "import sys\nfrom reasonflux_prm.cli.main import main\n"
        f"try:\n    main({[*arguments, '--help']})\nexcept SystemExit as done:\n    assert done.code == 0\n"
        f"print('LOADED', *[name for name in {HEAVY} if name in sys.modules])"
    )


def test_help_loads_nothing_heavy():
    shown, _, loaded = run_python(help_of()).partition("LOADED")
    assert all(name in shown for name in COMMANDS)
    assert loaded.split() == []


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_loads_no_torch(command):
    shown, _, loaded = run_python(help_of(command)).partition("LOADED")
    assert f"reasonflux-prm {command}" in shown
    assert set(loaded.split()) <= {"rich"}


def test_help_takes_no_time():
    """The best of several: what the machine does besides only ever adds."""
    best = float("inf")
    for _ in range(10):
        started = time.perf_counter()
        run_python("import sys; from reasonflux_prm.cli.main import main; sys.argv[1:] = ['--help']; main()")
        best = min(best, time.perf_counter() - started)
        if best < HELP_S:
            break
    assert best < HELP_S
