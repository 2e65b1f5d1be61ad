"""Fixtures of the search tests: tiny random PRMs in our own format."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

for sibling in ("prm", "scoring"):
    sys.path.append(str(Path(__file__).parents[1] / sibling))  # tiny.py, tiny_native.py


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """Return a checkpoint folder for each layout."""
    from tiny_native import write_native

    root = tmp_path_factory.mktemp("search-prms")
    return {layout: write_native(root / layout, layout=layout) for layout in ("causal", "response_first")}


@pytest.fixture(scope="session")
def engines(folders):
    """Return an engine for each layout; tests must not change them."""
    from reasonflux_prm.prm.load import load_prm
    from reasonflux_prm.scoring.engine import Engine

    return {layout: Engine(load_prm(str(folder))) for layout, folder in folders.items()}


@pytest.fixture(scope="session")
def engine(engines):
    """Return the engine with the causal layout."""
    return engines["causal"]
