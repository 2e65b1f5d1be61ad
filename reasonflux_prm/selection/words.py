"""Texts as words: what is compared when traces, or traces and benchmarks, are compared."""

from __future__ import annotations

import hashlib
import re
import unicodedata

_IDEOGRAPHS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_IDEOGRAPHS}]|(?:(?![{_IDEOGRAPHS}])[^\W_])+")


def words(text: str) -> list[str]:
    r"""Return the words of a text: runs of letters and digits, case folded, in Unicode's compatibility form.

    Punctuation and signs part words and are dropped, so `x^2+1` is three words; where a script writes no spaces
    (Chinese, Japanese) each character is a word.

    Example:
        >>> words("Find $x^2$, if\n X=3.")
        ['find', 'x', '2', 'if', 'x', '3']
    """
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def text_key(*parts: str) -> int:
    """Return 64 bits that tell texts apart, but for case, the form of their characters, and white space."""
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        folded = " ".join(unicodedata.normalize("NFKC", part).casefold().split())
        digest.update(folded.encode("utf-8", "surrogatepass"))
        digest.update(b"\0")
    return int.from_bytes(digest.digest())
