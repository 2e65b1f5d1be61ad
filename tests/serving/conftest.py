"""Tiny random PRMs, and services of them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
for sibling in ("prm", "scoring", "serving"):
    if str(TESTS / sibling) not in sys.path:
        sys.path.append(str(TESTS / sibling))


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Return a checkpoint folder of a tiny PRM in our own format, context 512."""
    from tiny_native import write_native

    return write_native(tmp_path_factory.mktemp("prm") / "tiny", shapes={"max_position_embeddings": 512})


@pytest.fixture(scope="session")
def prm(folder):
    from reasonflux_prm.prm.load import load_prm

    return load_prm(str(folder))


@pytest.fixture(scope="session")
def short_prm(folder):
    """Return the PRM with a context of 128 tokens."""
    from reasonflux_prm.prm.load import load_prm

    return load_prm(str(folder), context=128)


@pytest.fixture(scope="session")
def engine(prm):
    from reasonflux_prm.scoring.engine import Engine

    return Engine(prm)


@pytest.fixture(scope="module")
def served(prm):
    """Return a service with the defaults; tests must leave it as it is."""
    from serving_parts import live

    with live(prm) as service:
        yield service
