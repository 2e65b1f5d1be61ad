"""What every test runs under: one thread of arithmetic, no network, and slow tests only when asked for."""

from __future__ import annotations

import os
import signal
import threading

import network_guard
import pytest

# Before anything imports torch. The tests' models are so small that more threads cost more than they give, and
# pytest-xdist keeps the cores busy; whoever wants more says so in the environment.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# The hub's client then fails at once and by name, in subprocesses too, where the guard does not reach.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# A shell starts what runs in the background with Ctrl-C ignored, and children inherit that: tests that press it hang.
if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
network_guard.install()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the tests marked slow as well")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--slow"):
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="slow: runs with --slow"))
