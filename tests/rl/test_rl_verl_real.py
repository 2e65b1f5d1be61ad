"""The bridge in real verl: entry point, reward manager, agent loop's output, estimator, reward function by pkg://.

verl needs an older transformers than we test with, so it has an environment of its own, into which this project is not
installed (it is put on the path, with the entry points of its pyproject.toml):

    python3 -m venv verl-env
    verl-env/bin/python -m pip install torch==2.13.0
    verl-env/bin/python -m pip install verl==0.9.1 "hydra-core>=1.3.2" transformers==5.10.4 gguf cachetools
    REASONFLUX_PRM_VERL_PYTHON=verl-env/bin/python python -m pytest --slow tests/rl/test_rl_verl_real.py
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from tiny_native import write_native

from reasonflux_prm.grading.graders import open_grader
from reasonflux_prm.prm.load import load_prm
from reasonflux_prm.rl.dense import process
from reasonflux_prm.rl.scorer import RolloutScorer, Sampled, open_score
from reasonflux_prm.rl.verl_codes import read_batch

sys.path.append(str(Path(__file__).parents[1] / "policy"))
from tiny_model import write_tiny_model

PYTHON = os.environ.get("REASONFLUX_PRM_VERL_PYTHON", "")
ROOT = Path(__file__).parents[2]
PARAGRAPH = (
    "two and two make four, as two is one and one, and one more than three is four, which is what was asked. " * 3
)
TEXTS = [f"So {PARAGRAPH}\n\nThen {PARAGRAPH}\n\n\\boxed{{4}}", f"{PARAGRAPH}\n\n\\boxed{{5}}", "", "\\boxed{4}"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        not PYTHON,
        reason="REASONFLUX_PRM_VERL_PYTHON names no Python that has verl; the head of this file says how to make one",
    ),
]


def install(folder: Path) -> Path:
    """Write what an installer would leave: a distribution's name and its entry points."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    info = folder / f"reasonflux_prm-{project['version']}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    points = project["entry-points"]["verl.plugins"]
    lines = ["[verl.plugins]", *(f"{name} = {target}" for name, target in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    (folder / "reasonflux_prm").symlink_to(ROOT / "reasonflux_prm")
    return folder


def test_in_real_verl(tmp_path):
    prm, policy = write_native(tmp_path / "prm"), write_tiny_model(tmp_path / "policy")
    path = install(tmp_path / "site")
    environment = {**os.environ, "PYTHONPATH": str(path), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [str(Path(PYTHON).absolute()), str(Path(__file__).with_name("verl_host.py")), str(prm), str(policy)]
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=800)
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]
    found = json.loads(ran.stdout.split("RESULT")[1])
    print(f"verl {found['verl']}: {found['check']}")
    assert found["agent"] == "reasonflux_prm.rl.verl_plugin.DenseSingleTurnAgentLoop"
    assert found["by_path"] == "compute_score"

    # The same rollouts, scored here.
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(policy)
    ids = [[*tokenizer(text)["input_ids"], tokenizer.eos_token_id] for text in TEXTS]
    scorer = RolloutScorer(open_score(load_prm(str(prm))), grader=open_grader("string"), tokenizer=tokenizer)
    ours = [own.rollout for own in scorer([Sampled("p", "2+2", ids=row, answer="4") for row in ids])]
    assert found["lengths"] == [rollout.tokens for rollout in ours]
    width = max(found["lengths"])
    masks = np.array([[1] * n + [0] * (width - n) for n in found["lengths"]])
    read = read_batch(found["rewards"], masks, ["p"] * len(ours))
    for one, other in zip(read, ours, strict=True):
        if not other.step_ends:
            assert one.note == "unscored"
            continue
        assert (one.outcome, one.step_ends) == (other.outcome, other.step_ends)
        assert one.step_rewards == pytest.approx(other.step_rewards, abs=1e-4)
    for row, expected in zip(found["advantages"], process(read, beta=0.5), strict=True):
        assert row[: len(expected)] == pytest.approx(expected, abs=1e-4)
        assert not any(row[len(expected) :])
    assert len(ours[0].step_ends) > 1
    assert len({round(a, 4) for a in found["advantages"][0]}) > 1, "one advantage for all tokens would prove nothing"
    assert [info["unscored"] for info in found["info"]] == [0.0, 0.0, 1.0, 0.0]
    assert all(set(info) == {"acc", "prm", "unscored"} for info in found["info"]), "verl averages each of them"

    scalar = [result["reward_score"] for result in found["naive"]]
    assert scalar == pytest.approx([0.5 * r.outcome + 0.5 * r.reward if r.reward is not None else 0.0 for r in ours])
