"""Rewards scaled by the claims that hold: what is scaled, by how much, and what stays as it is."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sympy")
from reasonflux_prm.cli.models import FAMILY_RANGES
from reasonflux_prm.cli.options import ScoringConfig
from reasonflux_prm.errors import UsageError
from reasonflux_prm.records import PRMIdentity, ScoredTrace, Status, Trace
from reasonflux_prm.scoring.checked import _LOW, CheckedScorer, check_file
from reasonflux_prm.scoring.run import Input, scoring_settings
from reasonflux_prm.steps.split import split
from reasonflux_prm.traces.write import json_line, read_scored, scored_row

IDENTITY = PRMIdentity("plain", "1", "native", "causal", "mean", 1.0)
STEPS = (
    "There are twelve red pens and five blue ones, so 12 + 5 = 17 pens lie on the table of the classroom.",
    "Four of the pens are taken away by the teacher after the lesson, so 17 - 4 = 12 pens are left over.",
    "Nothing else is known about the pens, and nobody says how many of them are in the other classroom.",
)


class Plain:
    """Gives every step 0.5 and the whole 0.8."""

    def __init__(
        self, rewards: tuple[float, float] = (0.5, 0.8), status: Status = Status.SCORED, family: str = "native"
    ) -> None:
        self.rewards, self.status = rewards, status
        self.identity = replace(IDENTITY, family=family)

    def settings_for_manifest(self) -> dict[str, Any]:
        return {"steps": "blank-line"}

    def score_chunks(self, traces: Iterable[Trace]) -> Iterator[list[ScoredTrace]]:
        step, whole = self.rewards
        for trace in traces:
            steps = split(trace, "blank-line").steps
            known = self.status is Status.SCORED
            given: tuple[float | None, ...] = tuple(step if known else None for _ in steps)
            reward = step + whole if known else None
            yield [ScoredTrace(trace, self.status, steps, given, whole if known else None, reward, self.identity, 9)]


def checked(response: str, scorer: Plain | None = None) -> ScoredTrace:
    ((scored,),) = CheckedScorer(scorer or Plain()).score_chunks([Trace("t", "How many pens?", "", response)])
    return scored


def test_a_step_gets_the_share_of_its_claims_that_hold_and_the_whole_that_of_all() -> None:
    scored = checked("\n\n".join(STEPS))
    assert scored.step_rewards == (0.5, 0.0, 0.5)  # the last one claims nothing
    assert scored.trajectory_reward == pytest.approx(0.4)  # one of two claims holds
    assert scored.reward == pytest.approx(1 / 3 + 0.4)
    assert scored.prm == replace(IDENTITY, name="plain+claims")


def test_where_nothing_is_false_or_nothing_claimed_rewards_stay_as_they_are() -> None:
    for response in (STEPS[0], STEPS[2]):
        scored = checked(response)
        assert (scored.step_rewards, scored.trajectory_reward) == ((0.5,), 0.8)
        assert scored.reward == pytest.approx(1.3)


def test_rewards_are_scaled_towards_the_low_end_of_their_range() -> None:
    scored = checked("\n\n".join(STEPS[:2]), Plain((0.0, 0.0), family="pure"))
    assert scored.step_rewards == (0.0, -1.0)
    assert scored.trajectory_reward == pytest.approx(-0.5)


def test_a_trace_that_was_not_scored_stays_without_rewards() -> None:
    scored = checked("\n\n".join(STEPS), Plain(status=Status.FAILED))
    assert scored.reward is None
    assert scored.step_rewards == (None,) * 3


def test_rewards_without_a_low_end_are_refused() -> None:
    with pytest.raises(UsageError, match="the rewards of plain have no low end"):
        CheckedScorer(Plain(family="implicit"))


def test_the_low_ends_are_those_of_the_families() -> None:
    said = {family: text.split(" to ")[0] for family, text in FAMILY_RANGES.items()}
    ends = {family: -math.inf if low == "any number" else float(low) for family, low in said.items()}
    assert {family: low for family, low in ends.items() if low} == _LOW


def test_what_is_scored_already_is_checked_once(tmp_path: Path) -> None:
    traces = [Trace(f"t{number}", "How many pens?", "", "\n\n".join(STEPS)) for number in range(3)]
    plain, output = tmp_path / "plain.jsonl", tmp_path / "checked.jsonl"
    plain.write_bytes(b"".join(json_line(scored_row(row)) for (row,) in Plain().score_chunks(traces)))
    check_file(plain, output)
    assert [row.step_rewards for row in read_scored(output)] == [(0.5, 0.0, 0.5)] * 3
    with pytest.raises(UsageError, match="are checked already"):
        check_file(output, tmp_path / "again.jsonl")


def test_what_was_scored_goes_to_the_low_end_of_its_family(tmp_path: Path) -> None:
    plain, output = tmp_path / "plain.jsonl", tmp_path / "checked.jsonl"
    ((row,),) = Plain((0.5, 0.8), family="pure").score_chunks([Trace("t7", "How many pens?", "", STEPS[1])])
    plain.write_bytes(json_line(scored_row(row)))
    check_file(plain, output)
    assert [(row.step_rewards, row.trajectory_reward) for row in read_scored(output)] == [((-1.0,), -1.0)]


def test_a_run_without_checks_is_another_run(tmp_path: Path) -> None:
    source = tmp_path / "x.jsonl"
    source.write_text("{}\n", "utf-8")
    scorers = (Plain(), CheckedScorer(Plain()))
    plain, with_claims = (scoring_settings(scorer, Input(str(source))) for scorer in scorers)
    assert plain != with_claims
    assert with_claims["engine"]["claims"]["judge"] == "rules"


def test_the_flag_wraps_what_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ScoringConfig, "_plain", lambda _: Plain())
    assert isinstance(ScoringConfig().scorer(), Plain)
    found = ScoringConfig(check_claims=True).scorer()
    assert isinstance(found, CheckedScorer)
    assert found.identity.name == "plain+claims"
