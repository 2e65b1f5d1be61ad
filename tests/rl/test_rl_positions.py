"""Steps to tokens: every tokenizer's kind, characters of several bytes, marks that are special, text that is broken."""

from __future__ import annotations

import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from reasonflux_prm.errors import InputError
from reasonflux_prm.records import Trace
from reasonflux_prm.rl.completions import leaves_open, split_completion
from reasonflux_prm.rl.positions import Decoded, decode, encode, step_ends
from reasonflux_prm.steps.split import split

SPECIAL = (*tiny.CHATML, "<think>", "</think>")
TOKENIZERS = {
    "byte-bpe": tiny.tokenizer("byte-bpe", SPECIAL),
    "byte": tiny.tokenizer("byte", tiny.CHATML, plain_added=("<think>", "</think>")),
    "sentencepiece": tiny.tokenizer("sentencepiece", SPECIAL),
    "metaspace": tiny.tokenizer("metaspace", SPECIAL),
}
every_kind = pytest.mark.parametrize("kind", TOKENIZERS)
TEXT = "<think>\nWe add 12 and 30: é漢字 😀.\n\nSo it is 42.\n</think>\n\nThe sum is \\boxed{42}."


def wrapped(tokenizer):
    """Return the same tokenizer as transformers wraps it."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def assert_ends(tokenizer, ids, found):
    """Compare with decoding every prefix: slow, and of no use where a prefix breaks off within a character."""
    assert list(found.ends) == sorted(found.ends)
    assert not ids or found.ends[-1] == len(found.text)
    told = 0
    for n, end in enumerate(found.ends[:-1]):
        prefix = tokenizer.decode(ids[: n + 1], skip_special_tokens=False)
        if found.text.startswith(prefix):
            assert end == len(prefix)
            told += 1
    return told


@every_kind
def test_ends_are_those_of_decoded_prefixes(kind):
    tokenizer = TOKENIZERS[kind]
    ids = tokenizer.encode(TEXT, add_special_tokens=False).ids
    found = decode(tokenizer, ids)
    # Sentencepiece puts spaces behind added tokens.
    assert found.text.replace("think> ", "think>").lstrip() == TEXT
    assert assert_ends(tokenizer, ids, found) > len(ids) / 2
    assert decode(wrapped(tokenizer), ids) == found
    assert encode(tokenizer, TEXT) == (ids, found) == encode(wrapped(tokenizer), TEXT)


@given(st.text(max_size=40), st.sampled_from(sorted(TOKENIZERS)))
def test_ends_of_any_text(text, kind):
    tokenizer = TOKENIZERS[kind]
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    found = decode(tokenizer, ids)
    special = {i for i, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    if not special & set(ids):
        assert_ends(tokenizer, ids, found)


@given(st.lists(st.integers(0, 300), min_size=1, max_size=30), st.sampled_from(["byte-bpe", "byte"]))
def test_any_ids_even_those_of_broken_characters(ids, kind):
    tokenizer = TOKENIZERS[kind]
    ids = [i % tokenizer.get_vocab_size() for i in ids]
    found = decode(tokenizer, ids)
    assert list(found.ends) == sorted(found.ends)
    assert found.ends[-1] == len(found.text)


def test_a_character_is_complete_with_its_last_byte():
    tokenizer = TOKENIZERS["byte"]
    ids = tokenizer.encode("a😀b", add_special_tokens=False).ids
    assert decode(tokenizer, ids) == Decoded("a😀b", (1, 1, 1, 1, 2, 3))
    assert decode(tokenizer, ids[:3]) == Decoded("a\ufffd", (1, 1, 2))


@every_kind
def test_special_tokens_leave_no_text_but_marks_of_thinking_do(kind):
    tokenizer = TOKENIZERS[kind]
    ids = tokenizer.encode("<|im_start|><think>a</think>b<|im_end|>", add_special_tokens=False).ids
    found = decode(tokenizer, ids)
    assert "".join(found.text.split()) == "<think>a</think>b"
    assert found.ends[0] == 0
    assert found.ends[-1] == len(found.text)


def test_a_decoder_of_another_kind_is_followed_by_prefixes():
    class Upper:
        """Decodes to upper case, with a dash between tokens: no table of bytes gives that."""

        def get_added_tokens_decoder(self):
            return {}

        def id_to_token(self, i):
            return "abcdef"[i]

        def decode(self, ids, skip_special_tokens):
            return "-".join("ABCDEF"[i] for i in ids)

    assert decode(Upper(), [0, 1, 5]) == Decoded("A-B-F", (1, 3, 5))


def test_ids_of_another_tokenizer_are_refused():
    with pytest.raises(InputError, match="token id 99999 is not in the tokenizer's vocabulary"):
        decode(TOKENIZERS["byte"], [5, 99999])
    with pytest.raises(InputError, match="token id 99999 is not in the tokenizer's vocabulary"):
        decode(wrapped(TOKENIZERS["byte"]), [5, 99999])


# --- completions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "open_", "thinking", "response", "closed"),
    [
        ("<think>\na b\n\nc\n</think>\n\nd", False, "a b\n\nc", "d", True),
        ("a b\n</think>\nd </think> e", True, "a b", "d </think> e", True),
        ("no marks here", False, "", "no marks here", True),
        ("no marks here", True, "no marks here", "", False),
        ("<think>\ncut of", False, "cut of", "", False),
        ("Sure. <think>\nthink <b\n</think>x", False, None, "x", True),
        ("<think>think</think> think", False, "think", "think", True),
        (
            "<|begin_of_thought|>\na\n<|end_of_thought|>\n<|begin_of_solution|>\nb\n<|end_of_solution|>",
            False,
            "a",
            "b",
            True,
        ),
        ("", False, "", "", True),
        ("  \n", False, "", "  \n", True),
    ],
)
def test_parts_are_found_where_they_stand(text, open_, thinking, response, closed):
    found = split_completion(text, thinking_open=open_)
    assert found.closed is closed
    assert found.response == response
    assert thinking is None or found.thinking == thinking
    for part in ("thinking", "response"):
        own = getattr(found, part)
        for stop in range(1, len(own) + 1):
            place = found.place(part, stop)
            assert text[place - 1] == own[stop - 1]
    # Thinking and response do not overlap, and come in this order.
    if found.thinking and found.response:
        assert found.place("thinking", len(found.thinking)) < found.place("response", 1)


marked = st.lists(
    st.sampled_from(["<think>", "</think>", "\n\n", " ", "a", "so", "think", "<", "</", "é"]), max_size=12
).map("".join)


@given(marked, st.booleans())
def test_parts_are_found_in_any_mess_or_not_at_all(text, open_):
    found = split_completion(text, thinking_open=open_)
    for part in ("thinking", "response"):
        own = getattr(found, part)
        for stop in range(1, len(own) + 1):
            place = found.place(part, stop)
            assert place is None or text[place - 1] == own[stop - 1]


def test_a_prompt_that_opens_the_thinking():
    assert leaves_open("<|im_start|>assistant\n<think>\n")
    assert not leaves_open("<|im_start|>assistant\n<think>\n\n</think>\n\n")


# --- steps ---------------------------------------------------------------------------------------------------------


@every_kind
def test_a_steps_last_token_completes_it(kind):
    tokenizer = TOKENIZERS[kind]
    ids = tokenizer.encode(TEXT + "<|im_end|>", add_special_tokens=False).ids
    decoded = decode(tokenizer, ids)
    completion = split_completion(decoded.text)
    trace = Trace("t", "p", completion.thinking, completion.response)
    segmented = split(trace, "blank-line")
    assert [segmented.text(step) for step in segmented.steps] == [
        "We add 12 and 30: é漢字 😀.\n\n",
        "So it is 42.",
        "The sum is \\boxed{42}.",
    ]
    ends = step_ends(segmented.steps, completion, decoded)
    assert ends[-1] == len(ids) - 1, "the end mark belongs to the last step"
    for step, end in zip(segmented.steps[:-1], ends, strict=False):
        visible = segmented.text(step)
        assert visible in decoded.text[: decoded.ends[end]]
        assert visible not in decoded.text[: decoded.ends[end - 1]]


def test_a_token_over_a_border_belongs_to_the_step_it_completes():
    # "a", ".\n\nS", "o": the middle token ends the first step and begins the second.
    completion = split_completion("a.\n\nSo")
    steps = split(Trace("t", "p", "", "a.\n\nSo"), "blank-line").steps
    assert step_ends(steps, completion, Decoded("a.\n\nSo", (1, 5, 6))) == (1, 2)
    # All in one token: both end there.
    assert step_ends(steps, completion, Decoded("a.\n\nSo", (6,))) == (0, 0)


def test_steps_in_a_part_that_was_not_found_have_no_place():
    completion = split_completion("So")
    steps = split(Trace("t", "p", "other text", ""), "blank-line").steps
    assert step_ends(steps, completion, Decoded("So", (1, 2))) is None
