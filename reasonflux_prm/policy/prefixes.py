"""Keys and values of texts that were read or written, kept for texts that begin alike.

A search writes a step, chooses, and goes on from the branches that are left: what each of them begins with was read
already. The texts form a tree, as in SGLang's RadixAttention (arXiv:2312.07104): a text that goes on from another
holds its own tokens only, two texts that begin alike share their beginning. Beyond `most_bytes` the ends of the tree
that were not used for longest are forgotten, which costs reading them again and changes no text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch


@dataclass(eq=False, slots=True)
class _Node:
    """Tokens that follow those of the parent, and their keys and values (2L, H, T, d)."""

    tokens: tuple[int, ...]
    past: torch.Tensor
    parent: _Node | None
    children: dict[int, _Node] = field(default_factory=dict)
    """By their first token."""
    used: int = 0


class Prefixes:
    """A tree of token sequences with their keys and values.

    Args:
        most_bytes: What all keys and values may take together; 0 keeps none.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._root = _Node((), torch.empty(0), None)
        self._clock = 0
        self.bytes = 0
        """What is kept now."""

    def find(self, tokens: Sequence[int]) -> list[torch.Tensor]:
        """Return the keys and values (2L, H, T, d) of the longest beginning that is known, in pieces that follow."""
        return [node.past[:, :, :length] for node, length in self._path(tokens)]

    def add(self, tokens: Sequence[int], past: torch.Tensor) -> None:
        """Keep a sequence, of which `past` (2L, H, T, d) holds the last T tokens.

        Nothing is kept if what comes before these is not known (any more).
        """
        path = list(self._path(tokens))
        known, before = sum(length for _, length in path), len(tokens) - past.shape[2]
        if not before <= known < len(tokens) or self._most == 0:
            return
        parent = self._root
        if path:
            parent, length = path[-1]
            if length < len(parent.tokens):
                self._split(parent, length)
        node = _Node(tuple(tokens[known:]), past[:, :, known - before :].clone(), parent, used=self._clock)
        parent.children[node.tokens[0]] = node
        self.bytes += node.past.nbytes
        self._forget()

    def clear(self) -> None:
        """Forget everything."""
        self._root.children.clear()
        self.bytes = 0

    def _path(self, tokens: Sequence[int]) -> Iterator[tuple[_Node, int]]:
        """Yield the nodes that a sequence begins with, and how many tokens of each."""
        self._clock += 1
        node, at = self._root, 0
        while at < len(tokens) and (child := node.children.get(tokens[at])) is not None:
            pairs = zip(child.tokens, tokens[at : at + len(child.tokens)], strict=False)
            length = next((number for number, (own, other) in enumerate(pairs) if own != other), None)
            if length is None:
                length = min(len(child.tokens), len(tokens) - at)
            child.used = self._clock
            yield child, length
            if length < len(child.tokens):
                return
            node, at = child, at + length

    def _split(self, node: _Node, length: int) -> None:
        """Cut a node in two; both halves own their memory, so that either can be forgotten."""
        rest = _Node(node.tokens[length:], node.past[:, :, length:].clone(), node, node.children, node.used)
        for child in rest.children.values():
            child.parent = rest
        node.tokens, node.past = node.tokens[:length], node.past[:, :, :length].clone()
        node.children = {rest.tokens[0]: rest}

    def _forget(self) -> None:
        while self.bytes > self._most:
            oldest = min(self._ends(self._root), key=lambda node: node.used)
            assert oldest.parent is not None
            del oldest.parent.children[oldest.tokens[0]]
            self.bytes -= oldest.past.nbytes

    def _ends(self, node: _Node) -> Iterator[_Node]:
        waiting = list(node.children.values())
        while waiting:
            one = waiting.pop()
            waiting += one.children.values()
            if not one.children:
                yield one
