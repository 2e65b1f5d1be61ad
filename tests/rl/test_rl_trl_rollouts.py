"""Rollouts of a local policy in TRL's real trainers: the same texts as TRL's own, with the weights of the moment."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from stand_ins import LetterPRM

from reasonflux_prm.errors import UsageError

sys.path.append(str(Path(__file__).parents[1] / "policy"))
trl = pytest.importorskip("trl")
from datasets import Dataset  # noqa: E402
from tiny_model import write_tiny_model  # noqa: E402

from reasonflux_prm.policy.local import LocalPolicy  # noqa: E402
from reasonflux_prm.rl.trl_rollouts import LocalRollouts, generation_settings, whole_weights  # noqa: E402
from reasonflux_prm.rl.trl_trainer import ProcessGRPOTrainer  # noqa: E402

LENGTH, SIZE = 12, 4
PROBLEMS = [[{"role": "user", "content": text}] for text in ("two and two", "one", "a", "b")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("policy") / "model")


@pytest.fixture(scope="module")
def rollouts(folder):
    policy = LocalPolicy(str(folder), prefix_bytes=0)
    yield LocalRollouts(policy)
    policy.close()


def letters(completions, **_):
    return [float(sum(map(ord, one[0]["content"])) % 97) for one in completions]


def config(folder, **settings):
    return trl.GRPOConfig(
        output_dir=str(folder),
        use_cpu=True,
        bf16=False,
        report_to=[],
        per_device_train_batch_size=2 * SIZE,
        num_generations=SIZE,
        max_completion_length=LENGTH,
        logging_steps=1,
        save_strategy="no",
        disable_tqdm=True,
        seed=1,
        **{"max_steps": 2, "learning_rate": 3e-2, **settings},
    )


def trainer(folder, output, rollouts, settings=None, **others):
    data = Dataset.from_list([{"prompt": prompt} for prompt in PROBLEMS])
    return trl.GRPOTrainer(
        str(folder),
        reward_funcs=letters,
        args=config(output, **(settings or {})),
        train_dataset=data,
        rollout_func=rollouts,
        **others,
    )


def sampled(own, prompts, train=True):
    own.model.train(train)
    return own._generate([prompt for prompt in prompts for _ in range(SIZE)])


def test_greedy_texts_are_trls_also_after_updates(folder, tmp_path, rollouts):
    greedy = {"generation_kwargs": {"do_sample": False}}
    own = trainer(folder, tmp_path / "a", rollouts, greedy)
    plain = trainer(folder, tmp_path / "b", None, greedy)
    before = sampled(own, PROBLEMS)
    assert before[:2] == sampled(plain, PROBLEMS)[:2]
    assert before[4] is None, "TRL computes the old policy's log-probabilities itself where it needs them"
    with torch.no_grad():
        for model in (own.model, plain.model):
            for number, weight in enumerate(model.parameters()):
                weight.add_(0.2 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(number)))
    after = sampled(own, PROBLEMS)
    assert after[1] != before[1]
    assert after[:2] == sampled(plain, PROBLEMS)[:2]


def test_a_training_samples_with_the_weights_of_its_step(folder, tmp_path, rollouts):
    taken = []

    class Watched(LocalRollouts):
        def __call__(self, prompts, trainer):
            found = super().__call__(prompts, trainer)
            taken.append([weight.detach().clone() for weight in self.policy._model.parameters()])
            assert all(
                torch.equal(one, other) for one, other in zip(taken[-1], trainer.model.parameters(), strict=True)
            )
            return found

    own = trainer(folder, tmp_path, Watched(rollouts.policy))
    own.train()
    assert len(taken) == 2
    assert any(not torch.equal(one, other) for one, other in zip(*taken, strict=True))
    assert own.state.log_history[0]["completions/mean_length"] > 0


def test_seeds_follow_run_step_and_mode(folder, tmp_path, rollouts):
    own, again = (trainer(folder, tmp_path / name, LocalRollouts(rollouts.policy)) for name in "ab")
    first, second = sampled(own, PROBLEMS)[1], sampled(own, PROBLEMS)[1]
    assert first != second, "two batches of one step"
    assert len({tuple(ids) for ids in first}) > len(PROBLEMS), "rollouts of one prompt differ"
    assert sampled(again, PROBLEMS)[1] == first
    own.state.global_step = again.state.global_step = 5
    assert sampled(own, PROBLEMS)[1] == sampled(again, PROBLEMS)[1] != first
    assert sampled(own, PROBLEMS, train=False)[1] != sampled(again, PROBLEMS)[1]


def test_dense_advantages_over_local_rollouts(folder, tmp_path, rollouts):
    own = ProcessGRPOTrainer(
        str(folder),
        shaping="prm",
        prm=LetterPRM(),
        args=config(tmp_path, max_steps=1, learning_rate=1e-2),
        train_dataset=Dataset.from_list([{"prompt": prompt} for prompt in PROBLEMS]),
        rollout_func=rollouts,
    )
    before = [weight.detach().clone() for weight in own.model.parameters()]
    own.train()
    assert any(not torch.equal(a, b) for a, b in zip(before, own.model.parameters(), strict=True))
    assert own.state.log_history[0]["prm/unscored"] == 0


def test_where_samples_are_used_twice_the_old_policy_is_recomputed(folder, tmp_path, rollouts):
    own = trainer(folder, tmp_path, rollouts, {"num_iterations": 2})
    own.model.train()
    inputs = [{"prompt": prompt} for prompt in PROBLEMS[:2] for _ in range(SIZE)]
    output = own._generate_and_score_completions(inputs)
    assert output["old_per_token_logps"].shape == output["completion_ids"].shape
    assert "sampling_per_token_logps" not in output


def test_adapters_are_merged_for_the_policy_and_left_as_they_were(folder, tmp_path, rollouts):
    peft = pytest.importorskip("peft")
    lora = peft.LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, modules_to_save=["lm_head"])
    own = trainer(folder, tmp_path, rollouts, {"generation_kwargs": {"do_sample": False}}, peft_config=lora)
    plain = trainer(folder, tmp_path / "b", None, {"generation_kwargs": {"do_sample": False}})
    before = {name: weight.clone() for name, weight in own.model.state_dict().items()}
    texts = sampled(own, PROBLEMS)[1]
    assert texts != sampled(plain, PROBLEMS)[1]
    after = own.model.state_dict()
    assert all(torch.allclose(weight, after[name], atol=1e-5) for name, weight in before.items())
    with whole_weights(own.model) as state:
        merged = {name: weight.clone() for name, weight in state.items()}
    plain.model.load_state_dict(merged)
    assert sampled(plain, PROBLEMS)[1] == texts


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"top_k": 5}, "samples by temperature and top_p, and the trainer has top_k=5"),
        ({"repetition_penalty": 1.1}, "the trainer has repetition_penalty=1.1"),
        ({"generation_kwargs": {"suppress_tokens": [1]}}, r"the trainer has suppress_tokens=\[1\]"),
    ],
)
def test_what_it_cannot_follow_is_refused(folder, tmp_path, rollouts, settings, message):
    with pytest.raises(UsageError, match=message):
        sampled(trainer(folder, tmp_path, rollouts, settings), PROBLEMS)


def test_settings():
    given = {"max_new_tokens": 7, "do_sample": True, "temperature": 0.5, "top_p": 0.9, "top_k": 0, "eos_token_id": [2]}
    assert generation_settings(given) == {"max_tokens": 7, "temperature": 0.5, "top_p": 0.9}
    assert generation_settings({**given, "do_sample": False})["temperature"] == 0.0


def test_other_writers_are_refused(folder, tmp_path, rollouts):
    own = trainer(folder, tmp_path, rollouts)
    own.use_transformers_continuous_batching = True
    with pytest.raises(UsageError, match="continuous batching names another writer of rollouts"):
        sampled(own, PROBLEMS)
