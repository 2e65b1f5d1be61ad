"""Training trees: the tokens scoring would see along every path, and attention along that path only."""

from itertools import pairwise

import pytest
import torch
from tiny_native import write_native

from reasonflux_prm.prm.load import load_prm
from reasonflux_prm.records import SegmentedTrace, Step, Trace
from recipes.prm_first.tree import TreeBuilder, attention_mask

ROW = {
    "problem": "Ann has 2 apples and buys 3. How many?",
    "part": "thinking",
    "gold": ["2 + 3 = 5", "So 5 apples."],
    "final": "The answer is 5.",
    "branches": [
        {"at": 0, "steps": ["2 + 3 = 6", "So 6 apples.", "The answer is 6."], "complete": True, "label": 0},
        {"at": 1, "steps": ["So 4 apples."], "complete": False, "label": 0},
        {"at": 2, "steps": ["The answer is 2."], "complete": False, "label": 0},
    ],
}


def path_tokens(tree, read):
    """The tokens that the token at `read` sees, in the order of their positions."""
    seen = attention_mask([tree], len(tree.tokens))[0, 0, read].nonzero().flatten().tolist()
    assert [tree.depth[t] for t in seen] == list(range(len(seen)))
    return [tree.tokens[t] for t in seen]


def as_trace(steps, final):
    thinking = "\n".join(steps)
    cuts = [0]
    for step in steps:
        cuts.append(min(cuts[-1] + len(step) + 1, len(thinking)))
    spans = [Step("thinking", a, b) for a, b in pairwise(cuts)]
    if final:
        spans.append(Step("response", 0, len(final)))
    return SegmentedTrace(Trace("t", ROW["problem"], thinking=thinking, response=final or ""), tuple(spans), "given")


@pytest.fixture(scope="module")
def prm(tmp_path_factory):
    return load_prm(str(write_native(tmp_path_factory.mktemp("tree"))))


@pytest.mark.parametrize(
    ("steps", "final", "label"),
    [
        (["2 + 3 = 5", "So 5 apples."], "The answer is 5.", 1.0),
        (["2 + 3 = 6", "So 6 apples."], "The answer is 6.", 0.0),
        (["2 + 3 = 5", "So 5 apples."], "The answer is 2.", 0.0),
    ],
)
def test_a_path_through_the_tree_is_the_input_that_scoring_builds(prm, steps, final, label):
    tree = TreeBuilder(prm).build(ROW)
    (sequence,) = prm.encode(as_trace(steps, final)).sequences
    wanted = [*sequence.head, *(token for piece in sequence.pieces for token in piece.tokens)]
    paths = {
        tuple(path_tokens(tree, read)): value
        for read, value, marker in zip(tree.reads, tree.labels, tree.marker, strict=True)
        if marker
    }
    assert paths[tuple(wanted)] == label


def test_every_step_is_read_once_with_its_label(prm):
    tree = TreeBuilder(prm).build(ROW)
    steps = [label for label, marker in zip(tree.labels, tree.marker, strict=True) if not marker]
    assert sorted(steps) == [0.0] * 5 + [1.0] * 3
    assert all(tree.tokens[read] == prm.separator for read, m in zip(tree.reads, tree.marker, strict=True) if not m)


def test_padding_changes_nothing_and_no_row_is_empty(prm):
    tree = TreeBuilder(prm).build(ROW)
    n = len(tree.tokens)
    padded = attention_mask([tree], n + 5)
    assert torch.equal(padded[0, 0, :n, :n], attention_mask([tree], n)[0, 0])
    assert not padded[0, 0, :n, n:].any()
    assert padded.any(dim=-1).all()
