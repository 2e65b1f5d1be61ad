"""Traces that say the same, or nearly: the best-ranked of them stays.

Near-duplicates are found by MinHash (datasketch): a signature of the 5-word shingles of problem, thinking and response,
`PERMUTATIONS` numbers of 32 bits, on disk. Two traces are compared if they agree in a band of their signatures, and are
near-duplicates if their signatures agree in the share of places that is asked for, which estimates the Jaccard
similarity of their shingles (standard deviation at most 0.044). Only traces that share a band with another ever enter
the tables in memory.
"""

from __future__ import annotations

from array import array
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from reasonflux_prm.errors import MissingExtra
from reasonflux_prm.records import Trace
from reasonflux_prm.selection.index import Index
from reasonflux_prm.selection.reasons import Reason
from reasonflux_prm.selection.words import words

SHINGLE = 5
PERMUTATIONS = 128
_INSTALL = 'near-duplicates need datasketch: pip install "reasonflux-prm[select]"'


def drop_duplicates(index: Index) -> None:
    """Drop traces whose text a better-ranked one has too."""
    ranked = index.ranked()
    _, first, member = np.unique(index.text[ranked], return_index=True, return_inverse=True)
    again = np.ones(len(ranked), bool)
    again[first] = False
    index.like[ranked[again]] = ranked[first[member[again]]]
    index.likeness[ranked[again]] = 1.0
    index.drop(ranked[again], Reason.DUPLICATE)


class Signatures:
    """MinHash signatures on disk.

    Args:
        path: The file to keep them in.
        threshold: The similarity from which on two traces are near-duplicates, in (0, 1).

    Raises:
        MissingExtra: datasketch is not installed.
    """

    def __init__(self, path: Path, threshold: float) -> None:
        try:
            from datasketch import MinHash, MinHashLSH
        except ImportError as error:
            raise MissingExtra(_INSTALL) from error
        self._threshold = threshold
        self._blank = MinHash(num_perm=PERMUTATIONS)
        self._tables = MinHashLSH(threshold=threshold, num_perm=PERMUTATIONS)
        self._bands, self._width = self._tables.b, self._tables.r
        self._multipliers = np.random.default_rng(0).integers(1, 2**63, self._width, dtype=np.uint64) | np.uint64(1)
        self._paths = path.with_suffix(".signatures"), path.with_suffix(".bands")
        self._files: list[IO[bytes]] = [file.open("wb") for file in self._paths]
        self._places = array("Q")

    def append(self, place: int, trace: Trace) -> None:
        """Add the signature of a trace."""
        found = words("\n".join((trace.problem, trace.thinking, trace.response)))
        shingles = {" ".join(found[at : at + SHINGLE]) for at in range(max(1, len(found) - SHINGLE + 1))}
        signature = self._blank.copy()
        signature.update_batch([shingle.encode("utf-8", "replace") for shingle in shingles])
        row = np.asarray(signature.hashvalues, np.uint32)
        self._files[0].write(row.tobytes())
        self._files[1].write(self._band_keys(row).tobytes())
        self._places.append(place)

    def _band_keys(self, row: NDArray[np.uint32]) -> NDArray[np.uint64]:
        """Return (bands,) hashes of a signature's bands; that two differ and have one hash costs a comparison."""
        bands = row[: self._bands * self._width].reshape(self._bands, self._width)
        keys = np.zeros(self._bands, np.uint64)
        for column, multiplier in zip(bands.T, self._multipliers, strict=True):
            keys = (keys ^ column) * multiplier
        return keys

    def drop_near(self, index: Index) -> None:
        """Drop traces that are nearly the same as a better-ranked one that stays."""
        for file in self._files:
            file.close()
        if not self._places:
            return
        rows = len(self._places)
        stored = np.memmap(self._paths[0], np.uint32, "r", shape=(rows, PERMUTATIONS))
        keys = np.memmap(self._paths[1], np.uint64, "r", shape=(rows, self._bands))
        row_of = np.full(len(index), -1, np.int64)
        row_of[np.frombuffer(self._places, np.uint64)] = np.arange(rows)
        ranked = index.ranked()
        for place in ranked[_sharing(keys, row_of[ranked])]:
            signature = self._signature(stored[row_of[place]])
            near = self._nearest(signature, stored, row_of)
            if near is None:
                self._tables.insert(int(place), signature, check_duplication=False)
                continue
            index.like[place], index.likeness[place] = near
            index.drop(np.array([place]), Reason.NEAR_DUPLICATE)

    def _signature(self, row: NDArray[np.uint32]) -> Any:
        signature = self._blank.copy()
        signature.hashvalues = np.asarray(row, self._blank.hashvalues.dtype)
        return signature

    def _nearest(
        self, signature: Any, stored: NDArray[np.uint32], row_of: NDArray[np.int64]
    ) -> tuple[int, float] | None:
        """Return the most similar of those that stay, if it is similar enough, and how similar it is."""
        own = np.asarray(signature.hashvalues, np.uint32)
        shares = {place: float(np.mean(stored[row_of[place]] == own)) for place in self._tables.query(signature)}
        best = min(shares, key=lambda place: (-shares[place], place), default=None)
        return (best, shares[best]) if best is not None and shares[best] >= self._threshold else None


def _sharing(keys: NDArray[np.uint64], rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell which of some rows have a band that another of them has too."""
    found = np.zeros(len(rows), bool)
    for column in range(keys.shape[1]):
        _, member, sizes = np.unique(keys[:, column][rows], return_inverse=True, return_counts=True)
        found |= sizes[member] > 1
    return found
