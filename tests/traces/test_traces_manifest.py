import json
import platform
import sys
import types

import pytest

from reasonflux_prm.errors import InputError
from reasonflux_prm.traces.manifest import SCHEMA, Manifest, read_manifest, write_manifest


def test_round_trip(tmp_path):
    manifest = Manifest(
        kind="scored", counts={"scored": 3, "too-long": 1}, settings={"alpha": 1.0}, rejects=2, timings_s={"score": 1.5}
    )
    path = write_manifest(manifest, tmp_path / "x.jsonl")
    assert path == tmp_path / "x.manifest.json"
    assert read_manifest(tmp_path / "x.jsonl") == manifest
    content = json.loads(path.read_text())
    assert list(content)[:2] == ["schema", "kind"]
    assert content["schema"] == SCHEMA
    assert content["versions"]["python"] == platform.python_version()
    assert "reasonflux-prm" in content["versions"]


def test_torch_is_named_only_if_it_was_loaded(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert "torch" not in Manifest("scored", {}, {}).versions
    fake = types.ModuleType("torch")
    fake.__version__ = "2.13"
    monkeypatch.setitem(sys.modules, "torch", fake)
    assert Manifest("scored", {}, {}).versions["torch"] == "2.13"


def test_missing(tmp_path):
    with pytest.raises(InputError, match=r"expected a manifest .*x\.manifest\.json .* there is none"):
        read_manifest(tmp_path / "x.jsonl")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "readable JSON"),
        ("[]", "an object with a schema number"),
        ('{"schema": 99}', "upgrade reasonflux-prm"),
        ('{"schema": 1, "kind": "scored"}', "expected the manifest .* to have counts"),
    ],
)
def test_damaged(tmp_path, content, reason):
    (tmp_path / "x.manifest.json").write_text(content)
    with pytest.raises(InputError, match=reason):
        read_manifest(tmp_path / "x.jsonl")
