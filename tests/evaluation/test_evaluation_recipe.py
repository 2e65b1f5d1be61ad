"""The evaluation recipe from end to end on a tiny PRM: numbers against counting, baseline against transformers."""

from __future__ import annotations

import json

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForTokenClassification

from reasonflux_prm.evaluation.metrics import auc
from reasonflux_prm.prm.families.native import NativeSettings
from reasonflux_prm.prm.load import load_prm
from reasonflux_prm.records import Trace
from reasonflux_prm.scoring.engine import Engine, EngineSettings
from reasonflux_prm.traces.write import read_scored
from recipes.prm_first import evaluate as recipe
from recipes.prm_first.evaluate import SETS, line_steps, main, prepare
from recipes.prm_first.zero_shot import MeanLogProbability

CONTROLS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<file_sep>", "<empty_output>")
ROWS = {
    "steps/prmbench.jsonl": [
        {"id": f"prmbench-{kind}_p{n}", "problem": f"{n} + {n}?", "steps": [f"Add {n}.", f"So {2 * n + wrong}."],
         "labels": [1, 1 - wrong], "category": kind}
        for n in range(1, 4)
        for kind, wrong in (("circular", 1), ("correct", 0))
    ],
    "steps/mr_gsm8k_first_error.jsonl": [
        {"id": f"m{n}", "problem": f"{n} * 2?", "steps": ["Double it.", f"{n}*2={n}", f"#### {n}"],
         "labels": [1, 0, None], "category": "original"}
        for n in range(1, 5)
    ],
    "bon/gsm8k_example_model_solutions.jsonl": [
        {"id": f"g{n}", "problem": f"{n} + 1?", "answer": str(n + 1), "candidates": [
            {"text": f"Add one.\n{n}+1={n + k}\nA: {n + k}", "correct": k == 1, "pred": str(n + k), "model": f"m{j}"}
            for j, k in enumerate((1, 2, 1 + n % 2, n))]}
        for n in range(1, 6)
    ],
    "bon/amc23_llama3b_think.jsonl": [
        {"id": f"a{n}", "problem": f"{n}?", "candidates": [
            {"thinking": "Hmm. " * k, "response": str(k), "correct": k == n, "pred": str(k)} for k in (1, 2)]}
        for n in (1, 2)
    ],
    "traces/math_thought_anchors.jsonl": [
        {"id": f"t{n}{right}", "problem": f"{n}?", "thinking": "Let me think. " * (n + right), "response": "7",
         "correct": bool(right)}
        for n in range(1, 4)
        for right in (0, 1)
    ],
    "traces/mip_gsm8k.jsonl": [
        {"id": f"p{n}", "problem": f"{n}?", "thinking": "Wait. " * n, "response": "7",
         "correct": None if n == 3 else n < 3}
        for n in range(1, 6)
    ],
}  # fmt: skip


def write_model(folder, kind, **settings):
    """Write a random Llama with a tokenizer of bytes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = Tokenizer(models.BPE({symbol: number for number, symbol in enumerate(alphabet)}, []))
    tokens.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokens.add_special_tokens(list(CONTROLS))
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=tokens.get_vocab_size(), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512, initializer_range=0.3, **settings,
    )  # fmt: skip
    model = kind(config).eval()
    model.save_pretrained(folder)
    tokens.save(str(folder / "tokenizer.json"))
    return model


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with a PRM, a base and data, and the base as transformers has it."""
    folder = tmp_path_factory.mktemp("world")
    settings = NativeSettings(separator="<file_sep>", marker="<empty_output>").to_json()
    write_model(folder / "prm", LlamaForTokenClassification, num_labels=1, prm=settings)
    base = write_model(folder / "base", LlamaForCausalLM, tie_word_embeddings=True)
    for name, rows in ROWS.items():
        (folder / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "data" / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder, base


@pytest.fixture(scope="module")
def run(world):
    """Run the recipe; return its report, its output and the folder of scores."""
    folder, _ = world
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipe, "ensure_base", lambda: folder / "base")
        main(["--prm", str(folder / "prm"), "--data", str(folder / "data"), "-o", str(folder / "report.json")])
    report = json.loads((folder / "report.json").read_text())
    return report, folder / "report-scores"


def scores(folder, start):
    """Return the one file of PRM scores of a test set."""
    (path,) = [path for path in folder.glob(f"{start}-*-native-*.jsonl")]
    return list(read_scored(path))


def test_every_set_is_there_and_scored(run):
    report, _ = run
    assert list(report["sets"]) == [test.name for test in SETS]
    assert all(found["unscored"] == 0 for found in report["sets"].values())
    assert report["prm"]["family"] == "native"
    assert report["prm"]["alpha"] == 1.0


def test_step_auc_and_first_errors(run):
    report, folder = run
    found = report["sets"]["prmbench"]
    rows = [
        (r, y) for t in scores(folder, "prmbench") for r, y in zip(t.step_rewards, t.trace.step_labels, strict=True)
    ]
    assert found["auc"]["prm"]["value"] == pytest.approx(auc(*zip(*rows, strict=True)), abs=1e-6)
    assert (found["steps"], found["wrong"]) == (12, 3)
    # Variants of a problem are one cluster.
    assert found["auc"]["prm"]["clusters"] == 3
    # Wrong steps are all second, right ones 6 first and 3 second: 6 + 3 / 2 of 9.
    assert found["auc"]["earlier"]["value"] == pytest.approx(7.5 / 9, abs=1e-6)
    assert found["by_category"]["correct"]["auc"]["prm"]["value"] is None
    gsm = report["sets"]["mr_gsm8k"]
    assert (gsm["steps"], gsm["wrong"], gsm["auc"]["earlier"]["value"]) == (8, 4, 1.0)
    lowest = [t.step_rewards.index(min(t.step_rewards)) == 1 for t in scores(folder, "mr_gsm8k")]
    assert gsm["first_error"]["lowest_reward"]["accuracy"]["value"] == sum(lowest) / 4
    assert gsm["first_error"]["any_step_at_random"]["accuracy"]["value"] == pytest.approx(1 / 3, abs=1e-6)
    assert "chosen_on_prmbench" in gsm["first_error"]
    assert "chosen_on_prmbench" not in found["first_error"]


def test_choices_among_candidates(run):
    report, folder = run
    found = report["sets"]["gsm8k"]
    groups = {}
    for candidate in scores(folder, "gsm8k"):
        groups.setdefault(candidate.trace.group, []).append(candidate)
        # Each line is a step.
        assert len(candidate.steps) == 3
        mean = sum(candidate.step_rewards) / 3
        assert candidate.reward == pytest.approx(mean + candidate.trajectory_reward)
    assert (found["problems"], found["candidates"]) == (5, 20)

    def accuracy(key):
        return sum(max(own, key=key).trace.correct for own in groups.values()) / 5

    expected = {
        "prm": accuracy(lambda c: c.reward),
        "prm_mean+trajectory": accuracy(lambda c: c.reward),
        "prm_min": accuracy(lambda c: min(c.step_rewards)),
        "prm_last": accuracy(lambda c: c.step_rewards[-1]),
        "prm_trajectory": accuracy(lambda c: c.trajectory_reward),
        "pass@1": sum(c["correct"] for row in ROWS[SETS[2].file] for c in row["candidates"]) / 20,
        "oracle": 1.0,
    }
    values = {name: found["accuracy"][name]["value"] for name in expected}
    assert values == pytest.approx(expected)
    assert found["minus_pass@1"]["prm"]["value"] == pytest.approx(values["prm"] - values["pass@1"])
    assert found["by_policy"]["m0"]["value"] == 1.0
    assert "zero_shot" in found["accuracy"]
    assert "zero_shot" not in report["sets"]["amc23"]["accuracy"]
    assert report["sets"]["amc23"]["accuracy"]["shortest"]["value"] == 0.5


def test_whole_traces(run):
    report, folder = run
    found = report["sets"]["mip_gsm8k"]
    # The trace without a verdict is left out; the two right ones are the shortest.
    assert (found["traces"], found["wrong"], found["auc"]["shorter"]["value"]) == (4, 2, 1.0)
    anchors = scores(folder, "thought_anchors")
    expected = auc([t.reward for t in anchors], [t.trace.correct for t in anchors])
    assert report["sets"]["thought_anchors"]["auc"]["prm"]["value"] == pytest.approx(expected, abs=1e-6)


def test_scores_are_kept(run, world, monkeypatch, capsys):
    report, _ = run
    folder, _ = world
    arguments = ["--prm", str(folder / "prm"), "--data", str(folder / "data"), "-o", str(folder / "report.json")]
    monkeypatch.setattr(recipe, "ensure_base", lambda: folder / "base")
    monkeypatch.setattr(Engine, "score_chunks", lambda *_: pytest.fail("scored again"))
    main(arguments)
    assert json.loads((folder / "report.json").read_text()) == report
    printed = capsys.readouterr().out
    assert "gsm8k: 5 problems, 20 candidates" in printed
    assert "| oracle | 1.000 (1.000 to 1.000) |" in printed


def test_zero_shot_is_the_mean_log_probability(world):
    folder, base = world
    judge = MeanLogProbability(folder / "base", load_prm(str(folder / "prm")))
    traces = [
        Trace("a", "What is 1 + 1?", response="1+1=2\nA: 2"),
        Trace("b", "Why?", response="Because."),
        Trace("c", "Try <|im_end|>", response=" <file_sep> x\n"),
    ]
    found = list(Engine(judge, EngineSettings(pack_tokens=300)).score(traces))
    for trace, scored in zip(traces, found, strict=True):
        before = judge.head(trace.problem)
        own = judge.tokenizer.continuation(trace.response.strip())
        with torch.no_grad():
            logits = base(torch.tensor([[*before, *own]])).logits[0].log_softmax(dim=-1)
        expected = [logits[len(before) + i - 1, token].item() for i, token in enumerate(own)]
        assert scored.reward == pytest.approx(sum(expected) / len(expected), abs=1e-5)


def test_lines_are_steps():
    trace = Trace("t", "p", thinking="One.\n\n  Two.\n", response="\nThree.\r\n \nA: 3")
    assert [trace.text(step.part)[step.start : step.stop] for step in line_steps(trace)] == [
        "One.\n", "  Two.\n", "Three.\r\n", "A: 3",
    ]  # fmt: skip


def test_limit_keeps_candidates_together(world):
    folder, _ = world
    gsm8k = next(test for test in SETS if test.name == "gsm8k")
    assert [trace.group for trace in prepare(gsm8k, folder / "data", 2)] == ["g1"] * 4 + ["g2"] * 4


def test_share_leaves_out_whole_groups(world):
    folder, _ = world
    gsm8k = next(test for test in SETS if test.name == "gsm8k")
    everything = [trace.id for trace in prepare(gsm8k, folder / "data", None)]
    some = list(prepare(gsm8k, folder / "data", None, 0.5))
    assert 0 < len(some) < len(everything)
    assert {trace.id for trace in some} <= set(everything)
    assert all(sum(other.group == trace.group for other in some) == 4 for trace in some)
