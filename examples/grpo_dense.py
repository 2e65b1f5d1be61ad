"""GRPO with dense process rewards, in one page: TRL's trainer, a PRM's step rewards, an advantage for each token.

    python examples/grpo_dense.py MODEL PROBLEMS.jsonl -o OUT

PROBLEMS has `problem` and `answer`, a line each. The defaults are for a small model on one GPU; on a CPU, pass
`--steps 2 --group 4 --tokens 64` to see it run.
"""

import argparse
import json

import torch
from datasets import Dataset
from trl import GRPOConfig

from reasonflux_prm.rl.monitor import Monitor
from reasonflux_prm.rl.shaping import Process
from reasonflux_prm.rl.trl_trainer import ProcessGRPOTrainer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("problems")
    parser.add_argument("-o", "--output", required=True)
    parser.add_argument("--prm", default="embedded", help="name, hub id, folder, or the address of a service")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=512)
    args = parser.parse_args()

    with open(args.problems, encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    data = Dataset.from_list(
        [{"prompt": [{"role": "user", "content": row["problem"]}], "answer": row["answer"]} for row in rows]
    )
    on_gpu = torch.cuda.is_available()
    trainer = ProcessGRPOTrainer(
        args.model,
        # Half of the advantage from the outcome, half from the steps; a trace is worth the mean of its steps, so that
        # writing more of them gains nothing by itself; thinking and response each have their own baseline.
        shaping=Process(beta=0.5, credit="mean", by_part=True),
        prm=args.prm,
        monitor=Monitor(),
        train_dataset=data,
        args=GRPOConfig(
            output_dir=args.output,
            max_steps=args.steps,
            num_generations=args.group,
            per_device_train_batch_size=args.group,
            gradient_accumulation_steps=8 if on_gpu else 1,
            max_completion_length=args.tokens,
            learning_rate=1e-6,
            beta=1e-3,
            bf16=on_gpu,
            use_cpu=not on_gpu,
            report_to="none",
            logging_steps=1,
        ),
    )
    trainer.train()
    trainer.save_model()


if __name__ == "__main__":
    main()
