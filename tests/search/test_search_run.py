"""Searches of whole files: the same bytes however often they are interrupted, and results that other commands read."""

from __future__ import annotations

import json

import pytest
from search_parts import TreePolicy, counted, searcher

from reasonflux_prm.errors import InputError, PolicyStopped, ResumeError
from reasonflux_prm.policy.scripted import ScriptedPolicy
from reasonflux_prm.search.adaptive import Adaptive
from reasonflux_prm.search.beam import Beam
from reasonflux_prm.search.particles import Particles
from reasonflux_prm.search.run import ProblemInput, run_search, stream_search
from reasonflux_prm.search.sample import Sample
from reasonflux_prm.traces.manifest import read_manifest
from reasonflux_prm.traces.read import read_traces

METHODS = [Sample(4), Adaptive(4), Beam(2, 2), Particles(4)]
each_method = pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)


class Stopping(TreePolicy):
    """Stops for good after some requests."""

    def __init__(self, after: int) -> None:
        super().__init__(thinking=3)
        self.after = after

    async def ask(self, request):
        if len(self.requests) >= self.after:
            raise PolicyStopped("the budget is reached")
        return await super().ask(request)


@pytest.fixture
def source(tmp_path) -> ProblemInput:
    path = tmp_path / "problems.jsonl"
    rows = [{"id": f"p{at}", "problem": f"What is {at} + 1?", "answer": str(at % 3), "level": at} for at in range(5)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ProblemInput(str(path))


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@each_method
def test_a_run_that_is_stopped_goes_on_to_the_same_bytes(engine, source, tmp_path, method):
    whole, broken = tmp_path / "whole.jsonl", tmp_path / "broken.jsonl"
    policy = TreePolicy(thinking=3)
    progress = run_search(searcher(method, policy, engine), source, whole)
    assert progress.traces == 5
    stops = 0
    while not broken.exists():
        try:
            last = run_search(searcher(method, Stopping(1 + stops), engine), source, broken)
        except PolicyStopped:
            stops += 1
    assert stops >= 2
    assert broken.read_bytes() == whole.read_bytes()
    assert last.resumed_traces > 0
    assert last.cost == progress.cost
    assert (last.known, last.right, last.candidates) == (progress.known, progress.right, progress.candidates)
    one, other = read_manifest(whole), read_manifest(broken)
    assert (one.counts, one.settings, one.details) == (other.counts, other.settings, other.details)


def test_the_manifest_and_another_run(engine, source, tmp_path):
    output = tmp_path / "answers.jsonl"
    made = searcher(Beam(2, 2), TreePolicy(), engine, cap=10**9)
    progress = run_search(made, source, output)
    manifest = read_manifest(output)
    assert (manifest.kind, sum(manifest.counts.values())) == ("search", 5)
    assert manifest.settings["search"]["method"] == {"name": "beam", "width": 2, "expand": 2}
    assert manifest.settings["search"]["policy"] == {"backend": "scripted", "model": "tree"}
    assert manifest.settings["search"]["prm"]["keeps_past"] is True
    assert manifest.settings["search"]["cap"] == 10**9
    found = rows(output)
    assert manifest.details["cost"]["prm_tokens"] == sum(row["cost"]["prm_tokens"] for row in found)
    assert manifest.details["right"] == sum(row["picked"]["correct"] is True for row in found)
    assert manifest.details["known"] == progress.known == 5
    again = run_search(made, source, output)
    assert again.resumed_traces == 5
    with pytest.raises(ResumeError, match="another"):
        run_search(searcher(Beam(2, 3), TreePolicy(), engine), source, output)
    with pytest.raises(ResumeError, match=r"search\.writing\.seed"):
        run_search(searcher(Beam(2, 2), TreePolicy(), engine, cap=10**9, seed=1), source, output)


def test_adaptive_savings_are_in_the_manifest(engine, source, tmp_path):
    output = tmp_path / "answers.jsonl"
    progress = run_search(searcher(Adaptive(9), TreePolicy(), engine, pick="majority"), source, output)
    details = read_manifest(output).details
    assert details["drawn"] == progress.drawn == sum(row["details"]["drawn"] for row in rows(output))
    assert details["drawn_at_most"] == 45 > details["drawn"]


@each_method
def test_results_are_a_candidates_file(engine, source, tmp_path, method):
    output = tmp_path / "answers.jsonl"
    run_search(searcher(method, TreePolicy(), engine), source, output)
    traces = list(read_traces(str(output)))
    found = rows(output)
    assert len(traces) == sum(len(row["candidates"]) for row in found)
    assert {trace.group for trace in traces} == {f"p{at}" for at in range(5)}
    first = found[0]
    assert (first["level"], traces[0].answer) == (0, first["answer"])
    for trace, candidate in zip(traces, first["candidates"], strict=False):
        assert (trace.thinking, trace.response) == (candidate["thinking"], candidate["response"])
        assert trace.correct is None, "the pick's verdict is not the candidates'"
        assert sum(step["stop"] - step["start"] for step in candidate["steps"]) == len(trace.thinking + trace.response)
    assert first["stated"] == first["picked"]["answers"][first["picked"]["pick"]]


def test_records_that_are_no_problems_are_refused(engine, source, tmp_path):
    with open(source.source, "a") as stream:
        stream.write('{"id": "x", "text": "no problem"}\nnot json\n{"id": "p0", "problem": "Again?"}\n')
    output = tmp_path / "answers.jsonl"
    progress = run_search(searcher(Sample(1), TreePolicy(), engine), source, output)
    assert (progress.traces, progress.rejects) == (5, 3)
    reasons = [row["reason"] for row in rows(tmp_path / "answers.rejects.jsonl")]
    assert ["a problem" in reasons[0], "ids must differ" in reasons[2]] == [True, True]
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    with pytest.raises(InputError, match="found none"):
        run_search(searcher(Sample(1), TreePolicy(), engine), ProblemInput(str(empty)), tmp_path / "none.jsonl")


def test_to_standard_output(engine, source, capfdbinary):
    progress = stream_search(searcher(Sample(2), TreePolicy(), engine), source)
    lines = capfdbinary.readouterr().out.splitlines()
    assert [json.loads(line)["id"] for line in lines] == [f"p{at}" for at in range(5)]
    assert progress.counts == {"picked": 5}


def test_problems_are_searched_side_by_side_and_come_in_order(engine, source, tmp_path):
    under_way, most = set(), 0

    class Slow(ScriptedPolicy):
        async def ask(self, request):
            import asyncio

            nonlocal most
            own = request.messages[0].content
            under_way.add(own)
            most = max(most, len(under_way))
            # The later a problem comes, the sooner it is answered.
            await asyncio.sleep(0.05 if "0 + 1" in own else 0.01)
            under_way.discard(own)
            return [counted("The answer is 1.", "")] * request.n

    run_search(searcher(Beam(1, 1), Slow({}), engine), source, tmp_path / "answers.jsonl")
    assert most == 3
    assert [row["id"] for row in rows(tmp_path / "answers.jsonl")] == [f"p{at}" for at in range(5)]
