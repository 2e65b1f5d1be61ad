"""Nothing gets out: every attack, in every backend that works here, and the machine is as it was."""

from __future__ import annotations

import json

import pytest
from sandbox_attacks import ATTACKS, PRELUDE, Attack


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_contained(attack: Attack, runner, bait):
    run = runner(PRELUDE + attack.program, attack.limits, {"machine.json": json.dumps(bait.told)})
    assert "OUT" not in run.stdout
    assert run.status in attack.ends, (run.reason, run.stderr[-500:])
    assert attack.reason in (run.reason or "")
    assert bait.told["secret"] not in run.stdout + run.stderr
    assert bait.taken() == []


def test_there_are_at_least_thirty():
    assert len({attack.name for attack in ATTACKS}) >= 30
