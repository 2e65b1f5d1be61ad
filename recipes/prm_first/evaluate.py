"""What a PRM reaches on problems that training never saw, with intervals clustered by problem.

Step AUC and first errors on labelled steps, best-of-N on recorded candidates, right against wrong on whole traces, each
beside the trivial ways to do the same. The headline aggregate of a trace is the PRM's own (the embedded PRM's: mean
step reward + 1.0 * trajectory reward); others are in the report, and none was chosen here.

    python -m recipes.prm_first.evaluate --prm embedded --data DATA -o report.json

`DATA` holds the files of `SETS`. Scores are kept beside the report, in `report-scores/`: a run that was stopped goes
on, and a finished one is evaluated anew in seconds. Tables go to standard output, all numbers to the report.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from reasonflux_prm.evaluation import selection
from reasonflux_prm.evaluation.first_error import choose_threshold, hits, lowest, weighted_f1
from reasonflux_prm.evaluation.intervals import Interval, bootstrap, paired_difference
from reasonflux_prm.evaluation.metrics import LabelledSteps, labelled_steps, weighted_auc, weighted_mean
from reasonflux_prm.prm.base import PRM
from reasonflux_prm.prm.embedded.install import ensure_base
from reasonflux_prm.prm.load import DTYPES, load_prm
from reasonflux_prm.records import Part, ScoredTrace, Status, Step, Trace
from reasonflux_prm.scoring.aggregate import aggregate
from reasonflux_prm.scoring.engine import Engine, EngineSettings
from reasonflux_prm.scoring.run import Input, Progress, run_scoring
from reasonflux_prm.steps.split import GIVEN, RULES
from reasonflux_prm.traces.native import trace_row
from reasonflux_prm.traces.read import read_traces
from reasonflux_prm.traces.write import atomic_path, json_line, read_scored
from recipes.prm_first.tables import markdown
from recipes.prm_first.zero_shot import MeanLogProbability

LINES = "lines"
_LINE = re.compile(r"[^\n]*\S[^\n]*\n?")
Report = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One file, and what is asked of it."""

    name: str
    file: str
    kind: Literal["steps", "candidates", "traces"]
    steps: str
    """A step rule, or `lines`: each line of a text a step, as in GSM8K's own solutions and in training."""


SETS = (
    Benchmark("prmbench", "steps/prmbench.jsonl", "steps", GIVEN),
    Benchmark("mr_gsm8k", "steps/mr_gsm8k_first_error.jsonl", "steps", GIVEN),
    Benchmark("gsm8k", "bon/gsm8k_example_model_solutions.jsonl", "candidates", LINES),
    Benchmark("thought_anchors", "traces/math_thought_anchors.jsonl", "traces", "adaptive"),
    Benchmark("amc23", "bon/amc23_llama3b_think.jsonl", "candidates", "adaptive"),
    Benchmark("mip_gsm8k", "traces/mip_gsm8k.jsonl", "traces", "adaptive"),
)
"""PRMBench comes first: the threshold for MR-GSM8K's first errors is chosen on it."""


# --- scores --------------------------------------------------------------------------------------------------------


def prepare(test: Benchmark, data: Path, limit: int | None, share: float = 1.0) -> Iterator[Trace]:
    """Read a test set; traces that resample together get one `group`, and the steps are those that are scored.

    Below a share of 1, whole groups are left out by a hash of their name, which knows nothing of what is in them.
    """
    for trace in read_traces(data / test.file, limit=limit):
        # PRMBench's variants of a problem change its text, but share the end of their names.
        variant = f"{test.name}-{trace.meta.get('category')}_"
        name = trace.id.removeprefix(variant) if trace.id.startswith(variant) else trace.problem
        trace = replace(trace, group=trace.group or name)
        if zlib.crc32(str(trace.group).encode()) >= share * 2**32:
            continue
        yield replace(trace, steps=line_steps(trace)) if test.steps == LINES else trace


def line_steps(trace: Trace) -> tuple[Step, ...]:
    """Return each line that holds something as a step."""
    return tuple(
        Step(part, line.start(), line.end()) for part in get_args(Part) for line in _LINE.finditer(trace.text(part))
    )


def score(prm: PRM, test: Benchmark, args: argparse.Namespace) -> list[ScoredTrace]:
    """Score a test set, or take its scores from the disk."""
    folder = args.output.with_name(f"{args.output.stem}-scores")
    share = args.share.get(test.name, 1.0)
    stem = f"{test.name}-{test.steps}" + (f"-{args.limit}" if args.limit else "") + (f"-{share:g}" if share < 1 else "")
    prepared = folder / f"{stem}.jsonl"
    with atomic_path(prepared) as part:
        traces = list(prepare(test, args.data, args.limit, share))
        part.write_bytes(b"".join(json_line(trace_row(trace)) for trace in traces))
    started = time.monotonic()

    def show(_: Sequence[ScoredTrace], done: Progress) -> None:
        seconds, fresh = time.monotonic() - started, done.traces - done.resumed_traces
        print(
            f"{prm.spec.name} on {test.name}: {done.traces:,} of {len(traces):,} traces, "
            f"{seconds:.0f} s, {(len(traces) - done.traces) * seconds / fresh:.0f} s left",
            file=sys.stderr,
            flush=True,
        )

    rule = GIVEN if test.steps == LINES else test.steps
    identity = re.sub(r"\W+", "-", prm.spec.revision)[:25]
    output = folder / f"{stem}-{prm.spec.family}-{identity}.jsonl"
    run_scoring(Engine(prm, EngineSettings(steps=rule)), Input(str(prepared), format="native"), output, hook=show)
    return list(read_scored(output))


# --- labelled steps ------------------------------------------------------------------------------------------------


def report_steps(scored: Sequence[ScoredTrace], threshold: float | None) -> Report:
    """Evaluate step rewards against step labels.

    Args:
        scored: A test set.
        threshold: For first errors, chosen on another test set; None if there is none.
    """
    traces = labelled_steps(scored)
    return {
        **_step_auc(traces),
        "by_category": {
            name: _step_auc([t for t in traces if t.trace.trace.meta.get("category") == name])
            for name in sorted({str(t.trace.trace.meta.get("category")) for t in traces})
        },
        "first_error": _first_errors(traces, threshold),
    }


def _step_auc(traces: Sequence[LabelledSteps]) -> Report:
    rows = [(t, index, reward, label) for t in traces for index, reward, label in t.known()]
    labels = [label for *_, label in rows]
    clusters = _groups([t for t, *_ in rows])
    ways = {
        "prm": [reward for _, _, reward, _ in rows],
        "earlier": [-float(index) for _, index, _, _ in rows],
        "shorter": [-float(_length(t, index)) for t, index, _, _ in rows],
    }
    return {"traces": len(traces), "steps": len(rows), "wrong": labels.count(False), **_aucs(ways, labels, clusters)}


def _aucs(ways: Mapping[str, Sequence[float]], labels: Sequence[bool], clusters: Sequence[str | None]) -> Report:
    """Return the AUC of each way to score the same items, and how much higher the first is than each other."""
    if not labels:
        return {"auc": {}, "prm_minus": {}}
    statistics = {name: weighted_auc(scores, labels) for name, scores in ways.items()}
    return {
        "auc": {name: bootstrap(own, clusters) for name, own in statistics.items()},
        "prm_minus": {
            name: paired_difference(statistics["prm"], own, clusters)
            for name, own in statistics.items()
            if name != "prm"
        },
    }


def _length(trace: LabelledSteps, index: int) -> int:
    step = trace.trace.trace.steps[index]
    return step.stop - step.start


def _first_errors(traces: Sequence[LabelledSteps], chosen: float | None) -> Report:
    """Name the first wrong step: below 0.5, below a threshold from elsewhere, or the least reward if there is one."""
    rewards, firsts = [t.rewards for t in traces], [t.first_error for t in traces]
    wrong = [t for t in traces if t.first_error is not None]
    found: Report = {}
    for name, threshold in (("fixed", 0.5), ("chosen_on_prmbench", chosen)):
        if traces and threshold is not None:
            hit = hits(rewards, firsts, threshold)
            found[name] = {
                "threshold": threshold,
                "accuracy": bootstrap(weighted_mean(hit), _groups(traces)),
                "f1": bootstrap(weighted_f1(hit, firsts), _groups(traces)),
            }
    if wrong:
        for name, values in (
            ("lowest_reward", [float(lowest(t.rewards) == t.first_error) for t in wrong]),
            ("any_step_at_random", [1 / len(t.rewards) for t in wrong]),
        ):
            found[name] = {"accuracy": bootstrap(weighted_mean(values), _groups(wrong))}
    return found


def _groups(traces: Sequence[LabelledSteps]) -> list[str | None]:
    return [t.trace.trace.group for t in traces]


# --- candidates and traces -----------------------------------------------------------------------------------------


def report_candidates(
    scored: Sequence[ScoredTrace], nonnegative: bool, baseline: Sequence[ScoredTrace] | None
) -> Report:
    """Evaluate the choice among candidates.

    Args:
        scored: A test set.
        nonnegative: Whether the PRM's rewards are never negative: products and votes need that.
        baseline: The same candidates, scored by `MeanLogProbability`.
    """
    problems: dict[str | None, list[ScoredTrace]] = {}
    for candidate in scored:
        problems.setdefault(candidate.trace.group, []).append(candidate)
    zero_shot = {candidate.trace.id: candidate.reward for candidate in baseline or ()}
    rows = [_choices(own, nonnegative, zero_shot) for own in problems.values()]
    accuracy = {name: weighted_mean([row[name] for row in rows]) for name in rows[0]}
    clusters = list(problems)
    return {
        "problems": len(problems),
        "candidates": len(scored),
        "accuracy": {name: bootstrap(own, clusters) for name, own in accuracy.items()},
        "by_policy": _by_policy(scored),
        **{
            f"minus_{other}": {
                name: paired_difference(own, accuracy[other], clusters)
                for name, own in accuracy.items()
                if name != other
            }
            for other in ("pass@1", "majority")
        },
    }


def _choices(candidates: Sequence[ScoredTrace], nonnegative: bool, zero_shot: Mapping[str, float | None]) -> Report:
    """Return the expected correctness of each way to choose among the candidates of one problem."""
    correct = [candidate.trace.correct is True for candidate in candidates]
    preds = [candidate.trace.meta["pred"] for candidate in candidates]
    rewards = [candidate.reward for candidate in candidates]
    lengths = [float(len(candidate.trace.thinking + candidate.trace.response)) for candidate in candidates]
    found = {"prm": selection.highest(rewards, correct)}
    if nonnegative:
        found["prm_weighted_vote"] = selection.vote(preds, correct, rewards)
    found |= {
        "pass@1": selection.mean(correct),
        "majority": selection.vote(preds, correct),
        "shortest": selection.highest([-length for length in lengths], correct),
        "longest": selection.highest(lengths, correct),
        "oracle": selection.oracle(correct),
    }
    if zero_shot:
        found["zero_shot"] = selection.highest([zero_shot[c.trace.id] for c in candidates], correct)
    for name, how, alpha in _AGGREGATES:
        if nonnegative or how != "product":
            found[f"prm_{name}"] = selection.highest([_aggregate(c, how, alpha) for c in candidates], correct)
    found["prm_trajectory"] = selection.highest([c.trajectory_reward for c in candidates], correct)
    return found


def _by_policy(scored: Sequence[ScoredTrace]) -> Report:
    """Return pass@1 of each policy: a PRM that only knew who wrote a candidate would reach the best of them."""
    found: Report = {}
    for policy in sorted({str(t.trace.policy) for t in scored}):
        own = [t.trace for t in scored if str(t.trace.policy) == policy]
        found[policy] = bootstrap(weighted_mean([t.correct is True for t in own]), [t.group for t in own])
    return found


_AGGREGATES = (
    ("mean+trajectory", "mean", 1.0),
    ("mean", "mean", 0.0),
    ("min", "min", 0.0),
    ("product", "product", 0.0),
    ("last", "last", 0.0),
)


def _aggregate(candidate: ScoredTrace, how: str, alpha: float) -> float | None:
    return aggregate(candidate.step_rewards, candidate.trajectory_reward, how, alpha)


def report_traces(scored: Sequence[ScoredTrace]) -> Report:
    """Evaluate the reward of whole traces, right against wrong."""
    judged = [t for t in scored if t.reward is not None and t.trace.correct is not None]
    labels = [t.trace.correct is True for t in judged]
    ways = {
        "prm": [t.reward for t in judged if t.reward is not None],
        "shorter": [-float(len(t.trace.thinking)) for t in judged],
    }
    counts = {"traces": len(judged), "wrong": labels.count(False)}
    return {**counts, **_aucs(ways, labels, [t.trace.group for t in judged])}


# --- the report ----------------------------------------------------------------------------------------------------


def evaluate(args: argparse.Namespace) -> Report:
    """Score and evaluate the test sets."""
    prm = load_prm(args.prm, dtype=args.dtype, device=args.device)
    report: Report = {
        "schema": 1,
        "prm": asdict(Engine(prm).identity),
        "computed": {"dtype": str(prm.decoder.dtype), "device": prm.decoder.devices[0].type},
        "limit": args.limit,
        "share": args.share,
        "sets": {},
    }
    threshold: float | None = None
    for test in SETS:
        if test.name not in args.sets:
            continue
        if test.steps == LINES:
            test = replace(test, steps=args.bon_steps)
        scored = score(prm, test, args)
        if test.kind == "steps":
            found = report_steps(scored, threshold)
            threshold = _threshold(scored) if test.name == "prmbench" else threshold
        elif test.kind == "candidates":
            zero_shot = test.name == "gsm8k" and args.zero_shot
            plain = score(MeanLogProbability(ensure_base(), prm), test, args) if zero_shot else None
            found = report_candidates(scored, prm.spec.score_range[0] >= 0, plain)
        else:
            found = report_traces(scored)
        report["sets"][test.name] = {
            "file": test.file,
            "steps_rule": test.steps,
            "unscored": sum(t.status is not Status.SCORED for t in scored),
            "windowed": sum(t.overflow is not None for t in scored),
            **found,
        }
    return report


def _threshold(scored: Sequence[ScoredTrace]) -> float | None:
    """Choose the threshold for first errors; None if the traces (cut short by --limit) are not of both kinds."""
    traces = labelled_steps(scored)
    firsts = [t.first_error for t in traces]
    both = None in firsts and any(first is not None for first in firsts)
    return choose_threshold([t.rewards for t in traces], firsts) if both else None


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, write the report and print its tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prm", default="embedded", help="name or folder of the PRM")
    parser.add_argument("--data", type=Path, required=True, help="folder with steps/, bon/ and traces/")
    parser.add_argument("-o", "--output", type=Path, required=True, help="report, JSON")
    parser.add_argument("--limit", type=int, help="read so many records of each file")
    parser.add_argument(
        "--share",
        type=_share,
        nargs="+",
        default=[],
        metavar="SET=X",
        help="evaluate a share of a set's problems, chosen by a hash of their names",
    )
    parser.add_argument("--sets", nargs="+", choices=[test.name for test in SETS], default=[test.name for test in SETS])
    parser.add_argument("--bon-steps", choices=[LINES, *RULES], default=LINES, help="steps of GSM8K's candidates")
    parser.add_argument(
        "--zero-shot",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="score GSM8K's candidates with the base model's log-probability too, which takes as long as the PRM",
    )
    parser.add_argument("--dtype", choices=list(DTYPES))
    parser.add_argument("--device")
    args = parser.parse_args(argv)
    args.share = dict(args.share)
    report = evaluate(args)
    with atomic_path(args.output) as part:
        part.write_text(json.dumps(report, indent=1, default=_plain) + "\n", encoding="utf-8")
    print(markdown(report))


def _share(text: str) -> tuple[str, float]:
    name, _, number = text.partition("=")
    if name not in {test.name for test in SETS} or not 0 < float(number) <= 1:
        raise ValueError(text)
    return name, float(number)


def _plain(interval: object) -> Mapping[str, Any]:
    if not isinstance(interval, Interval):
        raise TypeError(f"cannot write {interval!r} to a report")
    return {key: round(value, 6) if isinstance(value, float) else value for key, value in asdict(interval).items()}


if __name__ == "__main__":
    main()
