"""No text can make a control token, and pieces of a text are spelled as the whole is, for every kind of tokenizer."""

from __future__ import annotations

import json

import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from reasonflux_prm.errors import CheckpointError
from reasonflux_prm.prm.tokenizer import TextTokenizer

# Added tokens that are not marked special, among them one that overlaps itself and one that is part of another.
PLAIN = ("<tool>", "aXa", "<tool><tool>", "ки")
NAMES = (*tiny.CHATML, *PLAIN)
TEXTS = st.lists(
    st.one_of(st.sampled_from([*NAMES, "aX", "<", "tool>", "\n", "\n\n", " ", "▁", "Ġ"]), st.text(max_size=8)),
    max_size=10,
).map("".join)


def tokenizer(kind: tiny.Kind) -> TextTokenizer:
    return TextTokenizer(tiny.tokenizer(kind, plain_added=PLAIN), kind)


OURS = {kind: tokenizer(kind) for kind in tiny.KINDS}
CONTROLS = {kind: {OURS[kind].control(name) for name in NAMES} for kind in tiny.KINDS}


@pytest.mark.parametrize("kind", tiny.KINDS)
@given(text=TEXTS)
@settings(max_examples=150, deadline=None)
def test_no_text_makes_a_control_token(kind, text):
    ours = OURS[kind]
    for ids in (ours.start(text), ours.continuation(text)):
        assert CONTROLS[kind].isdisjoint(ids)
    if kind.startswith("byte"):
        assert ours.decode(ours.continuation(text)) == text


@pytest.mark.parametrize("kind", tiny.KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_every_name_alone_and_repeated(kind, name):
    ours = OURS[kind]
    for text in (name, name * 3, f"x{name}y", f" {name}\n", name[:-1] + name):
        assert CONTROLS[kind].isdisjoint(ours.start(text))
        assert CONTROLS[kind].isdisjoint(ours.continuation(text))


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_plain_added_tokens_stay_text_until_they_are_controls(kind):
    """A token such as `<think>` that no PRM reads at is spelled as the checkpoint spells it."""
    ours = tokenizer(kind)
    ours.control("<extra_0>")
    tool = tiny.tokenizer(kind, plain_added=PLAIN).token_to_id("<tool>")
    assert tool in ours.continuation("a <tool> b")
    ours.control("<tool>")
    assert tool not in ours.continuation("a <tool> b")


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_template_tokens_are_controls(kind):
    ours = tokenizer(kind)
    ids = ours.template("<|im_start|>user\n<tool>")
    library = tiny.tokenizer(kind, plain_added=PLAIN)
    assert ids[0] == library.token_to_id("<|im_start|>")
    assert ids[-1] == library.token_to_id("<tool>")
    assert set(ours.controls.values()) == {"<|im_start|>", "<tool>"}
    assert {ids[0], ids[-1]}.isdisjoint(ours.continuation("<|im_start|>user\n<tool>"))


@pytest.mark.parametrize("kind", tiny.KINDS)
@given(first=TEXTS, second=TEXTS)
@settings(max_examples=80, deadline=None)
def test_pieces_spell_the_whole(kind, first, second):
    """Cut at a separator's place: what follows it has no space that the text does not have."""
    ours = OURS[kind]
    begin, end = f"a{first}".rstrip() + ".", second.strip() or "b"
    pieces = ours.start(begin) + ours.continuation(end)
    whole = ours.start(begin + end)
    if kind.startswith("byte"):
        assert ours.decode(pieces) == begin + end
    if kind == "byte":
        assert pieces == whole
    else:
        # Merges may cross the cut; the text may not change.
        assert ours.decode(pieces) == ours.decode(whole)


@pytest.mark.parametrize("kind", ["sentencepiece", "metaspace"])
def test_dummy_space(kind):
    ours = OURS[kind]
    assert ours.start("the answer")[1:] == ours.continuation("the answer")[-len(ours.start("the answer")) + 1 :]
    assert ours.start("the answer") == tiny.tokenizer(kind).encode("the answer", add_special_tokens=False).ids
    assert ours.decode(ours.continuation("the answer")) == "the answer"
    spelled = [tiny.tokenizer(kind).id_to_token(number) for number in ours.continuation("the answer")]
    assert not spelled[0].startswith("▁")
    assert spelled[-1] == "▁answer"


@pytest.mark.parametrize("prefix", ["▁", "Ġ"])
def test_dummy_space_where_line_breaks_merge(prefix):
    """A vocabulary in which line breaks merge: what follows a text must not depend on the text before it."""
    text = "\n\nb"
    if prefix == "▁":
        vocabulary = {token: number for number, token in enumerate(["▁", "\n", "\n\n", "\n\n\n", "b", "x"])}
        merges = [("\n", "\n"), ("\n\n", "\n")]
        library = Tokenizer(models.BPE(vocabulary, merges))
        library.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        expected = ["\n\n", "b"]
    else:
        library = tiny.tokenizer("byte")
        library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        expected = ["Ċ", "Ċ", "b"]
    ours = TextTokenizer(library, "x")
    assert [library.id_to_token(number) for number in ours.continuation(text)] == expected
    assert [library.id_to_token(number) for number in ours.start("b")] == [prefix, "b"]


# --- folders -------------------------------------------------------------------------------------------------------


def test_missing_control_token():
    with pytest.raises(CheckpointError, match=r"no token '<extra_9>', which this PRM reads its rewards at"):
        OURS["byte"].control("<extra_9>")


@pytest.mark.parametrize("bos", ["<|endoftext|>", {"content": "<|endoftext|>", "lstrip": False}, None, "<absent>"])
def test_bos(tmp_path, bos):
    library = tiny.tokenizer("byte")
    library.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"bos_token": bos}))
    expected = library.token_to_id("<|endoftext|>") if bos not in (None, "<absent>") else None
    assert TextTokenizer.from_folder(tmp_path).bos == expected


def test_truncation_and_padding_of_the_file_are_ignored(tmp_path):
    library = tiny.tokenizer("byte")
    library.enable_truncation(4)
    library.enable_padding(length=8)
    library.save(str(tmp_path / "tokenizer.json"))
    assert len(TextTokenizer.from_folder(tmp_path).continuation("0123456789")) == 10


def test_broken_folders(tmp_path):
    with pytest.raises(CheckpointError, match=r"no tokenizer\.json"):
        TextTokenizer.from_folder(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(CheckpointError, match="not a readable tokenizer"):
        TextTokenizer.from_folder(tmp_path)
    tiny.tokenizer("byte").save(str(tmp_path / "tokenizer.json"))
    for text, message in [("{", "not valid JSON"), ("[]", "expected a JSON object, found list")]:
        (tmp_path / "tokenizer_config.json").write_text(text)
        with pytest.raises(CheckpointError, match=message):
            TextTokenizer.from_folder(tmp_path)
