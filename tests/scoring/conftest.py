"""Fixtures of the scoring tests: tiny random PRMs in our own format."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "prm"))  # tiny.py


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """Return a checkpoint folder for each layout."""
    from tiny_native import write_native

    root = tmp_path_factory.mktemp("prms")
    return {layout: write_native(root / layout, layout=layout) for layout in ("causal", "response_first")}


@pytest.fixture(scope="session")
def prms(folders):
    """Return a loaded PRM for each layout; tests must not change them."""
    from reasonflux_prm.prm.load import load_prm

    return {layout: load_prm(str(folder)) for layout, folder in folders.items()}


@pytest.fixture(scope="session")
def prm(prms):
    """Return the PRM with the causal layout."""
    return prms["causal"]
