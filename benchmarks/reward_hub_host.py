"""Runs in reward-hub's environment, without this project: its Hugging Face PRM, loaded once, scores when it is told to.

    python reward_hub_host.py MODEL

MODEL is one of the hub names that reward-hub knows; a folder of that name under the working directory is what
transformers then loads. Standard input: one JSON object a line, with `dtype`, `conversations` and `separator`.
Standard output: first what was loaded, then for each line the time it took and the scores of every step.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import sys
import time
from typing import Any


def main() -> None:
    """Answer until standard input ends."""
    # Libraries print to standard output; the answers get a copy of it, and everything else goes to standard error.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    import torch

    hub = importlib.import_module("reward_hub")  # no import statement: types are checked where it is not installed

    def load(dtype: str) -> Any:
        model = hub.AutoRM.load(sys.argv[1], load_method="hf", device="cpu")
        if dtype != "as-is":
            model.model.to(getattr(torch, dtype))
        return model

    models: dict[str, Any] = {"as-is": load("as-is")}
    versions = {name: importlib.metadata.version(name) for name in ("reward-hub", "transformers", "torch")}
    about = {"versions": versions, "dtype": str(models["as-is"].model.dtype), "threads": torch.get_num_threads()}
    print(json.dumps(about), file=answers, flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        if job["dtype"] not in models:
            models[job["dtype"]] = load(job["dtype"])
        wall, processor = time.perf_counter(), time.process_time()
        results = models[job["dtype"]].score(
            job["conversations"], step_separator=job["separator"], return_full_prm_result=True
        )
        answer: dict[str, Any] = {"wall_s": time.perf_counter() - wall, "processor_s": time.process_time() - processor}
        answer["scores"] = [result.step_scores for result in results]
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
