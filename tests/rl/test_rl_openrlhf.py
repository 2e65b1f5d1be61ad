"""OpenRLHF: requests replayed as it makes them, by the Python file and by threads."""

from __future__ import annotations

import asyncio
import importlib.util

import pytest
from stand_ins import LetterPRM
from tiny_native import write_native

from reasonflux_prm.errors import UsageError
from reasonflux_prm.rl.openrlhf import RewardFunction
from reasonflux_prm.rl.shaping import Blend

PROMPT = "<|im_start|>user\n2+2<|im_end|>\n<|im_start|>assistant\n"


def query(text):
    return f"{PROMPT}{text}<|im_end|>"


def test_a_request():
    prm = LetterPRM()
    function = RewardFunction(Blend(beta=0.5), prm, grader="string")
    texts = ["<think>\nso\n</think>\n\n\\boxed{4}", "\\boxed{5}", "<think>\ncut"]
    found = function([query(text) for text in texts], [PROMPT] * 3, ["4", 4, "4"])
    assert [(t.problem, t.thinking, t.response, t.thinking_closed) for t in prm.seen] == [
        ("2+2", "so", "\\boxed{4}", True),
        ("2+2", "", "\\boxed{5}", True),
        ("2+2", "cut", "", False),
    ]
    logs = found["extra_logs"]
    assert found["scores"] == logs["outcome"] == [1.0, 0.0, 0.0]
    assert logs["unscored"] == [0.0] * 3
    assert found["rewards"] == [
        pytest.approx(0.5 * o + 0.5 * p) for o, p in zip(logs["outcome"], logs["prm"], strict=True)
    ]


def test_what_is_missing_is_a_number_and_counted():
    function = RewardFunction("blend", LetterPRM(), grader="string")
    found = function([query("\\boxed{4}"), query("")], [PROMPT] * 2, [{"not": "text"}, "4"])
    assert found["rewards"] == [0.0, 0.0]
    assert found["extra_logs"]["unscored"] == [1.0, 1.0]


def test_a_file_as_openrlhf_loads_it(tmp_path):
    prm = write_native(tmp_path / "prm")
    file = tmp_path / "my_reward.py"
    file.write_text(
        "from reasonflux_prm.rl.openrlhf import RewardFunction\n"
        f"reward_func = RewardFunction('gated', prm={str(prm)!r}, grader='string')\n"
    )
    spec = importlib.util.spec_from_file_location("reward_func", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    async def many():
        calls = [
            asyncio.to_thread(module.reward_func, [query(f"so {n}\\boxed{{{n}}}")], [PROMPT], ["4"]) for n in range(8)
        ]
        return await asyncio.gather(*calls)

    answers = asyncio.run(many())
    assert [answer["scores"] for answer in answers] == [[float(n == 4)] for n in range(8)]
    assert 0.8 <= answers[4]["rewards"][0] < 1
    assert all(answers[n]["rewards"] == [0.0] for n in range(8) if n != 4)


def test_what_is_refused():
    with pytest.raises(UsageError, match="potential needs the whole group or the steps, and OpenRLHF takes one number"):
        RewardFunction("potential")
    with pytest.raises(UsageError, match="got 1 queries, 0 prompts and 1 labels"):
        RewardFunction("rule", grader="string")(["a"], [], ["4"])
