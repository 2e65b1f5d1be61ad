"""Our decoder against transformers on random configurations: whole, packed, and grown through caches."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from reasonflux_prm.errors import CheckpointError, ContextError
from reasonflux_prm.prm.cache import KVCache
from reasonflux_prm.prm.config import DecoderConfig
from reasonflux_prm.prm.decoder import Decoder

VOCABULARY = 300
CPU = torch.device("cpu")
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    # With heads of 8 the four frequencies turn 20, 2, 0.2 and 0.02 times: above, inside and below the band.
    "original_max_position_embeddings": 128,
}
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 64}
LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}
ARCHITECTURES: dict[str, tuple[str, dict[str, object]]] = {
    "llama": ("llama", {}),
    "llama, bands and biases": ("llama", {"attention_bias": True, "rope_parameters": LLAMA3}),
    "llama, no grouping": ("llama", {"num_key_value_heads": 6}),
    "llama, narrow heads": ("llama", {"head_dim": 4}),
    "qwen2": ("qwen2", {}),
    "qwen2, yarn": ("qwen2", {"rope_parameters": YARN}),
    "qwen3": ("qwen3", {"head_dim": 16}),
    "mistral, linear": ("mistral", {"rope_parameters": LINEAR, "sliding_window": None}),
}


def pair(name: str, **more: object) -> tuple[torch.nn.Module, Decoder]:
    """The same random weights as a transformers model and as ours."""
    kind, fields = ARCHITECTURES[name]
    model = tiny.body(
        kind, VOCABULARY, seed=3, **{"num_hidden_layers": 3, "max_position_embeddings": 512, **fields, **more}
    )
    config = DecoderConfig.from_json(model.config.to_dict(), name)
    return model, Decoder(config, dict(model.state_dict()), [CPU] * 3)


def sequences(lengths: Sequence[int], seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, VOCABULARY, (length,), generator=generator) for length in lengths]


def starts(parts: Sequence[Tensor]) -> list[int]:
    return [0, *torch.tensor([len(part) for part in parts]).cumsum(0).tolist()]


def reference(model: torch.nn.Module, tokens: Tensor) -> Tensor:
    with torch.no_grad():
        return model(input_ids=tokens[None], use_cache=False).last_hidden_state[0]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_packed_and_alone(name):
    model, decoder = pair(name)
    parts = sequences([5, 100, 1, 37, 300])
    expected = torch.cat([reference(model, part) for part in parts])
    assert torch.allclose(decoder(torch.cat(parts), starts(parts)), expected, atol=2e-5, rtol=1e-4)
    alone = torch.cat([decoder(part, [0, len(part)]) for part in parts])
    assert torch.allclose(alone, expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_grown_through_caches(name):
    model, decoder = pair(name)
    parts = sequences([100, 60])
    caches = [decoder.new_cache() for _ in parts]
    grown: list[list[Tensor]] = [[], []]
    for cuts in [((0, 1), (0, 30)), ((1, 3), (30, 31)), ((3, 50), (31, 31)), ((50, 100), (31, 60))]:
        new = [part[a:b] for part, (a, b) in zip(parts, cuts, strict=True)]
        hidden = decoder(torch.cat(new), starts(new), caches)
        for place, (a, b) in zip(grown, pairwise(starts(new)), strict=True):
            place.append(hidden[a:b])
    for part, pieces in zip(parts, grown, strict=True):
        assert torch.allclose(torch.cat(pieces), reference(model, part), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_what_is_read_is_what_all_would_be(name):
    model, decoder = pair(name)
    parts = sequences([5, 100, 1, 37, 300])
    reads = torch.tensor([0, 4, 5, 60, 104, 106, 442])
    expected = torch.cat([reference(model, part) for part in parts])[reads]
    read = decoder(torch.cat(parts), starts(parts), reads=reads)
    assert torch.allclose(read, expected, atol=2e-5, rtol=1e-4)
    assert decoder(torch.cat(parts), starts(parts), reads=reads[:0]).shape == (0, expected.shape[1])


def test_what_is_not_read_is_still_kept_in_the_caches():
    model, decoder = pair("qwen2")
    parts = sequences([100, 60])
    caches = [decoder.new_cache() for _ in parts]
    decoder(torch.cat([part[:40] for part in parts]), [0, 40, 80], caches, torch.tensor([79]))
    read = decoder(torch.cat([part[40:] for part in parts]), [0, 60, 80], caches, torch.tensor([0, 59, 60, 79]))
    expected = [reference(model, part)[[40, -1]] for part in parts]
    assert torch.allclose(read, torch.cat(expected), atol=2e-5, rtol=1e-4)


def test_positions_matter():
    _, decoder = pair("llama")
    [tokens] = sequences([20])
    turned = decoder(torch.cat([tokens[10:], tokens[:10]]), [0, 20])
    assert not torch.allclose(decoder(tokens, [0, 20])[9], turned[19], atol=1e-2)


def test_neighbours_do_not():
    """A sequence's states are the same to the bit of rounding whatever is packed beside it."""
    _, decoder = pair("qwen2")
    first, second, third = sequences([17, 40, 9])
    a = decoder(torch.cat([first, second]), [0, 17, 57])[:17]
    b = decoder(torch.cat([third, first]), [0, 9, 26])[9:]
    assert torch.allclose(a, b, atol=1e-5)


def test_too_long():
    _, decoder = pair("llama", max_position_embeddings=16)
    [tokens] = sequences([17])
    with pytest.raises(ContextError, match="17 tokens, the model takes 16"):
        decoder(tokens, [0, 17])
    cache = decoder.new_cache()
    decoder(tokens[:16], [0, 16], [cache])
    with pytest.raises(ContextError, match="17 tokens"):
        decoder(tokens[16:], [0, 1], [cache])
    assert cache.length == 16


def test_sliding_window_is_the_context():
    """Within the window a Mistral is exact; beyond it our attention would see too much, so it is refused."""
    model, decoder = pair("mistral, linear", sliding_window=32)
    [tokens] = sequences([32])
    assert decoder.config.context == 32
    assert torch.allclose(decoder(tokens, [0, 32]), reference(model, tokens), atol=2e-5, rtol=1e-4)


def test_zero_rotary_frequencies_are_refused(monkeypatch):
    """What transformers 5 leaves of rotary buffers that remote code makes."""
    monkeypatch.setattr("reasonflux_prm.prm.decoder.inverse_frequencies", lambda config: (torch.zeros(4), 1.0))
    with pytest.raises(CheckpointError, match="rotary frequencies are all zero"):
        pair("llama")


def test_bfloat16_is_close():
    model, exact = pair("qwen2")
    rough = Decoder(exact.config, {k: v.bfloat16() for k, v in model.state_dict().items()}, [CPU] * 3)
    [tokens] = sequences([64])
    expected = exact(tokens, [0, 64])
    found = rough(tokens, [0, 64])
    assert found.dtype == torch.bfloat16
    similarity = torch.nn.functional.cosine_similarity(found.float(), expected, dim=-1)
    assert similarity.min() > 0.98


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model_type": "gpt2"}, "model_type is 'gpt2'"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"rope_parameters": {"rope_type": "longrope", "rope_theta": 1e4}}, "rope_type 'longrope'"),
        ({"hidden_size": None}, "hidden_size"),
    ],
)
def test_configurations_we_would_get_wrong(fields, message):
    config = tiny.config("llama", VOCABULARY).to_dict() | fields
    model = tiny.body("llama", VOCABULARY)
    if fields == {"hidden_size": None}:
        del config["hidden_size"]
    with pytest.raises(CheckpointError, match=message):
        Decoder(DecoderConfig.from_json(config, "x"), dict(model.state_dict()), [CPU] * 2)


# --- caches: fork, roll back, append, in any order -----------------------------------------------------------------

_MODEL, _DECODER = pair("qwen2")


@given(
    st.lists(
        st.tuples(
            st.integers(0, 50),
            st.sampled_from(["append", "append", "together", "fork", "rollback", "drop"]),
            st.integers(0, 200),
        ),
        max_size=14,
    )
)
@settings(max_examples=80, deadline=None)
def test_branches_never_touch_each_other(operations):
    """After any sequence of operations on any branches, each branch is what a reading from scratch gives."""
    branches: list[tuple[KVCache, list[int]]] = [(_DECODER.new_cache(), [])]
    for number, (who, what, amount) in enumerate(operations):
        cache, held = branches[who % len(branches)]
        if what == "append":
            [new] = sequences([amount % 7 + 1], seed=1000 * number + amount)
            hidden = _DECODER(new, [0, len(new)], [cache])
            held += new.tolist()
            whole = _DECODER(torch.tensor(held), [0, len(held)])
            assert torch.allclose(hidden, whole[-len(new) :], atol=1e-4)
        elif what == "together":
            news = sequences([(amount + place) % 5 + 1 for place in range(len(branches))], seed=1000 * number + amount)
            _DECODER(torch.cat(news), starts(news), [cache for cache, _ in branches])
            for (_, tokens), new in zip(branches, news, strict=True):
                tokens += new.tolist()
        elif what == "fork":
            branches.append((cache.fork(), list(held)))
        elif what == "rollback":
            length = amount % (len(held) + 1)
            cache.rollback(length)
            del held[length:]
        elif len(branches) > 1:
            branches.pop(who % len(branches))
    [probe] = sequences([3], seed=7)
    for cache, held in branches:
        assert cache.length == len(held)
        hidden = _DECODER(probe, [0, 3], [cache])
        whole = _DECODER(torch.tensor(held + probe.tolist()), [0, len(held) + 3])
        assert torch.allclose(hidden, whole[-3:], atol=1e-4)


def test_forks_grown_in_one_pass():
    """All candidates of a search step in one pack: none has written when the next one looks for room."""
    prefix, *ends = sequences([30, 5, 9, 2])
    cache = _DECODER.new_cache()
    _DECODER(prefix, [0, 30], [cache])
    branches = [cache, cache.fork(), cache.fork()]
    found = _DECODER(torch.cat(ends), starts(ends), branches)
    expected = torch.cat([reference(_MODEL, torch.cat([prefix, end]))[30:] for end in ends])
    assert torch.allclose(found, expected, atol=1e-4)
    again = _DECODER(torch.cat([prefix[:1]] * 3), [0, 1, 2, 3], branches)
    expected = torch.stack([reference(_MODEL, torch.cat([prefix, end, prefix[:1]]))[-1] for end in ends])
    assert torch.allclose(again, expected, atol=1e-4)


def test_branches_past_the_first_buffer():
    """Long enough that the storage has to grow, forked on both sides of that."""
    model, decoder = pair("llama", max_position_embeddings=2048)
    [tokens] = sequences([1100])
    cache = decoder.new_cache()
    decoder(tokens[:500], [0, 500], [cache])
    early = cache.fork()
    decoder(tokens[500:600], [0, 100], [cache])
    decoder(tokens[600:], [0, 500], [cache])
    cache.rollback(900)
    assert torch.allclose(decoder(tokens[900:], [0, 200], [cache]), reference(model, tokens)[900:], atol=1e-4)
    other = torch.cat([tokens[:500], tokens[:50]])
    assert torch.allclose(decoder(tokens[:50], [0, 50], [early]), reference(model, other)[500:], atol=1e-4)


def test_rollback_bounds():
    cache = _DECODER.new_cache()
    with pytest.raises(ValueError, match="cannot roll"):
        cache.rollback(1)
