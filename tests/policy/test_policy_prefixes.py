"""The tree of prefixes, against a plain dictionary of all that was added."""

import random

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
from reasonflux_prm.policy.prefixes import Prefixes  # noqa: E402 - imports torch

LAYERS, HEADS, SIZE = 4, 2, 3


def past_of(tokens):
    """Stand-in keys and values that depend on the whole beginning, as real ones do."""
    columns, state = [], 7
    for token in tokens:
        state = (state * 31 + token) % 1009
        columns.append(torch.full((LAYERS, HEADS, 1, SIZE), float(state)))
    return torch.cat(columns, dim=2) if columns else torch.empty(LAYERS, HEADS, 0, SIZE)


def found(prefixes, tokens):
    return torch.cat([past_of(()), *prefixes.find(tokens)], dim=2)


@pytest.mark.parametrize("seed", range(20))
def test_what_is_found_is_the_longest_beginning_that_was_added(seed):
    dice, prefixes, added = random.Random(seed), Prefixes(10**9), {}
    for _ in range(60):
        tokens = [dice.randrange(3) for _ in range(dice.randrange(1, 12))]
        longest = max((n for n in range(len(tokens) + 1) if tuple(tokens[:n]) in added), default=0)
        assert torch.equal(found(prefixes, tokens), past_of(tokens[:longest]))
        start = dice.randrange(longest + 1)
        prefixes.add(tokens, past_of(tokens)[:, :, start:])
        added.update(dict.fromkeys(tuple(tokens[:n]) for n in range(len(tokens) + 1)))
    distinct = len(added) - 1
    assert prefixes.bytes == distinct * LAYERS * HEADS * SIZE * 4, "a beginning that several share is kept once"


def test_nothing_is_kept_behind_a_gap():
    prefixes = Prefixes(10**9)
    prefixes.add([1, 2, 3], past_of([1, 2, 3])[:, :, 2:])
    assert prefixes.find([1, 2, 3]) == []
    assert prefixes.bytes == 0


@pytest.mark.parametrize("seed", range(10))
def test_memory_is_bounded_and_what_is_left_is_right(seed):
    per_token = LAYERS * HEADS * SIZE * 4
    dice, prefixes = random.Random(seed), Prefixes(25 * per_token)
    for _ in range(200):
        tokens = [dice.randrange(3) for _ in range(dice.randrange(1, 12))]
        before = found(prefixes, tokens)
        assert torch.equal(before, past_of(tokens[: before.shape[2]]))
        prefixes.add(tokens, past_of(tokens)[:, :, before.shape[2] :])
        assert prefixes.bytes <= 25 * per_token
        assert prefixes.bytes == sum(node.past.nbytes for node in nodes(prefixes._root))
    prefixes.clear()
    assert prefixes.find([0]) == []


def nodes(node):
    for child in node.children.values():
        yield child
        yield from nodes(child)


def test_the_ends_that_were_not_used_for_longest_go_first():
    per_token = LAYERS * HEADS * SIZE * 4
    prefixes = Prefixes(6 * per_token)
    for tokens in ([1, 2, 3], [1, 4, 5]):
        prefixes.add(tokens, past_of(tokens))
    assert prefixes.bytes == 5 * per_token
    prefixes.find([1, 2, 3])
    prefixes.add([6, 7], past_of([6, 7]))
    assert [sum(piece.shape[2] for piece in prefixes.find(own)) for own in ([1, 2, 3], [1, 4, 5], [6, 7])] == [3, 1, 2]


def test_a_memory_of_nothing_keeps_nothing():
    prefixes = Prefixes(0)
    prefixes.add([1], past_of([1]))
    assert prefixes.find([1]) == []
