"""Calibrated rewards are what scoring, windows and sessions return, and they are the maps of the raw ones."""

import pytest
from tiny_native import made_up

from reasonflux_prm.prm.calibrated_folder import write_calibrated
from reasonflux_prm.prm.calibration import Calibration, Isotonic, Temperature
from reasonflux_prm.prm.load import load_prm
from reasonflux_prm.scoring.engine import Engine, EngineSettings
from reasonflux_prm.scoring.session import Session, append_to

MAPS = Calibration(steps=Temperature(3.0, 0.5), trajectory=Isotonic(((0.0, 0.2), (0.4, 0.3), (0.6, 0.8), (1.0, 0.9))))


@pytest.fixture(scope="module")
def calibrated(folders, tmp_path_factory):
    target = tmp_path_factory.mktemp("calibrated") / "prm"
    write_calibrated(folders["causal"], target, MAPS, {}, where="prm")
    return load_prm(str(target))


def score(prm, traces, **settings):
    return list(Engine(prm, EngineSettings(**settings)).score(traces))


@pytest.mark.parametrize("settings", [{}, {"context": 100}, {"pack_tokens": 64}])
def test_scores_are_the_maps_of_raw_scores(prm, calibrated, settings):
    traces = [made_up(seed, 5, 2) for seed in range(6)]
    for raw, own in zip(score(prm, traces, **settings), score(calibrated, traces, **settings), strict=True):
        assert own.step_rewards == pytest.approx([MAPS.step(reward) for reward in raw.step_rewards])
        assert own.trajectory_reward == pytest.approx(MAPS.whole(raw.trajectory_reward))
        assert own.reward == pytest.approx(sum(own.step_rewards) / len(own.step_rewards) + own.trajectory_reward)
        assert own.step_rewards != raw.step_rewards
        assert own.prm.revision != raw.prm.revision


def test_sessions_give_what_one_pass_gives(calibrated):
    segmented = made_up(3, 4, 2)
    whole = score(calibrated, [segmented])[0]
    session = Session(calibrated, segmented.trace.problem)
    appended = [session.append(segmented.text(step), step.part) for step in segmented.steps]
    assert appended == pytest.approx(whole.step_rewards, abs=1e-5)
    assert session.step_rewards == pytest.approx(whole.step_rewards, abs=1e-5)
    assert session.trajectory() == pytest.approx(whole.trajectory_reward, abs=1e-5)
    twin = session.fork()
    session.rollback(1)
    last = segmented.steps[-1]
    assert append_to([session], [segmented.text(last)], [last.part]) == pytest.approx([twin.step_rewards[-1]], abs=1e-5)
