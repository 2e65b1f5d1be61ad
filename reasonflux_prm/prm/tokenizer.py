"""A checkpoint's tokenizer, used so that text can never turn into a control token.

Works for byte-level BPE (Llama 3, Qwen, SmolLM2), SentencePiece-style BPE with a dummy prefix space (Llama 2, Mistral)
and byte tokenizers. Control tokens are looked up by name once and put in by id.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from reasonflux_prm.errors import CheckpointError, InputError, MissingExtra


class TextTokenizer:
    """Text to ids and back.

    Args:
        tokenizer: A `tokenizers.Tokenizer`; its truncation and padding are switched off.
        where: Name of the checkpoint, for error messages.
        bos: The id put in front of a text that has no chat template, or None.
    """

    def __init__(self, tokenizer: Tokenizer, where: str, bos: int | None = None) -> None:
        self.where, self.bos = where, bos
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._opening = tokenizer
        self._opening.encode_special_tokens = True
        self._following = _without_dummy_space(tokenizer)
        self._following.encode_special_tokens = True
        self._guarded: dict[int, str] = {}

    @classmethod
    def from_folder(cls, folder: Path) -> TextTokenizer:
        """Read `tokenizer.json` and `tokenizer_config.json`; a folder without the former is converted by transformers.

        Raises:
            CheckpointError: There is no tokenizer, or its files cannot be read.
            MissingExtra: Only a SentencePiece model is there and transformers is not installed.
        """
        path = folder / "tokenizer.json"
        if path.exists():
            tokenizer = _read(path)
        elif (folder / "tokenizer.model").exists():
            tokenizer = _converted(folder)
        else:
            raise CheckpointError(f"{folder}: no tokenizer.json; download the checkpoint's tokenizer files too")
        bos = tokenizer_settings(folder).get("bos_token")
        if isinstance(bos, dict):
            bos = bos.get("content")
        return cls(tokenizer, str(folder), tokenizer.token_to_id(bos) if bos else None)

    @property
    def controls(self) -> Mapping[int, str]:
        """Return the guarded control tokens, by id."""
        return self._guarded

    def control(self, token: str) -> int:
        """Return the id of a control token, and guard it: no text encoded from now on can produce it.

        Raises:
            CheckpointError: The tokenizer does not have it.
        """
        number: int | None = self._opening.token_to_id(token)
        if number is None:
            raise CheckpointError(
                f"{self.where}: the tokenizer has no token {token!r}, which this PRM reads its rewards at"
            )
        self._guarded[number] = token
        return number

    def start(self, text: str) -> list[int]:
        """Return the ids of a text tokenized on its own; SentencePiece-style tokenizers put a space in front."""
        return self._guard(text, self._opening)

    def continuation(self, text: str) -> list[int]:
        """Return the ids of a text that follows other tokens: no dummy space is added."""
        return self._guard(text, self._following)

    def template(self, text: str) -> list[int]:
        """Return the ids of fixed template text, in which control tokens count as such, and guard those."""
        self._following.encode_special_tokens = False
        try:
            ids = _ids(self._following, text)
        finally:
            self._following.encode_special_tokens = True
        added = self._following.get_added_tokens_decoder()
        self._guarded |= {number: added[number].content for number in ids if number in added}
        return ids

    def parsed(self, text: str, *, opening: bool = True) -> list[int]:
        """Return the ids of a text in which names of control tokens count as such: what other tools send as a prompt.

        Args:
            text: A whole input of the PRM, as its template writes it.
            opening: Add what the tokenizer puts around a text of its own accord (bos).
        """
        self._opening.encode_special_tokens = False
        try:
            return _ids(self._opening, text, around=opening)
        finally:
            self._opening.encode_special_tokens = True

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of some ids, control tokens shown by name."""
        return str(self._opening.decode(list(ids), skip_special_tokens=False))

    def _guard(self, text: str, tokenizer: Tokenizer) -> list[int]:
        """Encode; where a guarded id comes out (an added token not marked special), cut its name in two."""
        ids = _ids(tokenizer, text)
        if self._guarded.keys().isdisjoint(ids):
            return ids
        ids, start = [], 0
        # The lookahead finds names that overlap, too: every one of them is cut after its first character.
        for match in re.finditer(f"(?={'|'.join(map(re.escape, self._guarded.values()))})", text):
            stop = match.start() + 1
            ids += _ids(self._following if start else tokenizer, text[start:stop])
            start = stop
        return ids + _ids(self._following if start else tokenizer, text[start:])


def _ids(tokenizer: Tokenizer, text: str, *, around: bool = False) -> list[int]:
    try:
        return list(tokenizer.encode(text, add_special_tokens=around).ids)
    except TypeError as error:
        raise InputError(
            f"expected text, got something that is no valid Unicode ({error}): half a surrogate pair?"
        ) from error


def _without_dummy_space(tokenizer: Tokenizer) -> Tokenizer:
    """Return a copy that puts no space in front of a text, or the tokenizer itself if it puts none."""
    first = tokenizer.id_to_token(_ids(tokenizer, "x")[0]) or ""
    if not first.startswith(("▁", "Ġ")):
        return tokenizer
    settings = json.loads(tokenizer.to_str())
    for name in ("normalizer", "pre_tokenizer"):
        settings[name] = _without_prefix(settings[name])
    return Tokenizer.from_str(json.dumps(settings))


def _without_prefix(node: Any) -> Any:
    """Return a normalizer or pre-tokenizer, in the form of `tokenizer.json`, less whatever puts a space in front."""
    match node:
        case {"type": "Prepend"}:
            return None
        case {"type": "Metaspace"}:
            return {
                "type": "Metaspace",
                "replacement": node["replacement"],
                "prepend_scheme": "never",
                "split": node.get("split", True),
            }
        case {"type": "ByteLevel"}:
            return {**node, "add_prefix_space": False}
        case {"type": "Sequence"}:
            key = "normalizers" if "normalizers" in node else "pretokenizers"
            kept = (_without_prefix(inner) for inner in node[key])
            return {**node, key: [inner for inner in kept if inner is not None]}
    return node


def tokenizer_settings(folder: Path) -> Mapping[str, Any]:
    """Return `tokenizer_config.json`, or nothing if the folder has none.

    Raises:
        CheckpointError: It is not a JSON object.
    """
    path = folder / "tokenizer_config.json"
    if not path.exists():
        return {}
    try:
        settings = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path}: not valid JSON ({error}); fetch the checkpoint again") from error
    if not isinstance(settings, dict):
        raise CheckpointError(f"{path}: expected a JSON object, found {type(settings).__name__}")
    return settings


def _read(path: Path) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the tokenizers library raises plain Exception
        raise CheckpointError(f"{path}: not a readable tokenizer ({error}); fetch the checkpoint again") from error


def _converted(folder: Path) -> Tokenizer:
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise MissingExtra(
            f"{folder}: no tokenizer.json, and converting tokenizer.model needs transformers: "
            'pip install "reasonflux-prm[hf]"'
        ) from error
    fast = AutoTokenizer.from_pretrained(str(folder), use_fast=True, trust_remote_code=False)
    backend: Tokenizer = fast.backend_tokenizer
    return backend
