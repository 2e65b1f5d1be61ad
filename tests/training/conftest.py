"""Fixtures of the training tests: tiny language models to start from, and labels to learn from."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

for sibling in ("prm", "scoring"):
    sys.path.append(str(Path(__file__).parents[1] / sibling))  # tiny.py, tiny_native.py


@pytest.fixture(scope="session")
def bases(tmp_path_factory):
    """Return a folder with a tiny causal language model for each kind."""
    from training_tiny import write_base

    root = tmp_path_factory.mktemp("bases")
    return {kind: write_base(root / kind, kind) for kind in ("llama", "qwen2", "qwen3", "mistral")}


@pytest.fixture
def rows(tmp_path) -> Path:
    """Return a file of TRL rows whose steps a tiny model can learn to tell apart."""
    from training_tiny import trl_rows, write_rows

    return write_rows(tmp_path / "rows.jsonl", trl_rows(100))


@pytest.fixture
def labels(tmp_path) -> Path:
    """Return a file of labels with step and trajectory targets, three traces a problem."""
    from training_tiny import label_rows, write_rows

    return write_rows(tmp_path / "labels.jsonl", label_rows(36))
