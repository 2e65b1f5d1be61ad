"""Any PRM by name: which family a checkpoint is of, and what is refused, by name, before it can give a score."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import huggingface_hub
import pytest
import references_b
import test_families_a as families
import tiny
import torch
from safetensors.torch import load_file, save_file

from reasonflux_prm.errors import CheckpointError, DownloadError, UsageError
from reasonflux_prm.prm import hub, load
from reasonflux_prm.prm.checkpoint import Checkpoint
from reasonflux_prm.prm.embedded import catalog, install
from reasonflux_prm.prm.load import FAMILIES, load_prm


def write(folder: Path, family: str = "qwen-math") -> Path:
    if family == "reasonflux-scalar":
        families.write_scalar(folder, "byte", 1.0)
    else:
        families.CASES[family].write(folder, "byte", 1.0)
    return folder


def edit(folder: Path, **fields: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def reweigh(folder: Path, drop: str | None = None, **changed: torch.Tensor) -> None:
    """Write the weights again, less those whose name begins with `drop`, with some of them changed."""
    path = folder / "model.safetensors"
    kept = {name: t for name, t in load_file(path).items() if drop is None or not name.startswith(drop)}
    save_file(kept | {name.replace("__", "."): tensor for name, tensor in changed.items()}, path)


# --- families ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["qwen-math", "skywork", "token-classification", "reasonflux-scalar"])
def test_told_from_the_files(tmp_path, family):
    assert load_prm(str(write(tmp_path / "x", family))).spec.family == family


@pytest.mark.parametrize(("name", "family"), [("PURE-PRM-7B", "pure"), ("ReasonFlux-PRM-7B", "reasonflux")])
def test_told_from_the_name(tmp_path, name, family):
    assert load_prm(str(write(tmp_path / name, family))).spec.family == family
    cached = tmp_path / f"models--owner--{name}" / "snapshots" / "0123abcd"
    assert load_prm(str(write(cached, family))).spec.family == family
    plain = write(tmp_path / "x", family)
    assert load_prm(str(plain)).spec.family != family
    assert load_prm(str(plain), family=family).spec.family == family


@pytest.mark.parametrize(
    ("name", "make", "family"),
    [
        ("math-shepherd-mistral-7b-prm", references_b.shepherd, "math-shepherd"),
        ("Llama3.1-8B-PRM-Deepseek-Data", references_b.rlhflow, "rlhflow"),
        ("EurusPRM-Stage2", lambda folder: references_b.implicit(folder, 5), "implicit"),
    ],
)
def test_families_that_read_a_language_model(tmp_path, monkeypatch, name, make, family):
    """Only the name tells them; the implicit one takes its published reference model, or the one that is given."""
    make(tmp_path / name)
    make(tmp_path / "x")
    asked = []
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda id, **_: asked.append(id) or str(tmp_path / "x"))
    assert load_prm(str(tmp_path / name)).spec.family == family
    assert asked == (["Qwen/Qwen2.5-Math-7B-Instruct"] if family == "implicit" else [])
    reference = str(tmp_path / name) if family == "implicit" else None
    assert load_prm(str(tmp_path / "x"), family=family, reference=reference).spec.family == family
    with pytest.raises(CheckpointError, match=r"the reward head is missing. If this PRM reads .* name its family"):
        load_prm(str(tmp_path / "x"))


@pytest.mark.parametrize("family", ["qwen-math", "skywork"])
def test_hub_configurations_that_say_causal_language_model(tmp_path, family):
    edit(write(tmp_path, family), architectures=["Qwen2ForCausalLM"])
    assert load_prm(str(tmp_path)).spec.family == family


def test_known_names_and_the_table_agree(tmp_path):
    """Every hub id in the catalog finds its family by name or files."""
    by_files = {"qwen-math": "qwen-math", "reasonflux": "qwen-math", "skywork": "skywork"}
    for known in catalog.KNOWN:
        if known is catalog.EMBEDDED:
            continue
        checkpoint = Checkpoint(write(tmp_path / "x", by_files.get(known.family, "pure")), name=known.name)
        found = next(family.name for family in FAMILIES if family.matches(checkpoint))
        # Two names for one architecture: ReasonFlux differs in the system message only.
        assert known.family in (found, {"reasonflux": "qwen-math"}.get(found)), known.name


def test_no_such_family(tmp_path):
    with pytest.raises(UsageError, match=r"family 'orm' is not one of native, implicit.*token-classification"):
        load_prm(str(write(tmp_path)), family="orm")


def test_unknown_architecture(tmp_path):
    reweigh(write(tmp_path), drop="score")
    edit(tmp_path, architectures=["Qwen2ForSequenceClassification"])
    with pytest.raises(CheckpointError, match="Qwen2ForSequenceClassification is no PRM that is known here"):
        load_prm(str(tmp_path))
    edit(tmp_path, model_type="gpt2", architectures=["GPT2LMHeadModel"])
    with pytest.raises(CheckpointError, match=r"model_type is 'gpt2'; supported are llama, mistral, qwen2, qwen3"):
        load_prm(str(tmp_path))


def test_language_model_head_only(tmp_path):
    reweigh(write(tmp_path / "x"), drop="score")
    edit(tmp_path / "x", architectures=["Qwen2ForCausalLM"], vocab_size=152064)
    for family in (None, "qwen-math", "reasonflux"):
        with pytest.raises(CheckpointError, match=r"logits would be 152,064 wide; the reward head is missing"):
            load_prm(str(tmp_path / "x"), family=family)


# --- heads, weights, files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "weight", "shape", "message"),
    [
        ("qwen-math", "score__2__weight", (1, 48), r"'score\.2' has shape \(1, 48\), expected \(2, 48\)"),
        ("qwen-math", "score__2__weight", (300, 48), r"'score\.2' has shape \(300, 48\)"),
        ("qwen-math", "score__0__weight", (40, 48), r"'score\.0' has shape \(40, 48\), expected \(48, 48\)"),
        ("skywork", "v_head__summary__weight", (2, 48), r"'v_head\.summary' has shape \(2, 48\), expected \(1, 48\)"),
        ("token-classification", "score__weight", (3, 48), r"'score' has shape \(3, 48\), expected \(2, 48\)"),
        ("token-classification", "score__weight", (2, 40), r"'score' has shape \(2, 40\), expected \(2, 48\)"),
        ("pure", "score__weight", (1, 48), r"'score' has shape \(1, 48\), expected \(2, 48\)"),
        ("token-classification", "score__bias", (3,), r"bias of the head 'score' has shape \(3,\), expected \(2,\)"),
    ],
)
def test_heads_of_the_wrong_width(tmp_path, family, weight, shape, message):
    reweigh(write(tmp_path, family), **{weight: torch.ones(shape)})
    with pytest.raises(CheckpointError, match=message):
        load_prm(str(tmp_path), family=family)


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_heads_that_were_never_trained(tmp_path, value):
    reweigh(write(tmp_path, "skywork"), v_head__summary__weight=torch.full((1, 48), value))
    with pytest.raises(CheckpointError, match=r"'v_head\.summary' is all zeros or not finite"):
        load_prm(str(tmp_path))


@pytest.mark.parametrize(
    ("drop", "message"),
    [
        ("model.layers.1.mlp", r"3 weights are missing \(model.layers.1.mlp.gate_proj.weight, .*fresh random values"),
        ("model.norm", r"1 weights are missing \(model.norm.weight\)"),
        ("model.embed_tokens", r"no embed_tokens.weight; this is not a qwen2 checkpoint"),
        ("score.2", r"1 weights are missing \(score.2.weight\)"),
    ],
)
def test_layers_that_would_be_made_up(tmp_path, drop, message):
    reweigh(write(tmp_path), drop=drop)
    with pytest.raises(CheckpointError, match=message):
        load_prm(str(tmp_path))


def test_layers_of_another_shape(tmp_path):
    edit(write(tmp_path), intermediate_size=96)
    with pytest.raises(CheckpointError, match=r"gate_proj.weight has shape \(80, 48\), config.json says \(96, 48\)"):
        load_prm(str(tmp_path))


def shard(folder: Path) -> dict[str, str]:
    """Split the weights over two files with an index, as large checkpoints are."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    files = {f"model-0000{n}-of-00002.safetensors": names[n - 1 :: 2] for n in (1, 2)}
    for file, own in files.items():
        save_file({name: weights[name] for name in own}, folder / file)
    table = {name: file for file, own in files.items() for name in own}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": table}))
    return table


def test_shards(tmp_path):
    trace = families.TRACES[0]
    prm = load_prm(str(write(tmp_path)))
    expected = tiny.scores(prm, [prm.encode(trace)])
    shard(tmp_path)
    prm = load_prm(str(tmp_path))
    assert tiny.scores(prm, [prm.encode(trace)]) == expected
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"1 of 2 weight files are missing \(model-00002-of-00002.safetensors\)"):
        load_prm(str(tmp_path))
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(CheckpointError, match="not an index of weights"):
        load_prm(str(tmp_path))


def test_files_that_are_no_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match=r"found no config\.json in it"):
        load_prm(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": ')
    with pytest.raises(CheckpointError, match=r"config\.json: not valid JSON"):
        load_prm(str(tmp_path))
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(CheckpointError, match="expected a JSON object, found list"):
        load_prm(str(tmp_path))
    write(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        load_prm(str(tmp_path))
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin is a pickle, which is not loaded"):
        load_prm(str(tmp_path))


def test_no_separator(tmp_path):
    write(tmp_path)
    tiny.tokenizer("byte", special=("<|im_start|>", "<|im_end|>")).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(CheckpointError, match="has no token '<extra_0>', which this PRM reads its rewards at"):
        load_prm(str(tmp_path))


def test_separator_beyond_the_embeddings(tmp_path):
    write(tmp_path)
    library = tiny.tokenizer("byte", special=("<|im_start|>", "<|im_end|>"))
    library.add_special_tokens([f"<spare{n}>" for n in range(9)])
    library.add_special_tokens(["<extra_0>"])
    library.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(CheckpointError, match=r"'<extra_0>' has id 267, the model has 260 embeddings"):
        load_prm(str(tmp_path))


class Payload:
    """What a hostile pickle would hold."""

    def __reduce__(self):
        return (Path.touch, (Path("payload"),))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], r"expected the state dict of a linear layer .*, found list"),
        ({"summary": torch.ones(1, 48)}, r"found \['summary'\]"),
        ({"weight": torch.ones(2, 48)}, r"has shape \(2, 48\), expected \(1, 48\)"),
        ({"weight": torch.ones(1, 48), "bias": torch.ones(2)}, r"bias .* has shape \(2,\)"),
        ({"weight": Payload()}, "not a pickled state dict that can be read without running code"),
    ],
)
def test_official_heads_that_are_not(tmp_path, content, message):
    write(tmp_path, "reasonflux-scalar")
    torch.save(content, tmp_path / "reward_head.pt")
    with pytest.raises(CheckpointError, match=message):
        load_prm(str(tmp_path))


@pytest.mark.parametrize("content", [b"", b"not a pickle", pickle.dumps(Payload(), protocol=2)])
def test_official_heads_that_are_no_torch_files(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "reasonflux-scalar")
    (tmp_path / "reward_head.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"reward_head\.pt: not a pickled state dict"):
        load_prm(str(tmp_path))
    assert not (tmp_path / "payload").exists()


# --- settings ------------------------------------------------------------------------------------------------------


def test_settings(tmp_path):
    write(tmp_path)
    prm = load_prm(str(tmp_path), dtype="bfloat16", device="cpu", context=100)
    assert prm.decoder.dtype == torch.bfloat16
    assert prm.spec.context_length == 100
    assert load_prm(str(tmp_path), device="cpu").decoder.dtype == torch.float32


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dtype": "int8"}, "dtype 'int8' is not one of float32, bfloat16, float16"),
        ({"device": "abacus"}, "device 'abacus' is not one that torch knows"),
        ({"device": "cuda:99"}, "device 'cuda:99' was asked for, but torch sees"),
        ({"context": 0}, "context 0 is not between 1 and 8,192"),
        ({"context": 10_000}, "context 10,000 is not between 1 and 8,192"),
        ({"revision": "main"}, "revision 'main' was asked of .*, which is not on the hub"),
        ({"reference": "x/y"}, "a PRM of the family 'qwen-math' has none"),
    ],
)
def test_settings_that_make_no_sense(tmp_path, settings, message):
    with pytest.raises(UsageError, match=message):
        load_prm(str(write(tmp_path)), **settings)


def test_layers_spread_over_devices(tmp_path):
    trace = families.TRACES[0]
    whole = load_prm(str(write(tmp_path)), device="cpu")
    devices = (torch.device("cpu"), torch.device("cpu", 0))
    spread = families.QwenPRM.load(Checkpoint(tmp_path, name="x", devices=devices))
    assert spread.decoder.devices == devices
    assert tiny.scores(spread, [spread.encode(trace)]) == tiny.scores(whole, [whole.encode(trace)])


@pytest.mark.parametrize(
    ("gpus", "free", "weights", "expected"),
    [
        (0, 0, 10, ["cpu"]),
        (1, 10, 100, ["cuda:0"]),
        (3, 100, 80, ["cuda:0"]),
        (3, 100, 81, ["cuda:0", "cuda:1", "cuda:2"]),
    ],
)
def test_devices(monkeypatch, gpus, free, weights, expected):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, free))
    assert [str(device) for device in load._devices(None, weights)] == expected


# --- where checkpoints come from -----------------------------------------------------------------------------------


def test_embedded(tmp_path, monkeypatch):
    folder = write(tmp_path / "built")
    monkeypatch.setattr(install, "ensure_embedded", lambda: folder)
    (tmp_path / "embedded").mkdir()
    monkeypatch.chdir(tmp_path)
    prm = load_prm()
    assert prm.spec.name == "embedded"
    assert len(prm.spec.revision) == 12


@pytest.mark.parametrize("name", ["no-such-prm", "./no/such/folder", "", "a/b/c"])
def test_neither_name_nor_folder(name):
    with pytest.raises(
        UsageError, match="is not a PRM that is known here: expected 'embedded', a checkpoint folder, or a hub id"
    ):
        load_prm(name)


def test_from_the_hub(tmp_path, monkeypatch):
    folder = write(
        tmp_path / "models--Qwen--Qwen2.5-Math-PRM-7B" / "snapshots" / "0610740060112df12585d00a1c5f4624d2f59051"
    )
    asked = {}

    def snapshot_download(name, **settings):
        asked.update(settings, name=name)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    prm = load_prm("qwen/qwen2.5-math-prm-7b", revision="0610740")
    assert (prm.spec.name, prm.spec.revision) == ("Qwen/Qwen2.5-Math-PRM-7B", folder.name)
    assert (asked["name"], asked["revision"], asked["local_files_only"]) == (prm.spec.name, "0610740", False)
    assert not {"*.bin", "*.py", "*.pt", "*"} & set(asked["allow_patterns"])
    (folder / "model.safetensors").unlink()
    with pytest.raises(
        CheckpointError, match=r"no \*\.safetensors weights at this revision, and pickles are not loaded"
    ):
        load_prm("Qwen/Qwen2.5-Math-PRM-7B")


def test_offline_with_and_without_a_cache(tmp_path, monkeypatch):
    folder = write(tmp_path / "snapshots" / "abc")
    cached = False

    def snapshot_download(name, *, local_files_only, **settings):
        if local_files_only and cached:
            return str(folder)
        raise huggingface_hub.errors.LocalEntryNotFoundError("no network\nno cache")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    with pytest.raises(
        DownloadError, match=r"owner/prm .*LocalEntryNotFoundError: no network\)\. Without a network: .*HF_HOME"
    ):
        load_prm("owner/prm")
    cached = True
    assert hub.locate("owner/prm").revision == "abc"
