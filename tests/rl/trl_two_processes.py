"""Run by torchrun on two processes: prints what each computed of one group that lies across them.

torchrun --nproc-per-node 2 trl_two_processes.py POLICY_FOLDER WORK_FOLDER
"""

import json
import os
import sys
from pathlib import Path

import torch
from datasets import Dataset
from stand_ins import LetterPRM
from trl import GRPOConfig

from reasonflux_prm.rl.shaping import Process
from reasonflux_prm.rl.trl_trainer import ProcessGRPOTrainer

policy, work = sys.argv[1:]
rank = int(os.environ["RANK"])
config = GRPOConfig(
    output_dir=work,
    use_cpu=True,
    bf16=False,
    report_to=[],
    per_device_train_batch_size=2,
    num_generations=4,
    max_completion_length=17,
    max_steps=1,
    save_strategy="no",
    disable_tqdm=True,
)
trainer = ProcessGRPOTrainer(
    policy,
    shaping=Process(beta=1.0, credit="mean"),
    prm=LetterPRM(),
    args=config,
    train_dataset=Dataset.from_list([{"prompt": "one", "answer": "e"}] * 4),
)
trainer.model.train()
torch.manual_seed(10 + rank)
output = trainer._generate_and_score_completions([{"prompt": "one", "answer": "e"}] * 2)
own = [record.rollout for record in trainer._recorder.rewarded]
found = {
    "values": [sum(reward for reward, _ in r.known_steps) / max(1, len(r.known_steps)) for r in own],
    "first": output["advantages"][:, 0].tolist(),
    "shape": list(output["advantages"].shape) == list(output["completion_ids"].shape),
}
Path(work, f"rank-{rank}.json").write_text(json.dumps(found))
