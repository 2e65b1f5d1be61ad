"""The output matrix of a causal language model, for the families that read token probabilities.

None of them needs logits of the whole vocabulary at every position: two keep the rows of their candidate tokens, one
works in slices.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from reasonflux_prm.errors import CheckpointError
from reasonflux_prm.prm.checkpoint import Checkpoint
from reasonflux_prm.prm.decoder import Decoder
from reasonflux_prm.prm.tokenizer import TextTokenizer


def lm_head(checkpoint: Checkpoint, decoder: Decoder) -> Tensor:
    """Return the output matrix, (vocabulary, d), on the last device; the embedding where the two are tied.

    Raises:
        CheckpointError: It is missing and not tied, or its shape does not fit the body.
    """
    if "lm_head.weight" not in checkpoint.files and checkpoint.config.get("tie_word_embeddings"):
        return decoder.embedding.to(decoder.devices[-1])
    weight, _ = checkpoint.linear("lm_head", allowed_rows=(len(decoder.embedding),))
    return weight


def candidate_rows(checkpoint: Checkpoint, decoder: Decoder, candidates: Sequence[int]) -> Tensor:
    """Return the rows of the output matrix for some tokens, (len(candidates), d); the rest of it is not kept.

    Raises:
        CheckpointError: See `lm_head`; or a candidate is not in the vocabulary.
    """
    weight = lm_head(checkpoint, decoder)
    if max(candidates) >= len(weight):
        raise CheckpointError(
            f"{checkpoint.where}: candidate token {max(candidates)} is outside the vocabulary of {len(weight)}; "
            "the tokenizer belongs to another checkpoint"
        )
    return weight[list(candidates)]


def single_token(tokenizer: TextTokenizer, text: str) -> int:
    """Return the id of a text that must be one token.

    Raises:
        CheckpointError: The tokenizer cuts it into several, or knows none of it.
    """
    ids = tokenizer.start(text)
    # An unknown character is one token as well, but one that does not give the text back.
    if len(ids) != 1 or tokenizer.decode(ids).strip() != text:
        raise CheckpointError(
            f"{tokenizer.where}: {text!r} is {len(ids)} tokens, expected one of its own; "
            "this tokenizer is not that of the family"
        )
    return ids[0]
