"""The public names: all there, each from its home, and enough to score a trace."""

import importlib
import sys
from pathlib import Path

import pytest

import reasonflux_prm


def test_every_public_name_resolves():
    for name in reasonflux_prm.__all__:
        assert getattr(reasonflux_prm, name) is not None
    assert set(reasonflux_prm.__all__) <= set(dir(reasonflux_prm))


def test_names_lead_home():
    for name, home in reasonflux_prm._HOMES.items():
        assert getattr(reasonflux_prm, name) is getattr(importlib.import_module(f"reasonflux_prm.{home}"), name)
    assert {*reasonflux_prm._HOMES, "__version__"} == set(reasonflux_prm.__all__)


def test_an_unknown_name():
    with pytest.raises(AttributeError, match="no attribute 'Trajectory'"):
        reasonflux_prm.Trajectory  # noqa: B018
    with pytest.raises(ImportError):
        from reasonflux_prm import Trajectory  # noqa: F401


def test_the_version_is_that_of_the_distribution():
    from importlib.metadata import version

    assert reasonflux_prm.__version__ == version("reasonflux-prm")


def test_the_names_are_enough_to_score(tmp_path):
    for sibling in ("prm", "scoring"):
        sys.path.append(str(Path(__file__).parent / sibling))
    from tiny_native import write_native

    from reasonflux_prm import EngineSettings, Session, Trace, load_prm, read_traces, score_traces, split

    path = tmp_path / "traces.jsonl"
    path.write_text('{"problem": "1 + 1?", "thinking": "One and one.", "response": "It is 2."}\n')
    prm = load_prm(str(write_native(tmp_path / "prm")))
    (scored,) = score_traces(prm, read_traces(path), EngineSettings(steps="blank-line"))
    assert [step.part for step in scored.steps] == ["thinking", "response"]
    session = Session(prm, "1 + 1?")
    for step in split(Trace("t", "1 + 1?", "One and one.", "It is 2."), "blank-line").steps:
        session.append(scored.trace.text(step.part)[step.start : step.stop], step.part)
    assert session.step_rewards == pytest.approx(scored.step_rewards, abs=1e-4)
