"""One run of GRPO: a student, a reward and a seed give a policy and its log.

A run that is killed goes on from its last checkpoint, if its size has any; one that is done is kept. Rollouts are
written by a local policy (`rl.trl_rollouts`).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig

from reasonflux_prm.evaluation.tasks.base import Problem
from reasonflux_prm.evaluation.tasks.prompts import ask_answer
from reasonflux_prm.policy.local import LocalPolicy
from reasonflux_prm.rl.monitor import Monitor, MonitorSettings
from reasonflux_prm.rl.trl_rollouts import LocalRollouts
from reasonflux_prm.rl.trl_trainer import ProcessGRPOTrainer
from recipes.grpo.sizes import REWARDS, Size

LOG = "run.json"
WEIGHTS = "model.safetensors"


def train(
    student: Path,
    problems: Sequence[Problem],
    output: Path,
    reward: str,
    seed: int,
    size: Size,
    prm: Any,
    policy: LocalPolicy,
) -> None:
    """Train a policy, and write it and its log, one entry an update, to `output`; what is already there is kept.

    Args:
        student: Folder of the policy to begin with.
        problems: To draw from.
        output: Folder.
        reward: A name in `sizes.REWARDS`.
        seed: Of the order of problems and of sampling.
        size: How much.
        prm: As in `rl.scorer.open_score`.
        policy: Writes the rollouts; opened from the student.
    """
    if not (output / LOG).is_file():
        trainer = _trainer(student, problems, output, reward, seed, size, prm, policy)
        trainer.train(resume_from_checkpoint=_last_checkpoint(output))
        trainer.save_model(str(output))
        entries = [entry for entry in trainer.state.log_history if "loss" in entry]
        part = output / (LOG + ".part")
        part.write_text(json.dumps(entries) + "\n", "utf-8")
        part.replace(output / LOG)
    for checkpoint in output.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)


def _last_checkpoint(output: Path) -> str | None:
    """Return the last checkpoint that is whole; one that a kill has cut short is removed."""
    for folder in sorted(output.glob("checkpoint-*"), key=lambda one: -int(one.name.rpartition("-")[2])):
        try:
            # What the trainer writes last.
            json.loads((folder / "trainer_state.json").read_text("utf-8"))
        except (OSError, ValueError):
            shutil.rmtree(folder)
        else:
            return str(folder)
    return None


def _trainer(
    student: Path,
    problems: Sequence[Problem],
    output: Path,
    reward: str,
    seed: int,
    size: Size,
    prm: Any,
    policy: LocalPolicy,
) -> ProcessGRPOTrainer:
    on_gpu = torch.cuda.is_available()
    config = GRPOConfig(
        output_dir=str(output),
        max_steps=size.steps,
        per_device_train_batch_size=size.at_once,
        gradient_accumulation_steps=size.prompts * size.group // size.at_once,
        num_generations=size.group,
        max_completion_length=size.tokens,
        temperature=1.0,
        learning_rate=size.learning_rate,
        lr_scheduler_type="constant",
        beta=size.kl,
        loss_type="dapo",
        bf16=on_gpu,
        use_cpu=not on_gpu,
        gradient_checkpointing=False,
        seed=seed,
        report_to="none",
        logging_steps=1,
        save_strategy="steps" if size.saves else "no",
        save_steps=max(1, size.steps // max(1, size.saves)),
        save_total_limit=1,
        disable_tqdm=True,
    )
    rows = [
        {
            "prompt": [{"role": "user", "content": ask_answer(problem)}],
            "task": problem.problem,
            "answer": problem.answer,
        }
        for problem in problems
    ]
    return ProcessGRPOTrainer(
        AutoModelForCausalLM.from_pretrained(student, dtype=torch.float32),
        shaping=REWARDS[reward],
        prm=prm,
        grader="numeric",
        problem="task",
        monitor=Monitor(MonitorSettings(window=max(2, size.window))),
        args=config,
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(student),
        rollout_func=LocalRollouts(policy),
    )
