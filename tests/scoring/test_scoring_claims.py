"""Claims about numbers as a PRM without a model: what it says of steps and traces, and what it goes with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("sympy")
from reasonflux_prm.cli.main import main
from reasonflux_prm.cli.options import ScoringConfig
from reasonflux_prm.errors import UsageError
from reasonflux_prm.records import Status, Step, Trace
from reasonflux_prm.scoring.checked import CheckedScorer
from reasonflux_prm.scoring.claims import ClaimsScorer
from reasonflux_prm.search.budget import Budget
from reasonflux_prm.search.reader import open_reader
from reasonflux_prm.traces.read import read_traces
from reasonflux_prm.traces.write import read_scored

THINKING = "There are 12 + 5 = 17 pens.\n\nFour are taken away, so 17 - 4 = 12, and half of that is 12 / 2 = 6.\n\nHm."


def scored(trace: Trace, **settings: float) -> tuple[tuple[float | None, ...], float | None, float | None]:
    ((row,),) = ClaimsScorer(steps="blank-line", **settings).score_chunks([trace])  # type: ignore[arg-type]
    return row.step_rewards, row.trajectory_reward, row.reward


def test_a_step_and_a_trace_get_the_share_of_their_claims_that_hold() -> None:
    steps, whole, reward = scored(Trace("t", "How many pens?", THINKING, "17 pens."))
    assert steps == (1.0, 0.5, 1.0, 1.0)  # the last two claim nothing
    assert whole == pytest.approx(2 / 3)
    assert reward == pytest.approx(3.5 / 4 + 2 / 3)
    assert scored(Trace("t", "How many pens?", THINKING, "17 pens."), alpha=0.0)[2] == pytest.approx(3.5 / 4)


def test_what_cannot_be_scored_is_a_record_and_does_not_move_its_neighbours() -> None:
    good = Trace("good", "?", "1 + 1 = 3", "", steps=(Step("thinking", 0, 9),))
    crossed = Trace("crossed", "?", "abcd", "", steps=(Step("thinking", 2, 4), Step("thinking", 0, 3)))
    empty = Trace("empty", "?", " ", " ", steps=(Step("thinking", 0, 1),))
    (rows,) = ClaimsScorer(steps="given").score_chunks([crossed, empty, good])
    assert [row.status for row in rows] == [Status.FAILED, Status.NO_STEPS, Status.SCORED]
    assert [row.step_rewards for row in rows] == [(), (None, None), (0.0,)]
    assert all(row.note for row in rows[:2])


def test_a_whole_run_needs_no_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, output = tmp_path / "c.jsonl", tmp_path / "scored.jsonl"
    texts = ["6 * 7 = 42. The answer is \\boxed{42}.", *["6 * 7 = 48. The answer is \\boxed{48}."] * 2]
    row = {"id": "p", "problem": "What is 6 times 7?", "answer": "42", "candidates": texts}
    source.write_text(json.dumps(row) + "\n", "utf-8")
    assert main(["score", str(source), "-o", str(output), "--prm", "claims"]) == 0
    assert [row.reward for row in read_scored(output)] == [2.0, 0.0, 0.0]
    report = tmp_path / "report.json"
    assert main(["evaluate", "custom", "--candidates", str(source), "-o", str(report), "--prm", "claims"]) == 0
    table = capsys.readouterr().out
    assert all(f"| {way} |" in table for way in ("best by claims | 1.000", "vote weighted by claims | 1.000"))
    assert "| majority | 0.000 |" in table


def test_what_goes_with_a_model_alone_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="--dtype does not go with --prm claims"):
        ScoringConfig(prm="claims", dtype="float32").scorer()
    with pytest.raises(UsageError, match="the claims of claims are checked already"):
        CheckedScorer(ClaimsScorer())
    assert main(["serve", "--prm", "claims"]) == 2
    assert "claims has no model to serve" in capsys.readouterr().err
    for settings in ({"steps": "nonsense"}, {"aggregation": "nonsense"}, {"alpha": float("nan")}):
        with pytest.raises(UsageError):
            ClaimsScorer(**settings)


def test_traces_are_read_as_for_any_prm(tmp_path: Path) -> None:
    source = tmp_path / "t.jsonl"
    source.write_text(json.dumps({"problem": "?", "response": "<think>1 + 1 = 3</think>Two."}) + "\n", "utf-8")
    ((row,),) = ClaimsScorer().score_chunks(read_traces(source))
    assert row.step_rewards[0] == 0.0
    assert row.prm.family == "rules"


def test_a_search_is_steered_by_claims_too() -> None:
    reader = open_reader(ClaimsScorer(steps="blank-line"))
    (row,) = reader.score([Trace("t", "How many pens?", THINKING, "17 pens.")], Budget())
    assert row.step_rewards == (1.0, 0.5, 1.0, 1.0)
    assert (reader.most, reader.probabilities, reader.identity.name) == (2.0, True, "claims")
