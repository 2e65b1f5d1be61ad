"""From the characters of steps to the tokens of a completion, also where a trainer passes token ids only.

A token straddles two steps where their border lies inside it; it belongs to the step that it completes. A character
whose bytes are spread over several tokens is complete with the last of them.
"""

from __future__ import annotations

import codecs
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from reasonflux_prm.errors import InputError
from reasonflux_prm.records import Step
from reasonflux_prm.rl.completions import Completion
from reasonflux_prm.traces.marks import SOLUTION_PAIR, THINK_PAIRS, THOUGHT_PAIR

_KEPT = {mark for pair in (*THINK_PAIRS, THOUGHT_PAIR, SOLUTION_PAIR) for mark in pair}
"""Special tokens that stay in the text, since they tell thinking from response."""
_BYTE = re.compile(r"<0x([0-9A-F]{2})>\Z")


@dataclass(frozen=True, slots=True)
class Decoded:
    """The text of a completion, and how far each token brings it."""

    text: str
    """Without special tokens, but with marks of thinking, special or not."""
    ends: tuple[int, ...]
    """(T,) characters that are complete after token t; never falling, the last is the text's length."""


def decode(tokenizer: Any, ids: Sequence[int]) -> Decoded:
    """Decode a completion.

    Args:
        tokenizer: A transformers or a `tokenizers` tokenizer.
        ids: (T,) token ids, without padding; end marks may be among them.

    Raises:
        InputError: An id is not in the vocabulary.
    """
    special, to_token, to_text = _parts(tokenizer)
    kept = [index for index, token in enumerate(ids) if token not in special]
    tokens = []
    for index in kept:
        token = to_token(ids[index])
        if token is None:
            raise InputError(
                f"token id {ids[index]} is not in the tokenizer's vocabulary; pass the policy's own tokenizer"
            )
        tokens.append(token)
    pieces = [ids[index] for index in kept]
    text = to_text(pieces)
    added = _added(tokenizer)
    ends = None
    for table in (_byte_level, _sentencepiece):
        ends = ends or _by_bytes([table(token, token in added) for token in tokens], text)
    if ends is None:
        ends = [_agreeing(to_text(pieces[: n + 1]), text) for n in range(len(pieces))]
    full, reached, at = [], 0, 0
    for index in range(len(ids)):
        if at < len(kept) and kept[at] == index:
            reached = max(reached, ends[at])
            at += 1
        full.append(reached)
    if full:
        full[-1] = len(text)
    return Decoded(text, tuple(full))


def encode(tokenizer: Any, text: str) -> tuple[list[int], Decoded]:
    """Tokenise a completion of which only the text is at hand; returns its token ids too.

    The tokens need not be those that the policy wrote: prefer `decode` where there are ids.
    """
    if hasattr(tokenizer, "convert_ids_to_tokens"):
        ids = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    else:
        ids = list(tokenizer.encode(text, add_special_tokens=False).ids)
    return ids, decode(tokenizer, ids)


def step_ends(steps: Sequence[Step], completion: Completion, decoded: Decoded) -> tuple[int, ...] | None:
    """Return the index of each step's last token, never falling; None if a part was not found in the text.

    What stands behind the last step (an end mark, white space) belongs to it: its end is the last token. What stands
    between thinking and response belongs to the first step of the response.

    Args:
        steps: In reading order, within the parts of `completion`.
        completion: Parts of `decoded.text`.
        decoded: The completion's tokens, at least one.
    """
    found: list[int] = []
    for step in steps:
        stop = completion.place(step.part, step.stop)
        if stop is None:
            return None
        found.append(min(bisect_left(decoded.ends, stop), len(decoded.ends) - 1))
    if found:
        found[-1] = len(decoded.ends) - 1
    return tuple(found)


# --- tokenizers ------------------------------------------------------------------------------------------------------


def _added(tokenizer: Any) -> set[str]:
    return {token.content for token in _added_tokens(tokenizer).values()}


def _added_tokens(tokenizer: Any) -> dict[int, Any]:
    if hasattr(tokenizer, "added_tokens_decoder"):
        return dict(tokenizer.added_tokens_decoder)
    return dict(tokenizer.get_added_tokens_decoder())


def _parts(
    tokenizer: Any,
) -> tuple[set[int], Callable[[int], str | None], Callable[[Sequence[int]], str]]:
    """Return the ids that leave no text, and how to get a token's name and the text of ids."""
    special = {i for i, token in _added_tokens(tokenizer).items() if token.special and token.content not in _KEPT}
    if hasattr(tokenizer, "convert_ids_to_tokens"):
        # Cleaning up spaces would take characters away that tokens stand for.
        return (
            special,
            tokenizer.convert_ids_to_tokens,
            lambda ids: str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)),
        )
    return special, tokenizer.id_to_token, lambda ids: str(tokenizer.decode(list(ids), skip_special_tokens=False))


@lru_cache(maxsize=1)
def _alphabet() -> dict[str, int]:
    """Return the byte that each letter of a byte-level vocabulary stands for (GPT-2's table)."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = (byte for byte in range(256) if byte not in plain)
    return {chr(byte): byte for byte in plain} | {chr(256 + n): byte for n, byte in enumerate(rest)}


def _byte_level(token: str, added: bool) -> bytes | None:
    if added:
        return token.encode()
    found = [_alphabet().get(letter) for letter in token]
    return None if None in found else bytes(byte for byte in found if byte is not None)


def _sentencepiece(token: str, added: bool) -> bytes | None:
    single = _BYTE.match(token)
    if single and not added:
        return bytes([int(single[1], 16)])
    return token.encode() if added else token.replace("▁", " ").encode()


def _by_bytes(pieces: Iterable[bytes | None], text: str) -> list[int] | None:
    """Return how many characters are complete after each piece; None if the pieces do not make up the text."""
    reader = codecs.getincrementaldecoder("utf-8")("replace")
    built: list[str] = []
    ends: list[int] = []
    for piece in pieces:
        if piece is None:
            return None
        built.append(reader.decode(piece))
        ends.append(len(built[-1]) + (ends[-1] if ends else 0))
    whole = "".join(built) + reader.decode(b"", True)
    # Vocabularies in the manner of sentencepiece drop the space that they put in front of a text.
    for dropped in (0, 1):
        if whole[dropped:] == text and not whole[:dropped].strip():
            return [max(0, end - dropped) for end in ends]
    return None


def _agreeing(prefix: str, text: str) -> int:
    """Return the characters at the start of the text that a decoded prefix has right."""
    if text.startswith(prefix):
        return len(prefix)
    count = 0
    for one, other in zip(prefix, text, strict=False):
        if one != other:
            break
        count += 1
    return count
