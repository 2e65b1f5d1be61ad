"""A share of a file's problems, by a hash of the problem: always the same one, and a larger share holds a smaller."""

from __future__ import annotations

import json
from hashlib import blake2b
from pathlib import Path

from reasonflux_prm.errors import InputError
from reasonflux_prm.traces.write import atomic_path


def write_chosen(source: Path, output: Path, *, share: float = 1.0, most: int | None = None) -> int:
    """Write the chosen records of a JSON lines file, one problem each, in their order; return how many.

    Args:
        source: JSON lines with `problem`.
        output: The file to write.
        share: Of the problems, in (0, 1].
        most: Problems at most.

    Raises:
        InputError: Nothing was chosen.
    """
    lines = [line for line in source.read_text("utf-8").splitlines() if line.strip()]
    order = sorted(range(len(lines)), key=lambda at: (_hash(json.loads(lines[at])["problem"]), at))
    kept = sorted(order[: min(round(share * len(lines)), len(lines) if most is None else most)])
    if not kept:
        raise InputError(f"expected problems in {source}, got {len(lines):,} and a share of {share:g} of them")
    with atomic_path(output) as part:
        part.write_text("".join(lines[at] + "\n" for at in kept), "utf-8")
    return len(kept)


def _hash(text: str) -> bytes:
    return blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest()
