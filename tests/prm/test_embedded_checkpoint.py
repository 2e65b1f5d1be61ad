"""From a tiny GGUF file to checkpoint folders, with transformers as the judge, and builds that go wrong."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from reasonflux_prm.errors import CheckpointError, OutputError
from reasonflux_prm.prm.embedded import install
from reasonflux_prm.prm.embedded.adapter import Adapter, save_adapter
from reasonflux_prm.prm.embedded.fetch import BaseRelease
from reasonflux_prm.prm.embedded.gguf_weights import read_gguf
from reasonflux_prm.prm.embedded.install import ensure_base, ensure_embedded, verify

HIDDEN, INNER, HEADS, KV_HEADS, LAYERS = 64, 96, 4, 2, 2
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MERGES = ["Ġ t", "h e", "Ġt he", "Ċ Ċ", "Ġ Ġ"]


def byte_characters() -> list[str]:
    """The 256 characters in which byte-level BPE spells bytes, in the order of the bytes (GPT-2's table)."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in plain]
    return [chr(byte) if byte in plain else chr(256 + rest.index(byte)) for byte in range(256)]


TOKENS = SPECIAL + byte_characters() + [merge.replace(" ", "") for merge in MERGES]


def pairs(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows as llama.cpp stores them: row i of a head's first half, then row i of its second half, and so on."""
    per_head = weight.reshape(heads, -1, weight.shape[1])
    half = per_head.shape[1] // 2
    mixed = np.empty_like(per_head)
    mixed[:, 0::2], mixed[:, 1::2] = per_head[:, :half], per_head[:, half:]
    return mixed.reshape(weight.shape)


def tiny_tensors() -> dict[str, tuple[np.ndarray, gguf.GGMLQuantizationType]]:
    """A random Llama by its GGUF names, in the quantisations that SmolLM2's file uses."""
    random = np.random.default_rng(0)
    q4, q8, f32 = gguf.GGMLQuantizationType.Q4_1, gguf.GGMLQuantizationType.Q8_0, gguf.GGMLQuantizationType.F32
    kv = HIDDEN * KV_HEADS // HEADS

    def normal(*shape: int) -> np.ndarray:
        return random.normal(0, 0.2, shape).astype(np.float32)

    tensors = {"token_embd.weight": (normal(len(TOKENS), HIDDEN), q8), "output_norm.weight": (normal(HIDDEN), f32)}
    for layer in range(LAYERS):
        parts = {
            "attn_norm": (normal(HIDDEN), f32),
            "ffn_norm": (normal(HIDDEN), f32),
            "attn_q": (pairs(normal(HIDDEN, HIDDEN), HEADS), q4),
            "attn_k": (pairs(normal(kv, HIDDEN), KV_HEADS), q4),
            "attn_v": (normal(kv, HIDDEN), q4),
            "attn_output": (normal(HIDDEN, HIDDEN), q4),
            "ffn_gate": (normal(INNER, HIDDEN), q4),
            "ffn_up": (normal(INNER, HIDDEN), q4),
            "ffn_down": (normal(HIDDEN, INNER), f32),
        }
        tensors |= {f"blk.{layer}.{name}.weight": part for name, part in parts.items()}
    return tensors


def write_gguf(path: Path, *, architecture: str = "llama", pre: str = "smollm", extra: str | None = None) -> None:
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(LAYERS)
    writer.add_context_length(128)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_freq_base(100000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(TOKENS)
    writer.add_token_types([3] * len(SPECIAL) + [1] * (len(TOKENS) - len(SPECIAL)))
    writer.add_token_merges(MERGES)
    for add, token in (
        (writer.add_bos_token_id, 1),
        (writer.add_eos_token_id, 2),
        (writer.add_unk_token_id, 0),
        (writer.add_pad_token_id, 2),
    ):
        add(token)
    writer.add_chat_template("{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}")
    tensors = tiny_tensors()
    if extra is not None:
        tensors[extra] = (np.ones(8, np.float32), gguf.GGMLQuantizationType.F32)
    for name, (weight, kind) in tensors.items():
        stored = weight if kind == gguf.GGMLQuantizationType.F32 else gguf.quantize(weight, kind)
        writer.add_tensor(name, stored, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@dataclass(frozen=True)
class Tiny:
    path: Path
    release: BaseRelease


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write_gguf(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    release = BaseRelease(
        "tiny",
        "no-such-package",
        "1",
        "no.whl",
        "0" * 64,
        "no_such_module/tiny.gguf",
        digest,
        path.stat().st_size,
        10**5,
    )
    return Tiny(path, release)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch, tiny):
    """A cache that already holds the tiny GGUF file."""
    monkeypatch.setenv("REASONFLUX_PRM_CACHE", str(tmp_path))
    name = f"{tiny.release.name}-{tiny.release.gguf_sha256[:12]}.gguf"
    (tmp_path / name).write_bytes(tiny.path.read_bytes())
    return tmp_path


Q = "model.layers.1.self_attn.q_proj.weight"


@pytest.fixture
def adapter(tmp_path, tiny):
    path = tmp_path / "adapter.safetensors"
    write_adapter(path, tiny, bias=0.25)
    return path


def write_adapter(path: Path, tiny: Tiny, bias: float) -> None:
    random = torch.Generator().manual_seed(0)
    tensors = {
        "score.weight": torch.randn(1, HIDDEN, generator=random).bfloat16(),
        "score.bias": torch.tensor([bias]),
        f"{Q}.lora_A": torch.randn(2, HIDDEN, generator=random),
        f"{Q}.lora_B": torch.randn(HIDDEN, 2, generator=random),
    }
    save_adapter(path, Adapter(tensors, {"separator": "<|im_end|>"}, tiny.release.gguf_sha256))


def test_query_and_key_rows_are_put_back(tiny):
    tensors = read_gguf(tiny.path).tensors
    for name, kind, heads in (("q", "attn_q", HEADS), ("k", "attn_k", KV_HEADS)):
        stored, quantisation = tiny_tensors()[f"blk.0.{kind}.weight"]
        stored = gguf.dequantize(gguf.quantize(stored, quantisation), quantisation)
        ours = tensors[f"model.layers.0.self_attn.{name}_proj.weight"].numpy()
        assert not np.array_equal(ours, stored)
        assert np.array_equal(pairs(ours, heads), stored)


def test_weights_and_logits_equal_transformers_own_loader(tiny):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tiny.path.parent, gguf_file=tiny.path.name, dtype=torch.float32
    ).eval()
    ours = transformers.AutoModelForCausalLM.from_pretrained(ensure_base(tiny.release)).eval()
    expected = theirs.state_dict()
    assert set(ours.state_dict()) == set(expected)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in ours.state_dict().items())
    tokens = torch.arange(3, 60)[None]
    with torch.inference_mode():
        assert torch.equal(ours(tokens).logits, theirs(tokens).logits)


def test_the_prm_folder_is_a_plain_token_classifier(tiny, adapter):
    transformers = pytest.importorskip("transformers")
    folder = ensure_embedded(adapter, tiny.release)
    model, report = transformers.AutoModelForTokenClassification.from_pretrained(folder, output_loading_info=True)
    assert {key: list(value) for key, value in report.items() if value} == {}
    assert type(model).__name__ == "LlamaForTokenClassification"
    assert model.config.prm == {"separator": "<|im_end|>"}
    assert model.config.num_labels == 1
    assert model.config.built_from["adapter_sha256"] == hashlib.sha256(adapter.read_bytes()).hexdigest()
    base = read_gguf(tiny.path).tensors
    given = install.load_adapter(adapter).tensors
    changed = base[Q] + given[f"{Q}.lora_B"] @ given[f"{Q}.lora_A"]
    state = model.state_dict()
    torch.testing.assert_close(state[Q], changed, rtol=0, atol=1e-6)
    assert torch.equal(state["score.weight"], given["score.weight"].float())
    assert torch.equal(state["score.bias"], given["score.bias"])
    untouched = [name for name in base if name != Q]
    assert all(torch.equal(state[name], base[name]) for name in untouched)


def test_the_tokenizer_is_the_same_alone_and_in_transformers(tiny):
    transformers = pytest.importorskip("transformers")
    folder = ensure_base(tiny.release)
    alone = Tokenizer.from_file(str(folder / "tokenizer.json"))
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    text = "the 12  the\n\n3 ½ é 😀<|im_end|>\n"
    assert theirs(text)["input_ids"] == alone.encode(text).ids
    assert alone.decode(alone.encode(text).ids, skip_special_tokens=False) == text
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id) == (1, 2, 2)
    message = [{"role": "user", "content": "the"}]
    assert theirs.apply_chat_template(message, tokenize=False) == "<|im_start|>the<|im_end|>"


def test_digits_stand_alone_and_take_no_blank_space_with_them(tiny):
    """As in the vocabulary's own pre-tokenizer: first every digit is cut off, then GPT-2's rule cuts the rest."""
    tokenizer = read_gguf(tiny.path).tokenizer
    assert tokenizer.encode("the\n\n12").tokens == ["t", "he", "ĊĊ", "1", "2"]
    assert tokenizer.encode("  7 the").tokens == ["ĠĠ", "7", "Ġthe"]
    assert tokenizer.encode("<|im_end|>", add_special_tokens=False).ids == [2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "qwen2"}, "should be of the architecture llama, but is of qwen2"),
        ({"pre": "llama-bpe"}, "cut by the rule smollm"),
        ({"extra": "rope_freqs.weight"}, "scales its rotary embedding"),
        ({"extra": "blk.0.attn_q.bias"}, "holds the tensor blk.0.attn_q.bias"),
    ],
)
def test_another_kind_of_gguf_is_refused(tmp_path, changes, message):
    write_gguf(tmp_path / "x.gguf", **changes)
    with pytest.raises(CheckpointError, match=message):
        read_gguf(tmp_path / "x.gguf")


def test_a_file_that_is_no_gguf_is_refused(tmp_path, tiny):
    (tmp_path / "x.gguf").write_bytes(b"not a model" * 10)
    with pytest.raises(CheckpointError, match="should be a GGUF file"):
        read_gguf(tmp_path / "x.gguf")
    (tmp_path / "y.gguf").write_bytes(tiny.path.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match="should be a GGUF file"):
        read_gguf(tmp_path / "y.gguf")


def test_a_sound_folder_is_not_built_again(tiny, monkeypatch):
    folder = ensure_base(tiny.release)
    monkeypatch.setattr(install, "read_gguf", lambda _: pytest.fail("built again"))
    assert ensure_base(tiny.release) == folder
    assert verify(folder) == []


def test_a_new_adapter_gets_a_new_folder_and_the_old_one_stays(tiny, adapter):
    old = ensure_embedded(adapter, tiny.release)
    write_adapter(adapter, tiny, bias=0.5)
    new = ensure_embedded(adapter, tiny.release)
    assert new != old
    assert verify(old) == verify(new) == []


def test_an_adapter_for_another_base_builds_nothing(tiny, adapter, cache):
    given = install.load_adapter(adapter)
    save_adapter(adapter, Adapter(given.tensors, given.prm, "f" * 64))
    with pytest.raises(CheckpointError, match="trained on the base with SHA-256 ffff"):
        ensure_embedded(adapter, tiny.release)
    assert [path for path in cache.iterdir() if path.is_dir()] == []


def damage_flip(folder: Path) -> None:
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(0, 0))


def damage_record(folder: Path) -> None:
    (folder / "built.json").write_text("{")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_flip, "model.safetensors has another SHA-256"),
        (lambda folder: (folder / "config.json").unlink(), "config.json is missing"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "tokenizer.json has 2 bytes"),
        (damage_record, "built.json cannot be read"),
        (lambda folder: (folder / "built.json").write_text("[]"), "built.json cannot be read"),
    ],
)
def test_a_damaged_folder_is_found_and_built_again(tiny, caplog, damage, message):
    folder = ensure_base(tiny.release)
    before = (folder / "model.safetensors").read_bytes()
    damage(folder)
    assert message in " ".join(verify(folder))
    assert ensure_base(tiny.release) == folder
    assert message in caplog.text
    assert verify(folder) == []
    assert (folder / "model.safetensors").read_bytes() == before


def test_damage_that_keeps_size_and_time_is_found_by_reading_all(tiny):
    folder = ensure_base(tiny.release)
    path = folder / "model.safetensors"
    found = path.stat()
    damage_flip(folder)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert verify(folder, read_all=False) == []
    assert "another SHA-256" in " ".join(verify(folder))


def test_a_killed_build_leaves_nothing_that_is_trusted(tiny, cache):
    """Killed for good (no clean-up runs) when all but the last file is written; then started again."""
    code = (
        "import os, signal, sys, dataclasses, json\n"
        "from reasonflux_prm.prm.embedded import install\n"
        "from reasonflux_prm.prm.embedded.fetch import BaseRelease\n"
        "install.sync = lambda _: os.kill(os.getpid(), signal.SIGKILL)\n"
        "install.ensure_base(BaseRelease(**json.loads(sys.argv[1])))"
    )
    fields = {name: getattr(tiny.release, name) for name in BaseRelease.__dataclass_fields__}
    done = subprocess.run([sys.executable, "-c", code, json.dumps(fields)], check=False, timeout=60)
    assert done.returncode == -9
    (half,) = [path for path in cache.iterdir() if path.is_dir()]
    assert (half / "model.safetensors").exists()
    folder = ensure_base(tiny.release)
    assert verify(folder) == []
    assert [path for path in cache.iterdir() if path.is_dir()] == [folder]


def test_a_full_disk_is_an_output_error_and_leaves_nothing(tiny, cache, monkeypatch):
    from safetensors import SafetensorError

    def full(*_, **__):
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(install, "save_file", full)
    with pytest.raises(OutputError, match=r"No space left on device.*REASONFLUX_PRM_CACHE"):
        ensure_base(tiny.release)
    assert [path for path in cache.iterdir() if path.is_dir()] == []


def test_the_weights_can_be_read_by_whoever_can_read_the_config(tiny):
    folder = ensure_base(tiny.release)
    assert (folder / "model.safetensors").stat().st_mode == (folder / "config.json").stat().st_mode
