"""A tiny model on disk, and policies that are opened from it."""

import pytest

from reasonflux_prm.policy.local import LocalPolicy
from tests.policy.tiny_model import write_tiny_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def fresh(folder):
    """Open another policy on the same model; all are closed at the end."""
    opened = []

    def open_one(**settings):
        opened.append(LocalPolicy(str(folder), device="cpu", **settings))
        return opened[-1]

    yield open_one
    for policy in opened:
        policy.close()
