"""One run of GRPO: a student, a reward and a seed give a policy and its log.

A run that is killed goes on from its last checkpoint; one that is done is kept.
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
from reasonflux_prm.rl.monitor import Monitor, MonitorSettings
from reasonflux_prm.rl.trl_trainer import ProcessGRPOTrainer
from recipes.grpo.sizes import REWARDS, Size

LEARNING_RATE = 3e-6
KL = 1e-3
LOG = "run.json"


def train(
    student: Path, problems: Sequence[Problem], output: Path, reward: str, seed: int, size: Size, prm: Any
) -> list[dict[str, Any]]:
    """Train a policy, and write it to `output`; a policy that is already there is kept.

    Args:
        student: Folder of the policy to begin with.
        problems: To draw from.
        output: Folder.
        reward: A name in `sizes.REWARDS`.
        seed: Of the order of problems and of sampling.
        size: How much.
        prm: As in `rl.scorer.open_score`.

    Returns:
        The log, one entry an update.
    """
    if not (output / LOG).is_file():
        trainer = _trainer(student, problems, output, reward, seed, size, prm)
        trainer.train(resume_from_checkpoint=_last_checkpoint(output))
        trainer.save_model(str(output))
        entries = [entry for entry in trainer.state.log_history if "loss" in entry]
        part = output / (LOG + ".part")
        part.write_text(json.dumps(entries) + "\n", "utf-8")
        part.replace(output / LOG)
    for checkpoint in output.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
    log: list[dict[str, Any]] = json.loads((output / LOG).read_text("utf-8"))
    return log


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
    student: Path, problems: Sequence[Problem], output: Path, reward: str, seed: int, size: Size, prm: Any
) -> ProcessGRPOTrainer:
    on_gpu = torch.cuda.is_available()
    rollouts = size.prompts * size.group
    config = GRPOConfig(
        output_dir=str(output),
        max_steps=size.steps,
        per_device_train_batch_size=rollouts if on_gpu else size.group,
        gradient_accumulation_steps=1 if on_gpu else size.prompts,
        num_generations=size.group,
        max_completion_length=size.tokens,
        temperature=1.0,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="constant",
        beta=KL,
        loss_type="dapo",
        bf16=on_gpu,
        use_cpu=not on_gpu,
        gradient_checkpointing=False,
        seed=seed,
        report_to="none",
        logging_steps=1,
        save_strategy="steps",
        save_steps=max(1, size.steps // 6),
        save_total_limit=1,
        disable_tqdm=not on_gpu,
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
    )
