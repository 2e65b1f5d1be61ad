"""One problem's right steps and their wrong alternatives as one tree of tokens, for training.

In: a row of `data.py`. Out: the tokens of a `Tree`, made of the very pieces that scoring uses, where labels are read,
and which token sees which.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from reasonflux_prm.prm.families.native import NativePRM
from reasonflux_prm.records import Part


@dataclass(frozen=True)
class Tree:
    """One problem's tokens: `parent[n]` is the node before node n, `node[t]` the node of token t; nodes are pieces."""

    tokens: list[int]
    node: list[int]
    parent: list[int]
    depth: list[int]
    """Position of each token counted along its own path."""
    reads: list[int]
    labels: list[float]
    marker: list[bool]


class TreeBuilder:
    """Turns a row of `data.py` or `sampled.py` into a tree, with the very pieces that scoring will use."""

    def __init__(self, prm: NativePRM) -> None:
        marker = prm.trajectory_piece()
        assert marker is not None  # the PRM that is trained has a trajectory reward
        self.prm, self.marker = prm, marker.tokens

    def build(self, row: dict[str, Any]) -> Tree:
        """Return the tree of one problem."""
        tree = Tree([], [], [], [], [], [], [])
        part: Part = row["part"]
        gold: list[str] = row["gold"]
        root = self._add(tree, -1, self.prm.head(row["problem"]), None, False)
        trunk = [root]
        for index, text in enumerate(gold):
            trunk.append(self._step(tree, trunk[-1], text, part, part if index else None, 1.0))
        end = self._step(tree, trunk[-1], row["final"], "response", part, 1.0)
        self._add(tree, end, self.marker, 1.0, True)
        for branch in row["branches"]:
            node, at, label = trunk[branch["at"]], branch["at"], float(branch["label"])
            previous: Part | None = part if at else None
            labels: list[float] = branch.get("labels") or [label] * len(branch["steps"])
            response: int = branch.get("response", len(gold) - at)
            for offset, (text, right) in enumerate(zip(branch["steps"], labels, strict=True)):
                here: Part = "response" if offset >= response else part
                node = self._step(tree, node, text, here, previous, right)
                previous = here
            if branch["complete"] or at == len(gold):
                self._add(tree, node, self.marker, label, True)
        return tree

    def _step(self, tree: Tree, parent: int, text: str, part: Part, previous: Part | None, label: float) -> int:
        return self._add(tree, parent, self.prm.step_piece(text, 0, part, previous).tokens, label, False)

    def _add(self, tree: Tree, parent: int, tokens: tuple[int, ...], label: float | None, marker: bool) -> int:
        number = len(tree.parent)
        start = 0 if parent < 0 else tree.depth[len(tree.node) - 1 - tree.node[::-1].index(parent)] + 1
        tree.parent.append(parent)
        tree.tokens.extend(tokens)
        tree.node.extend([number] * len(tokens))
        tree.depth.extend(range(start, start + len(tokens)))
        if label is not None:
            tree.reads.append(len(tree.tokens) - 1)
            tree.labels.append(label)
            tree.marker.append(marker)
        return number


def attention_mask(trees: list[Tree], length: int) -> Tensor:
    """Return which tokens see which, (B, 1, T, T) bool: a token sees its ancestors and its own node up to itself."""
    mask = torch.zeros(len(trees), 1, length, length, dtype=torch.bool)
    for b, tree in enumerate(trees):
        ancestors = torch.zeros(len(tree.parent), len(tree.parent), dtype=torch.bool)
        for number, parent in enumerate(tree.parent):
            if parent >= 0:
                ancestors[number] = ancestors[parent]
            ancestors[number, number] = True
        node = torch.tensor(tree.node)
        n = len(node)
        mask[b, 0, :n, :n] = ancestors[node][:, node] & torch.ones(n, n, dtype=torch.bool).tril()
        mask[b, 0, n:, 0] = True  # padding looks at the first token, so that no row of the softmax is empty
    return mask
