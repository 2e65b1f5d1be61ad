"""Runs in an environment that has verl: the plugin's parts by verl's own code. Prints one JSON object.

python verl_host.py PRM_FOLDER TOKENIZER_FOLDER
"""

import asyncio
import json
import sys

import numpy as np
import torch
import verl
from omegaconf import OmegaConf
from verl import DataProto
from verl.experimental.agent_loop.agent_loop import AgentLoopMetrics, AgentLoopOutput, _agent_loop_registry
from verl.trainer.ppo.ray_trainer import compute_advantage
from verl.trainer.ppo.reward import load_reward_manager
from verl.utils import hf_tokenizer
from verl.utils.import_utils import load_extern_object

from reasonflux_prm.rl.verl import check

prm, folder = sys.argv[1:]
tokenizer = hf_tokenizer(folder)
PARAGRAPH = (
    "two and two make four, as two is one and one, and one more than three is four, which is what was asked. " * 3
)
TEXTS = [f"So {PARAGRAPH}\n\nThen {PARAGRAPH}\n\n\\boxed{{4}}", f"{PARAGRAPH}\n\n\\boxed{{5}}", "", "\\boxed{4}"]


def config(**settings):
    return OmegaConf.create(
        {
            "algorithm": {"adv_estimator": "reasonflux", "reasonflux": {"prm": prm, "grader": "string", **settings}},
            "reward": {
                "reward_manager": {"source": "register", "name": "reasonflux"},
                "custom_reward_function": {"path": None, "name": "compute_score"},
                "sandbox_fusion": {"url": None},
            },
        }
    )


def rollout(text):
    """Return a rollout as verl's agent loop hands it to a reward worker."""
    prompt = torch.tensor(tokenizer("two and two")["input_ids"])
    ids = torch.tensor([*tokenizer(text)["input_ids"], tokenizer.eos_token_id])
    tensors = {
        "prompts": prompt[None],
        "responses": ids[None],
        "attention_mask": torch.ones_like(torch.cat([prompt, ids]))[None],
    }
    row = {
        "raw_prompt": [{"role": "user", "content": "2+2"}],
        "reward_model": {"ground_truth": "4"},
        "data_source": "sums",
        "extra_info": {"question": "2+2"},
    }
    others = {}
    for name, value in row.items():
        others[name] = np.empty(1, dtype=object)
        others[name][0] = value
    return DataProto.from_dict(tensors=tensors, non_tensors=others)


def stored(data, result):
    """Return what verl's agent loop stores of a rollout: `_compute_score`, then `as_dict`."""
    from reasonflux_prm.rl.verl_plugin import dense_output

    ids = data.batch["responses"][0].tolist()
    output = dense_output(
        AgentLoopOutput(
            prompt_ids=data.batch["prompts"][0].tolist(),
            response_ids=ids,
            response_mask=[1] * len(ids),
            metrics=AgentLoopMetrics(),
            extra_fields={"turn_scores": []},
        )
    )
    output.reward_score = result["reward_score"]
    output.extra_fields["reward_extra_info"] = result["reward_extra_info"]
    return output.as_dict()


async def main():
    settings = config(shaping="process", beta=0.5)
    manager = load_reward_manager(settings, tokenizer)
    rows = []
    for text in TEXTS:
        data = rollout(text)
        rows.append(stored(data, await manager.run_single(data)))
    pad = torch.nn.utils.rnn.pad_sequence
    rewards = pad([row["rm_scores"] for row in rows], batch_first=True)
    batch = DataProto.from_dict(
        tensors={
            "token_level_rewards": rewards,
            "response_mask": pad([row["response_mask"] for row in rows], batch_first=True),
        },
        non_tensors={"uid": np.array(["p"] * len(rows), dtype=object)},
    )
    advantages = compute_advantage(batch, "reasonflux", config=settings.algorithm).batch["advantages"]

    scalar = config()
    scalar.reward.reward_manager.name = "naive"
    scalar.reward.custom_reward_function = {
        "path": "pkg://reasonflux_prm.rl.verl",
        "name": "compute_score",
        "reward_kwargs": {"shaping": "blend", "beta": 0.5, "prm": prm, "grader": "string"},
    }
    naive = load_reward_manager(scalar, tokenizer)
    return {
        "verl": verl.__version__,
        "check": check(),
        "agent": _agent_loop_registry["reasonflux"]["_target_"],
        "by_path": load_extern_object("pkg://reasonflux_prm.rl.verl", "compute_score").__name__,
        "rewards": rewards.tolist(),
        "advantages": advantages.tolist(),
        "info": [row["extra_fields"]["reward_extra_info"] for row in rows],
        "lengths": [len(row["responses"]) for row in rows],
        "naive": [await naive.run_single(rollout(text)) for text in TEXTS],
    }


print("RESULT" + json.dumps(asyncio.run(main())))
