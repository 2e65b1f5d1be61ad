"""The sets of the label evidence: real traces whose truth is known, as files that `reasonflux-prm label` reads.

    python -m recipes.label_evidence.sets DATA sets

- `thought_anchors`: thinking cut into sentences, each with its Monte-Carlo value, and the response of the same trace.
- `mr_gsm8k`, `prmbench`: solutions whose steps people have judged. They have no thinking and no response of its own, so
  the last step stands for the response, to give alignment something to align with.

Whole traces of reasoning models, and candidates, right and wrong, are labelled as they are; the README names them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from reasonflux_prm.steps.split import RULES

JSON = dict[str, Any]

JUDGED_STEPS = {"mr_gsm8k": "steps/mr_gsm8k_first_error.jsonl", "prmbench": "steps/prmbench.jsonl"}


def rows(path: Path) -> Iterator[JSON]:
    """Yield the records of a file."""
    with path.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def joined(parts: Sequence[str], separator: str) -> tuple[str, list[tuple[int, int]]]:
    """Return the parts as one text, and where each begins and ends, its separator included."""
    text, spans = "", []
    for index, part in enumerate(parts):
        piece = part if index == len(parts) - 1 else part + separator
        spans.append((len(text), len(text) + len(piece)))
        text += piece
    return text, spans


def spans_row(part: str, spans: Sequence[tuple[int, int]]) -> list[JSON]:
    """Return steps as our own format has them."""
    return [{"part": part, "start": start, "stop": stop} for start, stop in spans]


def adaptive_spans(text: str) -> list[tuple[int, int]]:
    """Return where our own rule cuts a text."""
    return [*pairwise([0, *RULES["adaptive"](text)])]


def thought_anchors(data: Path) -> Iterator[JSON]:
    """Yield each trace with its sentences as given steps and `mc_before`, `mc_after` a sentence."""
    responses = {row["id"]: row["response"] for row in rows(data / "traces/math_thought_anchors.jsonl")}
    for row in rows(data / "steps/thought_anchors_mc_values.jsonl"):
        thinking, spans = joined(row["steps"], " ")
        response = responses[row["id"].replace("ta-r1d-", "ta-")]
        yield {
            "id": row["id"],
            "problem": row["problem"],
            "thinking": thinking,
            "response": response,
            "answer": row["answer"],
            "correct": row["final_correct"],
            "steps": spans_row("thinking", spans)
            + spans_row("response", [*pairwise([0, *RULES["adaptive"](response)])]),
            "mc_before": row["mc_value_before"],
            "mc_after": row["mc_value_after"],
        }


def judged_steps(path: Path) -> Iterator[JSON]:
    """Yield each solution with the last of its steps as the response; solutions of one step are left out."""
    for row in rows(path):
        *before, last = row["steps"]
        if not before:
            continue
        thinking, spans = joined(before, "\n")
        yield {
            "id": row["id"],
            "problem": row["problem"],
            "thinking": thinking,
            "response": last,
            "answer": row.get("answer"),
            "correct": row.get("final_correct"),
            "category": row["category"],
            "steps": spans_row("thinking", spans) + spans_row("response", [(0, len(last))]),
            "step_labels": row["labels"] or [None] * len(row["steps"]),
        }


def write(records: Iterator[Mapping[str, Any]], path: Path) -> int:
    """Write records as JSON lines and return how many."""
    count = 0
    with path.open("w", encoding="utf-8") as out:
        for record in records:
            out.write(json.dumps(record, ensure_ascii=False) + "\n")
            count += 1
    return count


def main() -> None:
    """Write the sets that need another form."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the folder with steps/, traces/ and bon/")
    parser.add_argument("output", type=Path)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    made = {"thought_anchors": thought_anchors(args.data)}
    made |= {name: judged_steps(args.data / path) for name, path in JUDGED_STEPS.items()}
    for name, records in made.items():
        print(f"{args.output / name}.jsonl: {write(records, args.output / f'{name}.jsonl'):,} traces")


if __name__ == "__main__":
    main()
