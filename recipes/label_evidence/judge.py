r"""A small judge, taught to review steps whose truth is known: a stand-in where no model that can judge is at hand.

    python -m recipes.label_evidence.judge make TREES.jsonl -o rows.jsonl
    python -m recipes.label_evidence.judge teach rows.jsonl -o JUDGE --tokens 27000
    python -m recipes.label_evidence.judge part sets/mr_gsm8k.jsonl -o TRACES.jsonl --traces 80 --most-steps 6
    reasonflux-prm label TRACES.jsonl -o LABELS.jsonl --steps given --quality llm --judge local:JUDGE ...
    python -m recipes.label_evidence.judge measure LABELS.jsonl ... -o judge.json

A row's prompt is what the judge `llm` sends for a whole trace, taken down where a policy receives it; its completion is
a review that the same judge has read, and that gave every step the scores it was meant to. The traces are

- problems of GSM8K's training split with errors put in (TREES, by `recipes.prm_first.data`); those that
  `recipes.prm_135m.gold` sets aside are left out;
- sums as `rollouts.py` makes them, of four to seven numbers and from other seeds; the sums that it evaluates are left
  out.

A right step gets 1 throughout. The first wrong one gets 0; one that carries an error on is wrong, but coherent, as the
prompt has it. A review's `note` is the calculation as it should be, and stands in front of the scores, so that the
judge calculates before it scores; readers of JSON do not mind the order.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

from reasonflux_prm.labels.files import read_labelled
from reasonflux_prm.labels.judges.base import QUALITY
from reasonflux_prm.labels.judges.llm import LLMJudge
from reasonflux_prm.labels.judges.llm_reply import CRITERIA, OVERALL
from reasonflux_prm.policy.scripted import ScriptedPolicy
from reasonflux_prm.records import LabelledTrace, Step, Trace
from reasonflux_prm.steps.split import split
from reasonflux_prm.traces.native import native
from recipes.label_evidence.measure import (
    HALF,
    JSON,
    Known,
    auc,
    first_error,
    judged,
    mean_auc,
    problem,
    step_auc,
    term,
)
from recipes.label_evidence.rollouts import sums
from recipes.label_evidence.sets import rows as read_rows
from recipes.label_evidence.sets import write
from recipes.prm_135m.gold import is_dev, traces_of

EVALUATED = {"problems": 40, "terms": 4, "seed": 0}
"""The sums of the rollout evidence, `rollouts make` without options: none of them is learnt from."""

RIGHT = dict.fromkeys(CRITERIA, 1.0)
FIRST_WRONG = dict.fromkeys(CRITERIA, 0.0)
CARRIED_ON = {**FIRST_WRONG, "coherence": 1.0, OVERALL: 0.2}

_MARK = re.compile(r"with the mark ([0-9a-f]{16})\.")
_NOTE = re.compile(r"\bjudge: (.*)")
_TIMES = {r"\times": "*", "×": "*", " x ": " * "}
_PIECE = re.compile(r"\d[\d,]*(?:\.\d+)?%?|\.\d+|[-+*/()]")
_STATED = re.compile(r"-?\d[\d,]*(?:\.\d+)?%?")


# --- the truth as a review -----------------------------------------------------------------------------------------


def calculation(step: str) -> str:
    """Return the last calculation of a step without its words, `40 - 4 = 36`; else its last number, if it has one."""
    plain = re.sub(r"<<[^<>]*>>", "", step).replace("$", "").replace("\\%", "%")
    for sign, plainly in _TIMES.items():
        plain = plain.replace(sign, plainly)
    *before, behind = plain.split("=")
    result = _STATED.search(behind) if before else None
    if result is None:
        numbers = _STATED.findall(plain)
        return numbers[-1].rstrip(",") if numbers else ""
    pieces: list[str] = []
    for piece in reversed(_PIECE.findall(before[-1])):
        if pieces and piece[-1] in "0123456789%)" and pieces[0][0] in "0123456789.(":
            break  # two numbers in a row: the one in front stands in the words
        if not (piece in "+-*/" and (not pieces or pieces[0] in "+-*/")):  # `hours / week * 2`
            pieces.insert(0, piece)
    expression = " ".join(pieces).lstrip("+*/ ")
    stated = result[0].rstrip(",")
    return f"{expression} = {stated}" if expression else stated


def scores(labels: Sequence[float | None]) -> list[Mapping[str, float]]:
    """Return what a review should say of steps with these labels, 1 right and 0 wrong."""
    first = labels.index(0.0) if 0.0 in labels else len(labels)
    return [RIGHT if label else FIRST_WRONG if step == first else CARRIED_ON for step, label in enumerate(labels)]


def review(mark: str, notes: Sequence[str], said: Sequence[Mapping[str, float]]) -> str:
    """Write a review: the form that the prompt asks for, each note in front of its scores."""
    entries = [
        {"step": step, "note": note, **{name: int(value) if value in (0, 1) else value for name, value in one.items()}}
        for step, (note, one) in enumerate(zip(notes, said, strict=True), 1)
    ]
    return json.dumps({"review": mark, "scores": entries}, ensure_ascii=False)


def row(trace: Trace, notes: Sequence[str]) -> JSON:
    """Return a trace as a training row, and see to it that the judge reads the completion as it is meant."""
    said = scores(trace.step_labels)
    policy = ScriptedPolicy(lambda request: review(mark_in(request.messages[-1].content), notes, said))
    terms = asyncio.run(LLMJudge(policy).judge(split(trace, "given")))
    read = [
        {OVERALL: one[QUALITY].value} | {name: one[f"{QUALITY}_{name}"].value for name in CRITERIA if name != OVERALL}
        for one in terms
    ]
    assert read == [dict(one) for one in said], f"{trace.id}: the judge reads {read}, and was to read {said}"
    (request,) = policy.requests
    return {
        "id": trace.id,
        "problem": trace.problem,
        "prompt": [{"role": message.role, "content": message.content} for message in request.messages],
        "completion": [
            {"role": "assistant", "content": review(mark_in(request.messages[-1].content), notes, said)},
        ],
    }


def mark_in(question: str) -> str:
    """Return the mark that a request of the judge names."""
    found = _MARK.search(question)
    assert found, f"the judge's request names no mark: {question[:80]!r}"
    return found[1]


# --- traces --------------------------------------------------------------------------------------------------------


def changed_solutions(trees: Path, problems: int, rng: Random) -> Iterator[JSON]:
    """Yield, of so many problems, a trace that leaves the right one, drawn, and the right one as far as it goes."""
    taken = 0
    for line in trees.open(encoding="utf-8"):
        tree = json.loads(line)
        branches = [branch for branch in tree["branches"] if branch["kind"] != "repeat"]  # true, and no progress
        if taken == problems:
            return
        if is_dev(tree["id"]) or not branches:
            continue
        taken += 1
        gold, wrong = [*tree["gold"], tree["final"]], rng.choice(branches)
        for branch in (_kept_to(gold, wrong), wrong):
            *_, trace = traces_of({**tree, "branches": [branch]}, 1, rng)
            texts = [text_of(trace, step) for step in trace.steps]
            own = zip(texts, gold, trace.step_labels, strict=False)  # a trace may break off
            yield row(trace, [calculation(text if label else meant) for text, meant, label in own])


def _kept_to(gold: Sequence[str], wrong: Mapping[str, Any]) -> JSON:
    """Return the branch that stays right and ends where `wrong` does, so that a trace's length tells nothing."""
    stop = wrong["at"] + len(wrong["steps"])
    return {"at": stop - 1, "steps": gold[stop - 1 : stop], "complete": wrong["complete"], "label": 1, "kind": "right"}


def text_of(trace: Trace, step: Step) -> str:
    """Return the text of a step."""
    return (trace.thinking if step.part == "thinking" else trace.response)[step.start : step.stop]


def other_sums(problems: int, seed: int) -> Iterator[JSON]:
    """Yield the right and the wrong trace of so many sums of four to seven numbers, none of them evaluated."""
    left_out = {one["problem"] for one in sums(**EVALUATED)}
    for terms in range(4, 8):
        number = (problems + terms - 4) // 4
        made = [native(one, "sums")[0] for one in sums(number, terms, seed + terms)]
        for right, wrong in zip(made[::2], made[1::2], strict=True):
            if right.problem not in left_out:
                notes = [calculation(text_of(right, step)) for step in right.steps]
                yield from ({**row(trace, notes), "id": f"{terms}-{trace.id}"} for trace in (right, wrong))


def part(path: Path, traces: int, most_steps: int) -> list[JSON]:
    """Return so many of the traces that have at most so many steps, by a hash of their problems alone."""
    short = [one for one in read_rows(path) if len(one["steps"]) <= most_steps]
    return sorted(short, key=lambda one: zlib.crc32(one["problem"].encode()))[:traces]


# --- what came of it -----------------------------------------------------------------------------------------------


def measure(path: Path) -> JSON:
    """Return how much of a label file has a value, why the rest has none, and how well values tell right from wrong."""
    traces = list(read_labelled(path))
    names = sorted({name for one in traces for terms in one.step_terms for name in terms})
    names = [name for name in names if name.startswith(QUALITY) and not name.endswith("_spread")]
    methods = {name: term(name) for name in names} | {"quality, silence 0.5": term(QUALITY, 0.5)}
    methods["earlier step"] = lambda labelled: [-float(place) for place in range(len(labelled.steps))]
    methods["the note is what the step says"] = agreement
    known = Known(traces, {name: [method(one) for one in traces] for name, method in methods.items()})
    report: JSON = {"traces": len(traces), "steps": sum(len(one.steps) for one in traces)}
    report["sides"] = {name: sides(traces, name) for name in names}
    report["unread"] = Counter(reason for one in traces for reason in reasons(one)).most_common(12)
    report["step_auc"] = step_auc(known, judged)
    report["step_auc_within_trace"] = {name: within(traces, known.values[name]) for name in methods}
    report["step_auc_by_place"] = {name: by_place(traces, known.values[name]) for name in names}
    report["first_error"] = first_error(known)
    return report


def sides(traces: Sequence[LabelledTrace], name: str) -> JSON:
    """Return how many right and wrong steps a term calls good (above 0.5), bad, or neither, and how many it leaves."""
    count = {kind: Counter[str](good=0, neither=0, bad=0, untold=0) for kind in ("right", "wrong")}
    for labelled in traces:
        for terms, right in zip(labelled.step_terms, judged(labelled), strict=True):
            if right is not None:
                value = terms[name].value if name in terms else None
                side = "untold" if value is None else "good" if value > HALF else "bad" if value < HALF else "neither"
                count["right" if right else "wrong"][side] += 1
    return {kind: dict(found) for kind, found in count.items()}


def agreement(labelled: LabelledTrace) -> list[float | None]:
    """Return 1 where the calculation in the judge's note is the step's own, 0 where it is another, None without one."""
    found: list[float | None] = []
    for step, terms in zip(labelled.steps, labelled.step_terms, strict=True):
        note = next(iter(_NOTE.findall(terms.get(f"{QUALITY}_llm", terms[QUALITY]).reason or "")), None)
        found.append(None if note is None else float(note == calculation(text_of(labelled.trace, step))))
    return found


def by_place(traces: Sequence[LabelledTrace], values: Sequence[Sequence[float | None]]) -> JSON:
    """Return the area among the first steps of traces, among the second ones, ...: there the place says nothing."""
    report: JSON = {}
    for place in range(max(len(one.steps) for one in traces)):
        rows = [
            (own[place], judged(labelled)[place], problem(labelled))
            for labelled, own in zip(traces, values, strict=True)
            if len(own) > place and own[place] is not None and judged(labelled)[place] is not None
        ]
        report[f"{place + 1}"] = auc(*(list(column) for column in zip(*rows, strict=True))) if rows else None
    return report


def reasons(labelled: LabelledTrace) -> Iterator[str]:
    """Yield why steps have no quality, numbers left out."""
    for terms in labelled.step_terms:
        if terms[QUALITY].value is None:
            yield re.sub(r"\d+(?:\.\d+)?", "N", terms[QUALITY].reason or "")


def within(traces: Sequence[LabelledTrace], values: Sequence[Sequence[float | None]]) -> JSON | None:
    """Return the mean area within a trace that has right and wrong steps: which step is wrong, and not which trace."""
    rows = [
        (value, right, labelled.trace.id)
        for labelled, own in zip(traces, values, strict=True)
        for value, right in zip(own, judged(labelled), strict=True)
        if value is not None and right is not None
    ]
    return mean_auc(*(list(column) for column in zip(*rows, strict=True))) if rows else None


def main() -> None:
    """Make rows, teach the judge, take a part of a set, or measure labels."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    making = parts.add_parser("make")
    making.add_argument("trees", type=Path)
    making.add_argument("-o", "--output", type=Path, required=True)
    making.add_argument("--gsm8k", type=int, default=100, help="problems of GSM8K train; two rows each")
    making.add_argument("--sums", type=int, default=100, help="sums; two rows each")
    making.add_argument("--seed", type=int, default=1000)
    teaching = parts.add_parser("teach")
    teaching.add_argument("rows", type=Path)
    teaching.add_argument("-o", "--output", type=Path, required=True)
    teaching.add_argument("--base", type=Path, help="folder of the model to teach; default the embedded PRM's base")
    teaching.add_argument("--tokens", type=int, required=True, help="of completions")
    teaching.add_argument("--seed", type=int, default=0)
    taking = parts.add_parser("part")
    taking.add_argument("set", type=Path, help="a file that `sets.py` wrote")
    taking.add_argument("-o", "--output", type=Path, required=True)
    taking.add_argument("--traces", type=int, required=True)
    taking.add_argument("--most-steps", type=int, required=True)
    measuring = parts.add_parser("measure")
    measuring.add_argument("labels", nargs="+", type=Path)
    measuring.add_argument("-o", "--output", type=Path, required=True)
    args: Any = parser.parse_args()
    if args.part == "make":
        rows = [*changed_solutions(args.trees, args.gsm8k, Random(args.seed)), *other_sums(args.sums, args.seed)]
        print(f"{args.output}: {write(iter(rows), args.output)} rows")
    elif args.part == "part":
        print(f"{args.output}: {write(iter(part(args.set, args.traces, args.most_steps)), args.output)} traces")
    elif args.part == "teach":
        teach_judge(args.rows, args.output, args.base, args.tokens, args.seed)
    else:
        report = {path.name.split(".")[0]: measure(path) for path in args.labels}
        args.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        print(json.dumps(report, indent=1))


def teach_judge(rows: Path, output: Path, base: Path | None, tokens: int, seed: int) -> None:
    """Teach the judge by LoRA; what all prompts begin with is read once for the rows that are computed at once."""
    from reasonflux_prm.prm.embedded.install import ensure_base
    from recipes.student.sft import SFTSettings, teach

    taught = [json.loads(line) for line in rows.open(encoding="utf-8")]
    taught = [{name: one[name] for name in ("prompt", "completion")} for one in taught]
    settings = SFTSettings(tokens, seed, batch=4, at_once=4, learning_rate=1e-3, longest=1200, prompt_once=True)
    print(json.dumps(teach(base or ensure_base(), taught, output, settings)))


if __name__ == "__main__":
    main()
