"""Maps from raw to calibrated rewards: by hand, there and back, on disk, and in the adapter of the embedded PRM."""

import json
import math

import pytest
import tiny
import torch

from reasonflux_prm.errors import CheckpointError, ResumeError, UsageError
from reasonflux_prm.prm.calibrated_folder import calibration_of, write_calibrated
from reasonflux_prm.prm.calibration import Calibration, Isotonic, Temperature, logit
from reasonflux_prm.prm.embedded.adapter import Adapter, load_adapter, save_adapter
from reasonflux_prm.prm.families.native import NativeSettings
from reasonflux_prm.prm.load import load_prm

KNOTS = Isotonic(((0.0, 0.1), (0.5, 0.2), (0.75, 0.9), (1.0, 0.95)))
BOTH = Calibration(steps=Temperature(2.0, -1.0), trajectory=KNOTS)


def test_temperature_by_hand():
    # log(0.9 / 0.1) = 2.197; half of it, less 1, is 0.0986
    assert Temperature(2.0, -1.0)(0.9) == pytest.approx(1 / (1 + math.exp(-0.0986123)), abs=2e-6)
    assert Temperature(1.0)(0.3) == pytest.approx(0.3, abs=1e-9)


def test_temperature_at_the_ends():
    hot = Temperature(0.01, 3.0)
    assert 0 <= hot(0.0) < hot(1e-7) < hot(0.5) < hot(1.0) <= 1
    assert math.isfinite(logit(0.0))
    assert math.isfinite(logit(1.0))


def test_isotonic_by_hand():
    assert KNOTS(0.25) == pytest.approx(0.15)
    assert KNOTS(0.5) == pytest.approx(0.2)
    assert KNOTS(0.6) == pytest.approx(0.2 + 0.7 * 0.4)
    assert (KNOTS(0.0), KNOTS(1.0)) == (0.1, 0.95)
    assert math.isnan(KNOTS(math.nan))


@pytest.mark.parametrize("own", [Temperature(2.0, -1.0), Temperature(0.3, 0.4), KNOTS])
def test_there_and_back(own):
    for raw in (0.0, 1e-4, 0.3, 0.5, 0.61, 0.999, 1.0):
        assert own.raw(own(raw)) == pytest.approx(raw, abs=1e-6)


@pytest.mark.parametrize(
    "knots",
    [
        ((0.0, 0.1),),
        ((0.1, 0.1), (1.0, 0.9)),
        ((0.0, 0.1), (0.9, 0.9)),
        ((0.0, 0.1), (0.5, 0.1), (1.0, 0.9)),
        ((0.0, 0.5), (1.0, 0.4)),
        ((0.0, 0.5), (1.0, 1.4)),
        ((0.0, 0.5), (1.0, math.nan)),
    ],
)
def test_knots_that_are_no_map(knots):
    with pytest.raises(UsageError, match="rising strictly"):
        Isotonic(knots)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf, math.nan])
def test_temperatures_that_are_no_map(temperature):
    with pytest.raises(UsageError, match="above 0"):
        Temperature(temperature)


def test_json_there_and_back():
    for own in (BOTH, Calibration(trajectory=Temperature(3.0)), Calibration()):
        assert Calibration.from_json(json.loads(json.dumps(own.to_json())), "here") == own


@pytest.mark.parametrize(
    "data",
    [
        3,
        [],
        {"response": {}},
        {"steps": {}},
        {"steps": {"kind": "platt"}},
        {"steps": {"kind": "temperature"}},
        {"steps": {"kind": "temperature", "temperature": "warm"}},
        {"steps": {"kind": "temperature", "temperature": 1, "heat": 2}},
        {"steps": {"kind": "isotonic", "knots": [[0, 1]]}},
        {"steps": {"kind": "isotonic", "knots": 1}},
    ],
)
def test_a_calibration_that_cannot_be_read(data):
    if data == []:
        assert Calibration.from_json(data, "here") == Calibration()
        return
    with pytest.raises(CheckpointError, match=r"here: .*reasonflux-prm calibrate"):
        Calibration.from_json(data, "here")


def test_settings_carry_it_and_leave_it_out():
    plain = NativeSettings("<a>", "<b>")
    assert "calibration" not in plain.to_json()
    own = NativeSettings("<a>", "<b>", calibration=BOTH)
    assert NativeSettings.from_json(json.loads(json.dumps(own.to_json())), "here") == own


def test_the_adapter_carries_it(tmp_path):
    settings = NativeSettings("<a>", "<b>", calibration=BOTH).to_json()
    save_adapter(tmp_path / "a.safetensors", Adapter({"score.bias": torch.zeros(1)}, settings, "00"))
    loaded = load_adapter(tmp_path / "a.safetensors")
    assert NativeSettings.from_json(loaded.prm, "here").calibration == BOTH


# --- folders ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    tokens = tiny.tokenizer("byte-bpe")
    model = tiny.body("qwen2", tokens.get_vocab_size(), 0)
    tensors = {
        **tiny.prefixed(model.state_dict(), "model."),
        "score.weight": tiny.head(1, model.config.hidden_size, 1, 2.0),
    }
    return tiny.write(
        tmp_path / "prm",
        model.config,
        tensors,
        tokens,
        architecture="Qwen2ForTokenClassification",
        extra={"prm": {"separator": "<extra_0>"}},
    )


def test_a_folder_written_anew(folder, tmp_path):
    before = (folder / "config.json").read_bytes()
    target = tmp_path / "new" / "calibrated"
    write_calibrated(folder, target, BOTH, {"calibration.json": "{}"}, where="prm")
    assert (folder / "config.json").read_bytes() == before
    assert {path.name for path in target.iterdir()} == {path.name for path in folder.iterdir()} | {"calibration.json"}
    assert calibration_of(target, "new") == BOTH
    assert calibration_of(folder, "old") == Calibration()
    old, new = load_prm(str(folder)), load_prm(str(target))
    assert old.spec.revision != new.spec.revision
    assert old.finish([0.9]) == [0.9]
    assert new.finish([0.9]) == [BOTH.step(0.9)]
    assert new.finish_trajectory([], 0.6) == KNOTS(0.6)
    assert not list(tmp_path.rglob("*.lock")) + list(tmp_path.rglob("*.building"))


def test_a_folder_is_not_replaced_unless_asked(folder, tmp_path):
    target = tmp_path / "calibrated"
    write_calibrated(folder, target, BOTH, {}, where="prm")
    with pytest.raises(ResumeError, match="exists already; choose another folder, or pass --fresh"):
        write_calibrated(folder, target, Calibration(), {}, where="prm")
    write_calibrated(folder, target, Calibration(steps=KNOTS), {}, where="prm", replace=True)
    assert calibration_of(target, "new") == Calibration(steps=KNOTS)
    with pytest.raises(ResumeError, match="is the PRM itself"):
        write_calibrated(folder, folder, BOTH, {}, where="prm")
    write_calibrated(folder, folder, BOTH, {"calibration.json": "{}"}, where="prm", replace=True)
    assert calibration_of(folder, "prm") == BOTH
    assert load_prm(str(folder)).finish([0.9]) == [BOTH.step(0.9)]
    other = tmp_path / "mine"
    other.mkdir()
    with pytest.raises(ResumeError, match="no checkpoint, so it is not replaced"):
        write_calibrated(folder, other, BOTH, {}, where="prm", replace=True)


def test_what_cannot_carry_a_calibration(folder, tmp_path):
    (folder / "built.json").write_text("{}")
    with pytest.raises(CheckpointError, match="build it anew"):
        write_calibrated(folder, folder, BOTH, {}, where="prm", replace=True)
    write_calibrated(folder, tmp_path / "copy", BOTH, {}, where="prm")
    assert not (tmp_path / "copy" / "built.json").exists()
    config = json.loads((folder / "config.json").read_text())
    del config["prm"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="only these carry a calibration"):
        calibration_of(folder, "prm")
    with pytest.raises(CheckpointError, match="expected a checkpoint folder"):
        calibration_of(tmp_path, "prm")
