"""Progress: the time left is told from characters, a line every ten seconds where there is no terminal."""

from __future__ import annotations

import io
from collections import Counter

import pytest
from cli_inputs import write_rows
from rich.console import Console

from reasonflux_prm.cli import console
from reasonflux_prm.cli.console import ScoringProgress, duration, next_command
from reasonflux_prm.cli.running import counts, trace_sizes
from reasonflux_prm.errors import InputError
from reasonflux_prm.records import PRMIdentity, ScoredTrace, Status, Trace
from reasonflux_prm.scoring.run import Input, Progress

PRM = PRMIdentity("tiny", "0", "native", "causal", "mean", 1.0)


def chunk(tokens: int, number: int = 1) -> list[ScoredTrace]:
    return [ScoredTrace(Trace("t", "p"), Status.SCORED, (), (), None, 1.0, PRM, tokens)] * number


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    return now


def test_lines(clock, capsys):
    plain = Console(file=io.StringIO(), force_terminal=False)
    progress = Progress(traces=2, tokens=1000, resumed_traces=2)
    with ScoringProgress([10, 10, 100, 300], plain) as shown:
        for passed, tokens in ((5.0, 50), (6.0, 150)):
            clock[0] += passed
            progress.add(chunk(tokens), passed)
            shown(chunk(tokens), progress)
    # The first chunk came too soon for a line; in 11 s 400 characters and 200 tokens were done, of which none are left.
    assert capsys.readouterr().err == "4 of 4 traces, 18 tokens/s, 0 s left\n"


def test_the_time_left_is_told_from_characters(clock, capsys):
    progress = Progress(traces=2, tokens=1000, resumed_traces=2)
    with ScoringProgress([10, 10, 100, 300], Console(file=io.StringIO())) as shown:
        clock[0] += 20.0
        progress.add(chunk(50), 20.0)
        shown(chunk(50), progress)
    assert capsys.readouterr().err == "3 of 4 traces, 2 tokens/s, 1 min 00 s left\n"


def test_without_sizes(clock, capsys):
    progress = Progress()
    with ScoringProgress(None, Console(file=io.StringIO())) as shown:
        clock[0] += 10.0
        progress.add(chunk(50, 2), 10.0)
        shown(chunk(50, 2), progress)
    assert capsys.readouterr().err == "2 traces, 10 tokens/s\n"


def test_a_bar_in_a_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")  # rich draws nothing on a dumb one
    screen = io.StringIO()
    progress = Progress()
    with ScoringProgress([5, 5], Console(file=screen, force_terminal=True, width=100)) as shown:
        progress.add(chunk(50), 1.0)
        shown(chunk(50), progress)
    assert "1 of 2 traces" in screen.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.6, "1 min 00 s"), (61, "1 min 01 s"), (3599.9, "1 h 00 min"), (7261, "2 h 01 min")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_what_to_run_next_can_be_pasted():
    assert next_command("view", "my file.jsonl") == "Next: reasonflux-prm view 'my file.jsonl'"


def test_counts():
    progress = Progress(traces=1234, counts=Counter({"no-steps": 4, "scored": 1230, "failed": 0}), rejects=2)
    assert counts(progress) == "1,230 scored, 4 no-steps, 2 refused"
    assert counts(Progress()) == "0 scored"


def test_sizes(tmp_path):
    path = write_rows(tmp_path / "t.jsonl", [{"problem": "ab", "response": "c" * n} for n in (1, 5)])
    with path.open("a") as stream:
        stream.write("bad\n")
    assert list(trace_sizes(Input(str(path)))) == [3, 7]
    assert list(trace_sizes(Input(str(path), limit=1))) == [3]
    assert trace_sizes(Input("-")) is None
    with pytest.raises(InputError, match="nowhere"):
        trace_sizes(Input("nowhere.jsonl"))
