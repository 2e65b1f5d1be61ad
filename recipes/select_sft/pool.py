"""A pool of think-then-respond traces on GSM8K train, of honest mixed quality.

- `reference`: the steps of the reference solution as thinking, its result as response.
- `corrupted`: the same with one step gone wrong and the rest following from it (`recipes.prm_first.corrupt`): fluent,
  of the same length, and wrong.
- `policy`: what a policy wrote, right or wrong: sampled here, shown the form by three worked examples, or read from a
  file of candidates that `reasonflux-prm evaluate gsm8k --policy` wrote.

Whether a trace is right is what the grader `numeric` says of its response. No test problem is read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

from reasonflux_prm.errors import PolicyError
from reasonflux_prm.grading.graders import open_grader
from reasonflux_prm.policy.base import Completion, Message, Policy, Request
from reasonflux_prm.records import Trace
from reasonflux_prm.traces.native import trace_row
from reasonflux_prm.traces.write import atomic_path, json_line
from recipes.demo_traces.sample import EXAMPLES, THINK
from recipes.prm_first.data import build_trees, result_counts

ROUND = 64
"""Problems that a policy is asked at once."""


def problems(file: Path, number: int | None, seed: int) -> list[dict[str, Any]]:
    """Return problems of GSM8K train (JSON lines with id, problem, answer, solution), drawn by the seed; None: all."""
    records = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    if any("train" not in str(record["id"]) for record in records[:10]):
        raise SystemExit(f"{file} does not look like GSM8K train; no test problem may be trained on")
    Random(seed).shuffle(records)
    return records[:number]


def answered_only(records: Sequence[dict[str, Any]], samples: Path) -> list[dict[str, Any]]:
    """Return the records that a file of candidates has samples of; it must hold nothing but problems of GSM8K train."""
    texts = {str(record["id"]): record["problem"].strip() for record in records}
    held = set()
    for row in _candidates(samples):
        if texts.get(str(row["id"])) != row["problem"].strip():
            raise SystemExit(
                f"{samples}: {row['id']} is no problem of GSM8K train, or not with that text; nothing else may be "
                "trained on"
            )
        held.add(str(row["id"]))
    return [record for record in records if str(record["id"]) in held]


def read_samples(samples: Path, records: Sequence[Mapping[str, Any]], n: int) -> Iterator[Trace]:
    """Yield at most `n` samples of each of the records from a file of candidates; those that were cut off are left out.

    Args:
        samples: What `reasonflux-prm evaluate gsm8k --policy` wrote as `*.candidates.jsonl`.
        records: Problems of GSM8K train.
        n: Samples of a problem, from the first on, those that were cut off counted.
    """
    wanted = {str(record["id"]): record for record in records}
    for row in _candidates(samples):
        record = wanted.get(str(row["id"]))
        for number, one in enumerate(row["candidates"][:n] if record else ()):
            completion = Completion(one["response"], one["thinking"], one["finish_reason"])
            if record and _ended(completion):
                yield _answered(record, completion, number, "policy")


def _candidates(samples: Path) -> Iterator[dict[str, Any]]:
    with samples.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def written(records: Sequence[Mapping[str, Any]], seed: int) -> Iterator[Trace]:
    """Yield the traces that need no policy: of each problem the reference, and a corrupted version."""
    for tree in build_trees(records, result_counts(records), seed):
        steps, final = tree["gold"], tree["final"]
        yield _trace(tree, "reference", steps, final)
        wrong = [branch for branch in tree["branches"] if branch["complete"] and not branch["label"]]
        if wrong:
            branch = wrong[0]
            *carried, ending = branch["steps"]
            yield _trace(tree, "corrupted", [*steps[: branch["at"]], *carried], ending)


def _trace(tree: Mapping[str, Any], kind: str, steps: Sequence[str], final: str) -> Trace:
    return Trace(
        f"{tree['id']}-{kind}",
        tree["problem"],
        tree["style"]["joiner"].join(steps),
        final,
        answer=str(tree["answer"]),
        source="gsm8k-train",
        policy=kind,
        group=tree["id"],
    )


def sampled(
    policy: Policy, records: Sequence[Mapping[str, Any]], n: int, max_tokens: int, seed: int
) -> Iterator[Trace]:
    """Yield what a policy writes; a sample that was cut off, or that a policy failed at, is left out."""
    shown = [
        message
        for problem, thinking, response in EXAMPLES
        for message in (Message("user", problem), Message("assistant", f"{THINK}{thinking}\n</think>\n{response}"))
    ]
    for start in range(0, len(records), ROUND):
        part = records[start : start + ROUND]
        requests = [
            Request((*shown, Message("user", record["problem"])), n, 0.7, 0.95, max_tokens, seed=seed, prefix=THINK)
            for record in part
        ]
        for record, outcome in zip(part, policy.generate(requests), strict=True):
            if isinstance(outcome, PolicyError):
                continue
            for number, completion in enumerate(outcome):
                if _ended(completion):
                    yield _answered(record, completion, number, policy.name)


def _ended(completion: Completion) -> bool:
    return bool(completion.finish_reason == "stop" and completion.thinking.strip() and completion.text.strip())


def _answered(record: Mapping[str, Any], completion: Completion, number: int, name: str) -> Trace:
    return Trace(
        f"{record['id']}-{name}-{number}",
        record["problem"],
        completion.thinking.strip(),
        completion.text.strip(),
        answer=str(record["answer"]),
        source="gsm8k-train",
        policy=name,
        group=record["id"],
    )


def write_pool(path: Path, traces: Iterator[Trace]) -> dict[str, list[int]]:
    """Grade traces and write them; return right and all, by who wrote them."""
    counts: dict[str, list[int]] = {}
    with open_grader("numeric") as grader, atomic_path(path) as part, part.open("wb") as stream:
        for trace in traces:
            right = grader.grade(trace.response, str(trace.answer)).right
            stream.write(json_line(trace_row(replace(trace, correct=right))))
            count = counts.setdefault(str(trace.policy), [0, 0])
            count[0] += right
            count[1] += 1
    return counts
