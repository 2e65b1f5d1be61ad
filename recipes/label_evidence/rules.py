"""What the rules judge sees, and whether it is right: on labelled steps, on whole traces, on reference solutions.

    python -m recipes.label_evidence.rules DATA/steps/mr_gsm8k_first_error.jsonl

A step without a checkable claim counts as good (quality 1). The judge's patterns were written against GSM8K train, the
solutions of MATH-500, the arithmetic part of BIG-Bench-Mistake, right candidates of all files in `bon/`, and right
traces of `mip_gsm8k`, `mip_math` and `math500_r1_family`. Flagged claims of the GSM8K test solutions were read once,
and led to two repairs. Figures on `mr_gsm8k_first_error`, `prmbench*` and `thought_anchors*` are its evidence: nothing
was changed for their rows.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from reasonflux_prm.evaluation.intervals import bootstrap
from reasonflux_prm.evaluation.metrics import weighted_auc, weighted_mean
from reasonflux_prm.labels.judges.rules import CLAIMS, FALSE, RulesJudge
from reasonflux_prm.records import SegmentedTrace, Trace
from reasonflux_prm.steps.split import GIVEN, split
from reasonflux_prm.traces.read import read_traces

ALL = "all"


@dataclass(frozen=True, slots=True)
class Judged:
    """One trace, the steps it was judged by, and what came of it."""

    trace: Trace
    steps: int
    quality: tuple[float | None, ...]
    claims: tuple[int, ...]
    false: tuple[int, ...]
    labels: tuple[float | None, ...]
    """1 a good step, 0 a wrong one, None where nobody looked; empty if no step is labelled."""


def measure(path: Path) -> dict[str, Any]:
    """Judge every trace of a file and compare the qualities with what the file knows.

    Args:
        path: Traces, labelled steps, or problems with a `solution` (read as a right response).

    Returns:
        For all traces, and for each `category` the file has: counts, shares and areas under the ROC curve, each of the
        latter two with its interval by problem.
    """
    judged = asyncio.run(_judge(list(_traces(path))))
    groups: defaultdict[str, list[Judged]] = defaultdict(list)
    for one in judged:
        groups[ALL].append(one)
        if one.trace.meta.get("category") is not None:
            groups[str(one.trace.meta["category"])].append(one)
    return {name: _report(group) for name, group in groups.items() if name == ALL or len(groups) > 2}


def _traces(path: Path) -> Iterator[SegmentedTrace]:
    with path.open(encoding="utf-8") as lines:
        first = json.loads(lines.readline())
    reference = "solution" in first and not {"response", "steps", "candidates"} & first.keys()
    for trace in read_traces(path, columns={"response": "solution"} if reference else None):
        if reference:
            trace = replace(trace, correct=True)
        yield split(trace, GIVEN if trace.steps else "blank-line")


async def _judge(traces: Sequence[SegmentedTrace]) -> list[Judged]:
    found = []
    with RulesJudge() as judge:
        for segmented in traces:
            terms = await judge.judge(segmented)
            labels = segmented.trace.step_labels if len(segmented.trace.step_labels) == len(terms) else ()
            found.append(
                Judged(
                    segmented.trace,
                    len(terms),
                    tuple(step["quality"].value for step in terms),
                    tuple(int(step[CLAIMS].value or 0) for step in terms),
                    tuple(int(step[FALSE].value or 0) for step in terms),
                    labels,
                )
            )
    return found


def _report(group: Sequence[Judged]) -> dict[str, Any]:
    steps = [(one, index) for one in group for index in range(one.steps)]
    report: dict[str, Any] = {
        "traces": len(group),
        "steps": len(steps),
        "claims": sum(sum(one.claims) for one in group),
        "false_claims": sum(sum(one.false) for one in group),
        "steps_with_claim": _share([one.claims[index] > 0 for one, index in steps], [one for one, _ in steps]),
    }
    if all(len(one.trace.meta.get("mc_value_after") or ()) == one.steps for one in group):
        report |= _on_values(steps)
    labelled = [(one, index) for one, index in steps if one.labels and one.labels[index] is not None]
    if labelled:
        report |= _on_steps(labelled)
    whole = [one for one in group if one.trace.correct is not None]
    if whole:
        report |= _on_traces(whole)
    return report


def _on_steps(labelled: Sequence[tuple[Judged, int]]) -> dict[str, Any]:
    """Compare with the labels of steps."""
    good = [(one, index) for one, index in labelled if one.labels[index] == 1]
    bad = [(one, index) for one, index in labelled if one.labels[index] == 0]
    erring = {one.trace.id: one for one, _ in bad}.values()
    hits = [_first(one.false) == one.labels.index(0) for one in erring]
    scores = [_scored(one.quality[index]) for one, index in labelled]
    labels = [float(one.labels[index] == 1) for one, index in labelled]
    claiming = [place for place, (one, index) in enumerate(labelled) if one.claims[index]]
    return {
        "wrong_steps_caught": _share([one.false[index] > 0 for one, index in bad], [one for one, _ in bad]),
        "good_steps_flagged": _share([one.false[index] > 0 for one, index in good], [one for one, _ in good]),
        "first_error_found": _share(hits, list(erring)),
        "step_auc": _auc(scores, labels, [one for one, _ in labelled]),
        "step_auc_where_claim": _auc(
            [scores[place] for place in claiming],
            [labels[place] for place in claiming],
            [labelled[place][0] for place in claiming],
        ),
    }


def _on_values(steps: Sequence[tuple[Judged, int]]) -> dict[str, Any]:
    """Compare with how the share of right continuations changes over a step (thought anchors)."""
    report: dict[str, Any] = {}
    for name, chosen in (
        ("value_change_at_false_claims", [(one, index) for one, index in steps if one.false[index]]),
        ("value_change_at_true_claims", [(o, i) for o, i in steps if o.claims[i] and not o.false[i]]),
    ):
        meta = [
            (one, one.trace.meta["mc_value_before"][index], one.trace.meta["mc_value_after"][index])
            for one, index in chosen
        ]
        changes = [(one, after - before) for one, before, after in meta if before is not None and after is not None]
        clusters = [one.trace.problem for one, _ in changes]
        report[name] = (
            asdict(bootstrap(weighted_mean([change for _, change in changes]), clusters)) if changes else None
        )
    return report


def _on_traces(whole: Sequence[Judged]) -> dict[str, Any]:
    """Compare with whether the final answer is right: a trace is as good as the share of its steps without fault."""
    right = [one for one in whole if one.trace.correct]
    wrong = [one for one in whole if not one.trace.correct]
    scores = [sum(map(_scored, one.quality)) / max(one.steps, 1) for one in whole]
    return {
        "right_traces_flagged": _share([any(one.false) for one in right], right),
        "wrong_traces_flagged": _share([any(one.false) for one in wrong], wrong),
        "trace_auc": _auc(scores, [float(bool(one.trace.correct)) for one in whole], whole),
    }


def _scored(quality: float | None) -> float:
    return 1.0 if quality is None else quality


def _first(false: Sequence[int]) -> int | None:
    return next((index for index, count in enumerate(false) if count), None)


def _share(hits: Sequence[bool], clusters: Sequence[Judged]) -> Mapping[str, Any] | None:
    if not hits:
        return None
    return asdict(bootstrap(weighted_mean([float(hit) for hit in hits]), [one.trace.problem for one in clusters]))


def _auc(scores: Sequence[float], labels: Sequence[float], clusters: Sequence[Judged]) -> Mapping[str, Any] | None:
    if len(set(labels)) < 2:
        return None
    return asdict(bootstrap(weighted_auc(scores, labels), [one.trace.problem for one in clusters]))


def main() -> None:
    """Print the report of each file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    for path in parser.parse_args().files:
        print(json.dumps({path.stem: measure(path)}, indent=1))


if __name__ == "__main__":
    main()
