"""How likely a policy finds its own samples: the baseline that needs no reward model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from reasonflux_prm.evaluation.tasks.base import Problem
from reasonflux_prm.evaluation.tasks.prompts import ask_answer
from reasonflux_prm.policy.surprise import SurpriseReader
from reasonflux_prm.traces.write import atomic_path, json_line

_AT_ONCE = 512
"""Problems whose samples are read together, sorted by length."""


def add_logprobs(samples: Path, policy: Path, output: Path) -> None:
    """Write candidates with the column `logprob`: the mean log probability of a sample's tokens, at temperature 1.

    Args:
        samples: Candidates with `thinking` and `response`, as `samples.sample` writes them.
        policy: Folder of the policy that wrote them.
        output: Where to write; a file that is there is kept.
    """
    if output.exists():
        return
    reader = SurpriseReader(str(policy))
    rows = [json.loads(line) for line in samples.open(encoding="utf-8")]
    with atomic_path(output) as part, part.open("wb") as stream:
        for start in range(0, len(rows), _AT_ONCE):
            some = rows[start : start + _AT_ONCE]
            pairs = [_pair(reader, row, candidate) for row in some for candidate in row["candidates"]]
            readings = iter(reader.read(pairs))
            for row in some:
                for candidate in row["candidates"]:
                    reading = next(readings)
                    candidate["logprob"] = None if reading is None else -reading.surprisal / reading.tokens
                stream.write(json_line(row))


def _pair(reader: SurpriseReader, row: dict[str, Any], candidate: dict[str, Any]) -> tuple[str, str]:
    asked = ask_answer(Problem(row["id"], row["problem"], row["answer"]))
    text = candidate["response"]
    if candidate["thinking"]:
        text = f"<think>\n{candidate['thinking']}\n</think>\n\n{text}"
    pair = reader.in_chat(asked, {"role": "assistant", "content": text})
    return pair or ("", "")
