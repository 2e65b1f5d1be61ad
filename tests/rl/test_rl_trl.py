"""TRL: our reward function and our trainer in a real GRPOTrainer, with a tiny policy, on a CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from stand_ins import WIDTH, LetterPRM, letter_reward
from tiny_native import write_native

from reasonflux_prm.errors import UsageError
from reasonflux_prm.rl.dense import process
from reasonflux_prm.rl.monitor import Monitor
from reasonflux_prm.rl.normalise import group_advantages
from reasonflux_prm.rl.rollouts import Rollout
from reasonflux_prm.rl.shaping import AmongRight, Blend, PRMOnly, Process
from reasonflux_prm.rl.trl import PRMReward, problem_of, said

sys.path.append(str(Path(__file__).parents[1] / "policy"))
trl = pytest.importorskip("trl")
from tiny_model import LETTERS, write_tiny_model  # noqa: E402
from tokenizers import pre_tokenizers  # noqa: E402
from transformers import AutoTokenizer  # noqa: E402

from reasonflux_prm.rl.trl_trainer import ProcessGRPOTrainer, check_arguments, in_groups, token_advantages  # noqa: E402

LENGTH, SIZE = 17, 4
VOCABULARY = ["<|pad|>", "<|start|>", "<|end|>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
SAID = {"<|end|>", *LETTERS.replace(" ", "\u0120")}


# --- the reward function -------------------------------------------------------------------------------------------


def test_standard_prompts():
    prm = LetterPRM()
    function = PRMReward(Blend(beta=0.5), prm, grader="string")
    logged = {}
    found = function(
        prompts=["2+2", "2+2", "1+1"],
        completions=["<think>a</think>\\boxed{4}", "\\boxed{5}", ""],
        completion_ids=[[1], [2], [3]],
        answer=["4", "4", "2"],
        log_metric=lambda name, value: logged.setdefault(name, value),
        trainer_state=None,
    )
    rewards = [own.reward / 2 for own in prm.score(list(prm.seen)[:2])]
    assert found == [pytest.approx(0.5 + 0.5 * rewards[0]), pytest.approx(0.5 * rewards[1]), None]
    assert [trace.problem for trace in prm.seen[:3]] == ["2+2", "2+2", "1+1"]
    assert logged == {
        "prm/unscored": pytest.approx(1 / 3),
        "prm/unscored/reward": pytest.approx(1 / 3),
        "prm/reward": pytest.approx(sum(rewards) / 2),
        "prm/outcome": pytest.approx(1 / 3),
    }
    assert function.__name__ == "prm_reward_blend"


def test_conversations():
    prm = LetterPRM()
    prompt = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2+2"}]
    function = PRMReward("prm", prm)
    completion = [{"role": "assistant", "reasoning_content": "so", "content": "4"}]
    blocks = [{"role": "assistant", "content": [{"type": "text", "text": "<think>so</think>4"}]}]
    found = function(prompts=[prompt, prompt], completions=[completion, blocks])
    assert found[0] == found[1] is not None
    assert {(t.problem, t.thinking, t.response) for t in prm.seen} == {("2+2", "so", "4")}
    assert problem_of([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}] * 2) == "a\n\na"
    assert said([{"role": "assistant", "content": "a"}, {"role": "tool", "content": "b"}]) == ("a", None)


def test_a_column_of_problems_and_one_of_answers():
    prm = LetterPRM()
    function = PRMReward("gated", prm, grader="string", answer="solution", problem="task")
    found = function(prompts=["Solve: 2+2"], completions=["\\boxed{5}"], task=["2+2"], solution=["4"])
    assert (found, prm.seen[0].problem) == ([0.0], "2+2")
    with pytest.raises(UsageError, match="there is no column 'task' to take problems from; the data set has solution"):
        function(prompts=["2+2"], completions=["5"], solution=["4"])


def test_without_a_reference_there_is_no_reward():
    assert PRMReward("rule", grader="string")(prompts=["2+2"], completions=["\\boxed{4}"]) == [None]


def test_shapings_that_need_the_group_are_refused():
    with pytest.raises(UsageError, match="process needs the whole group, which a reward function does not see; use"):
        PRMReward("process")


def test_a_loaded_prm(tmp_path):
    function = PRMReward(PRMOnly(), str(write_native(tmp_path / "prm")))
    found = function(prompts=["2+2", "2+2"], completions=["<think>so 4\n\nyes</think>4", "5"])
    assert all(0 < value < 1 for value in found)
    assert found[0] != found[1]


def test_a_template_that_opens_the_thinking(tmp_path):
    folder = write_tiny_model(tmp_path / "policy", template="{{ messages[0]['content'] }}<think>\n")
    prm = LetterPRM()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    function = PRMReward("prm", prm, tokenizer=tokenizer)
    ids = tokenizer("so it goes")["input_ids"]
    assert function(
        prompts=[[{"role": "user", "content": "2+2"}]],
        completions=[[{"role": "assistant", "content": "so it goes"}]],
        completion_ids=[ids],
    ) != [None]
    assert (prm.seen[0].thinking, prm.seen[0].response) == ("so it goes", "")


# --- settings ------------------------------------------------------------------------------------------------------


def arguments(folder, **settings):
    return trl.GRPOConfig(
        output_dir=str(folder),
        use_cpu=True,
        bf16=False,
        report_to=[],
        per_device_train_batch_size=2 * SIZE,
        num_generations=SIZE,
        max_completion_length=LENGTH,
        max_steps=2,
        logging_steps=1,
        save_strategy="no",
        learning_rate=1e-2,
        disable_tqdm=True,
        seed=1,
        # Letters, spaces and the end: bytes of broken characters would make the sums by hand less plain.
        generation_kwargs={"suppress_tokens": [token for token, text in enumerate(VOCABULARY) if text not in SAID]},
        **settings,
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss_type": "vespo"}, "loss_type 'vespo' weighs whole sequences"),
        ({"loss_type": "luspo"}, "loss_type 'luspo' weighs whole sequences"),
        ({"importance_sampling_level": "sequence"}, "gives all tokens of a sequence one ratio"),
        ({"off_policy_mask_threshold": 0.5}, "drops sequences by the sign of their one advantage"),
        ({"scale_rewards": "none"}, "give it `scale` and leave scale_rewards at 'group'"),
        ({"multi_objective_aggregation": "normalize_then_sum"}, "is for several reward functions, and there is one"),
        ({"reward_weights": [1.0]}, "of which there are 0, got 1"),
    ],
)
def test_settings_that_take_one_advantage_a_sequence_are_refused(tmp_path, settings, message):
    with pytest.raises(UsageError, match=message):
        check_arguments(arguments(tmp_path, **settings), 0)


def test_settings_of_further_reward_functions_are_theirs(tmp_path):
    check_arguments(arguments(tmp_path, scale_rewards="none", reward_weights=[0.5]), 1)


def test_groups_are_those_of_the_sampler_over_all_processes():
    # Two processes with three rollouts each, groups of two: the second group lies across.
    found = in_groups([Rollout("x", 1) for _ in range(6)], 2)
    assert [rollout.group for rollout in found] == [0, 0, 1, 1, 2, 2]


def test_tokens_that_the_policy_did_not_write_have_no_advantage():
    output = {
        "completion_ids": torch.ones(2, 4, dtype=torch.long),
        "completion_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]),
        "tool_mask": torch.tensor([[1, 0, 0, 1], [1, 1, 1, 1]]),
    }
    found = token_advantages([np.array([1.0, 2, 3, 4]), np.array([-1.0, -2])], output)
    assert found.tolist() == [[1, 0, 0, 4], [-1, -2, 0, 0]]


def test_group_advantages_are_trls():
    """TRL's own lines (trainer/grpo_trainer.py, sum_then_normalize) on groups that stand together."""
    from trl.trainer.utils import nanstd

    rewards = torch.tensor([1.0, 0.0, float("nan"), 1.0, 0.3, 0.3, 0.9, 0.1])
    grouped = rewards.view(-1, 4)
    theirs = (grouped - torch.nanmean(grouped, dim=1, keepdim=True)) / (nanstd(grouped, dim=1, keepdim=True) + 1e-4)
    ours = group_advantages([None if x != x else x for x in rewards.tolist()], [0] * 4 + [1] * 4)
    assert ours == pytest.approx(torch.nan_to_num(theirs).flatten().tolist(), abs=1e-6)


# --- the trainer ---------------------------------------------------------------------------------------------------


class Watched(ProcessGRPOTrainer):
    """Keeps what it was given and what it computed."""

    def _generate_and_score_completions(self, inputs):
        self.outputs = getattr(self, "outputs", [])
        self.outputs.append(super()._generate_and_score_completions(inputs))
        return self.outputs[-1]


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("policy") / "model")


def trainer(policy, folder, shaping, cls=Watched, **settings):
    from datasets import Dataset

    config = arguments(folder, **settings.pop("config", {}))
    data = Dataset.from_list([{"prompt": p, "answer": "e"} for p in ("two and two", "one", "a", "b")])
    return cls(str(policy), shaping=shaping, prm=LetterPRM(), args=config, train_dataset=data, **settings)


class VowelGrader:
    """Calls a completion right if it begins with a letter before n."""

    def grade_many(self, pairs):
        from reasonflux_prm.grading.verdict import Grade, Verdict

        return [Verdict(Grade.RIGHT if text[:1] < "n" else Grade.WRONG, text[:1]) for text, _ in pairs]


def by_hand(completions, beta):
    """Return advantages of one group by GRPO's process supervision, with nothing of the package.

    Args:
        completions: Each as the texts of its tokens: one letter, or none for a special token.
        beta: Share of the steps.
    """
    texts = ["".join(own) for own in completions]
    rewards = [np.array([letter_reward(text[at : at + WIDTH]) for at in range(0, len(text), WIDTH)]) for text in texts]
    steps = np.concatenate(rewards)
    outcomes = np.array([float(text[:1] < "n") for text in texts])
    whole = (outcomes - outcomes.mean()) / (outcomes.std(ddof=1) + 1e-4)
    found = []
    for n, own in enumerate(rewards):
        normal = (own - steps.mean()) / (steps.std(ddof=1) + 1e-4)
        row, letters = [], 0
        for letter in completions[n]:
            step = min(letters // WIDTH, len(own) - 1)
            row.append((1 - beta) * whole[n] + beta * normal[step:].sum())
            letters += len(letter)
        found.append(row)
    return found


def test_dense_advantages_and_their_gradient(policy, tmp_path):
    own = trainer(policy, tmp_path, Process(beta=0.5), grader=VowelGrader(), config={"loss_type": "grpo"})
    own.model.train()
    own.current_gradient_accumulation_steps = 1
    batch = own._prepare_inputs([{"prompt": p, "answer": "e"} for p in ("two and two", "one") for _ in range(SIZE)])
    (output,) = own.outputs
    letters = AutoTokenizer.from_pretrained(policy)
    mask, advantages = output["completion_mask"], output["advantages"]
    assert advantages.shape == output["completion_ids"].shape
    for group in range(2):
        rows = range(group * SIZE, (group + 1) * SIZE)
        written = [
            [
                letters.decode([token], skip_special_tokens=True)
                for token in output["completion_ids"][row, : mask[row].sum()]
            ]
            for row in rows
        ]
        assert all(len(text) <= 1 and text.isascii() for own_texts in written for text in own_texts)
        for row, expected in zip(rows, by_hand(written, 0.5), strict=True):
            assert advantages[row, : len(expected)].tolist() == pytest.approx(expected, abs=1e-4)
            assert not advantages[row, len(expected) :].any()
    assert len(set(advantages[0].tolist())) > 2, "advantages that are all equal would prove nothing"
    # The gradient: policy gradient with these advantages, mean over a sequence's tokens, then over sequences.
    own.compute_loss(own.model, batch).backward()
    theirs = {name: p.grad.clone() for name, p in own.model.named_parameters() if p.grad is not None}
    own.model.zero_grad()
    prompt, completion, mask = batch["prompt_ids"], batch["completion_ids"], batch["completion_mask"]
    seen = torch.cat([batch["prompt_mask"], mask], 1)
    logits = own.model(input_ids=torch.cat([prompt, completion], 1), attention_mask=seen).logits
    logps = torch.log_softmax(logits[:, prompt.size(1) - 1 : -1] / own.temperature, -1)
    logps = logps.gather(2, completion.unsqueeze(2)).squeeze(2)
    loss = -(((batch["advantages"] * logps * mask).sum(1)) / mask.sum(1)).mean()
    loss.backward()
    for name, gradient in theirs.items():
        assert torch.allclose(gradient, own.model.get_parameter(name).grad, atol=1e-6), name
    assert max(gradient.abs().max() for gradient in theirs.values()) > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("shaping", ["process", "potential", "filtered"])
def test_it_trains(policy, tmp_path, shaping):
    own = trainer(policy, tmp_path, shaping, grader=VowelGrader(), monitor=Monitor())
    before = [p.detach().clone() for p in own.model.parameters()]
    own.train()
    assert any(not torch.equal(a, b) for a, b in zip(before, own.model.parameters(), strict=True))
    log = own.state.log_history[0]
    assert {"prm/unscored", "prm/outcome", "monitor/steps", "monitor/flat", f"rewards/prm_{shaping}/mean"} <= set(log)
    assert np.isfinite(log["loss"])
    assert own.monitor.batches == 2


def test_without_shaping_it_is_trls_own_trainer(policy, tmp_path):
    """Advantages of a scalar shaping are those that TRL computes from our reward function."""
    own = trainer(policy, tmp_path / "a", Blend(beta=0.5), grader=VowelGrader())
    plain = trl.GRPOTrainer(
        str(policy),
        reward_funcs=PRMReward(Blend(beta=0.5), LetterPRM(), grader=VowelGrader(), tokenizer=own.processing_class),
        args=arguments(tmp_path / "b"),
        train_dataset=own.train_dataset,
    )
    found = []
    for each in (own, plain):
        each.model.train()
        torch.manual_seed(3)
        found.append(each._generate_and_score_completions([{"prompt": "one", "answer": "e"}] * 2 * SIZE))
    assert torch.equal(found[0]["completion_ids"], found[1]["completion_ids"])
    mask = found[0]["completion_mask"]
    assert torch.allclose(found[0]["advantages"], found[1]["advantages"].unsqueeze(1) * mask, atol=1e-5)


def test_further_reward_functions_are_added(policy, tmp_path):
    def short(completions, **_):
        return [-float(len(c)) for c in completions]

    config = {"reward_weights": [0.5]}
    own = trainer(policy, tmp_path, AmongRight(), grader=VowelGrader(), reward_funcs=short, config=config)
    alone = trainer(policy, tmp_path, AmongRight(), grader=VowelGrader())
    assert own.args.reward_weights == [0.0, 0.5]
    outputs = []
    for each in (own, alone):
        each.model.train()
        torch.manual_seed(3)
        outputs.append(each._generate_and_score_completions([{"prompt": "one", "answer": "e"}] * SIZE))
    lengths = [
        -0.5 * len(own.processing_class.decode(r, skip_special_tokens=True)) for r in outputs[0]["completion_ids"]
    ]
    added = (outputs[0]["advantages"] - outputs[1]["advantages"])[:, 0].tolist()
    assert added == pytest.approx(group_advantages(lengths, "aaaa"), abs=1e-4)


def test_process_with_sum_credit_is_what_was_computed_by_hand():
    texts = ["abcdefgh", "zyx"]
    rollouts = [
        Rollout(0, 9, 1.0, None, (letter_reward("abcde"), letter_reward("fgh")), (4, 8)),
        Rollout(0, 4, 0.0, None, (letter_reward("zyx"),), (3,)),
    ]
    for ours, theirs in zip(process(rollouts, beta=0.5), by_hand([[*t, ""] for t in texts], 0.5), strict=True):
        assert ours.tolist() == pytest.approx(theirs)


@pytest.mark.slow
def test_a_group_that_lies_across_two_processes(policy, tmp_path):
    script = Path(__file__).with_name("trl_two_processes.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    ran = subprocess.run(
        [*command, str(policy), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=500,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    ranks = [json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in range(2)]
    values = ranks[0]["values"] + ranks[1]["values"]
    expected = group_advantages(values, [0] * 4)
    assert ranks[0]["first"] + ranks[1]["first"] == pytest.approx(expected, abs=1e-4)
    assert abs(sum(ranks[0]["first"])) > 1e-3, "had each process normalised alone, its advantages would sum to 0"
    assert all(rank["shape"] for rank in ranks)
