"""Memory: what is held does not grow with the texts, and little with the number of traces."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROBE = """
import resource, sys
from pathlib import Path
from tempfile import TemporaryDirectory
from reasonflux_prm.records import Trace
from reasonflux_prm.selection.choose import choose
from reasonflux_prm.selection.index import Index, Notes
from reasonflux_prm.selection.reasons import Reason
from reasonflux_prm.selection.settings import Selection

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

traces, length = map(int, sys.argv[1:])
with TemporaryDirectory() as folder:
    index = Index(Notes(Path(folder) / "notes"), ("source",), 0)
    before = peak()
    for i in range(traces):
        score = (i * 2654435761 % 2**32) / 2**32
        trace = Trace(f"t{i}", "P", f"{i}" + "x" * length, "R", source=str(i % 1000))
        index.append(trace, True, score, Reason.KEPT, "")
    index.freeze()
    choose(index, Selection(share=0.5, quotas={"source": 600}))
    assert index.counts()["kept"] == traces // 2, index.counts()
print(peak() - before)
"""


def growth(traces: int, length: int) -> float:
    """Peak memory in MB that an index of so many traces adds."""
    command = [sys.executable, "-c", PROBE, str(traces), str(length)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    return float(done.stdout)


def test_texts_are_not_held():
    # 2,000 traces of 20,000 characters are 40 MB.
    assert growth(2_000, 20_000) < 15


@pytest.mark.slow
def test_a_million_traces_fit():
    assert growth(1_000_000, 10) < 250
