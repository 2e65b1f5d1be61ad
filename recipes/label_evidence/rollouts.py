r"""Do rollout values tell right prefixes from wrong ones? Sums, which a small policy can do, and whose truth is known.

    python -m recipes.label_evidence.rollouts make sums.jsonl
    for way in "" --rollout-search; do
        reasonflux-prm label sums.jsonl -o sums$way-labels.jsonl --steps given --quality rollout $way \
            --solver local:FOLDER --rollout-own-words --rollouts 8 --max-tokens 48 \
            --trajectory none --grader numeric --alignment none --no-coherence
    done
    python -m recipes.label_evidence.rollouts measure sums-labels.jsonl sums--rollout-search-labels.jsonl -o sums.json

Each problem is a sum of one-digit numbers and has two traces, one right and one with a slip: from a step on, the
running total is one to three too high or too low, and what follows is added rightly to it. So a prefix is right in
front of the slip and wrong from it on, whatever a policy makes of it. Measured, with 95% intervals bootstrapped by
problem:

- the area under the ROC curve of the value of every prefix, right against wrong, beside that of the step's place; and
  among prefixes of the same number of steps, where the place says nothing;
- how often the first prefix without a continuation that ends right is the slip, by all prefixes and by binary search,
  and how often every prefix has a value (a search gives none where the policy does not solve the bare problem);
- the prefixes that each of the two had continued.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from reasonflux_prm.labels.files import read_labelled
from reasonflux_prm.records import LabelledTrace
from recipes.label_evidence.measure import JSON, auc, judged, mean, problem
from recipes.label_evidence.sets import spans_row, write

MEASURED = "quality_measured"
"""The term that a binary search gives where it looked."""


def sums(problems: int, terms: int, seed: int) -> Iterator[JSON]:
    """Yield a right and a wrong trace of each problem, as `reasonflux-prm label` reads them."""
    rng = random.Random(seed)
    for number in range(problems):
        added = [rng.randint(2, 9) for _ in range(terms)]
        question = f"What is {' + '.join(map(str, added))}?"
        slip, by = rng.randrange(terms - 1), rng.choice([-3, -2, -1, 1, 2, 3])
        for name, place in (("right", None), ("wrong", slip)):
            steps = list(additions(added, place, by))
            spans = [*pairwise(accumulate(map(len, steps), initial=0))]
            yield {
                "id": f"sum-{number}-{name}",
                "problem": question,
                "thinking": "".join(steps),
                "response": "",
                "answer": str(sum(added)),
                "correct": place is None,
                "steps": spans_row("thinking", spans),
                "step_labels": [float(place is None or step < place) for step in range(len(steps))],
            }


def additions(added: Sequence[int], slip: int | None, by: int) -> Iterator[str]:
    """Yield the steps that add numbers one by one; the step `slip` is `by` off."""
    total = added[0]
    for step, term in enumerate(added[1:]):
        result = total + term + (by if step == slip else 0)
        yield f"{total} + {term} = {result}.\n\n"
        total = result


# --- what came of it -----------------------------------------------------------------------------------------------


def prefixes(traces: Sequence[LabelledTrace]) -> JSON:
    """Return how well the values of all prefixes tell right from wrong."""
    rows = [
        (terms["quality"].value, -float(place), right, problem(labelled))
        for labelled in traces
        for place, (terms, right) in enumerate(zip(labelled.step_terms, judged(labelled), strict=True))
        if terms["quality"].value is not None and right is not None
    ]
    values, places, rights, clusters = (list(column) for column in zip(*rows, strict=True))
    report: JSON = {"auc": auc(values, rights, clusters), "auc_earlier_step": auc(places, rights, clusters)}
    report["auc_by_steps"] = {}
    for place in sorted(set(places), reverse=True):
        alike = [(value, right, cluster) for value, there, right, cluster in rows if there == place]
        report["auc_by_steps"][f"{1 - place:.0f}"] = auc(*(list(column) for column in zip(*alike, strict=True)))
    for name, kind in (("right", True), ("wrong", False)):
        kept = [(value, cluster) for value, _, right, cluster in rows if right is kind]
        report[f"mean_value_{name}"] = mean(*(list(column) for column in zip(*kept, strict=True))) if kept else None
    return report


def told(labelled: LabelledTrace) -> float:
    """Return 1 if every prefix has a value; a search has none where the policy does not solve the bare problem."""
    return float(all(terms["quality"].value is not None for terms in labelled.step_terms))


def found(labelled: LabelledTrace) -> float:
    """Return 1 if the first prefix that no continuation brings to the right end is the slip, or there is neither."""
    lost = [place for place, terms in enumerate(labelled.step_terms) if terms["quality"].value == 0]
    wrong = [place for place, right in enumerate(judged(labelled)) if right is False]
    return told(labelled) * float(lost[:1] == wrong[:1])


def looked_at(labelled: LabelledTrace) -> int:
    """Return how many prefixes were continued; a search looks at the bare problem as well."""
    if not any(MEASURED in terms for terms in labelled.step_terms):
        return len(labelled.steps)
    return 1 + sum(terms[MEASURED].value is not None for terms in labelled.step_terms)


def first_errors(traces: Sequence[LabelledTrace]) -> JSON:
    """Return how often the first error is found, and at what cost."""
    clusters = [problem(labelled) for labelled in traces]
    report: JSON = {
        "told": mean([told(labelled) for labelled in traces], clusters),
        "found": mean([found(labelled) for labelled in traces], clusters),
    }
    for name in ("right", "wrong"):
        some = [labelled for labelled in traces if labelled.trace.correct is (name == "right")]
        report[f"found_{name}"] = mean([found(labelled) for labelled in some], [problem(one) for one in some])
    return {**report, "prefixes_a_trace": mean([float(looked_at(labelled)) for labelled in traces], clusters)}


def measure(full: Path, search: Path) -> JSON:
    """Return the report of two label files of the same traces."""
    by_all, by_search = list(read_labelled(full)), list(read_labelled(search))
    assert [one.trace.id for one in by_all] == [one.trace.id for one in by_search]
    return {
        "traces": len(by_all),
        "prefixes": prefixes(by_all),
        "first_error": {"all prefixes": first_errors(by_all), "binary search": first_errors(by_search)},
    }


def main() -> None:
    """Write the sums, or measure what became of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    making = parts.add_parser("make")
    making.add_argument("output", type=Path)
    making.add_argument("--problems", type=int, default=40)
    making.add_argument("--terms", type=int, default=4, help="numbers of a sum; a trace has one step fewer")
    making.add_argument("--seed", type=int, default=0)
    measuring = parts.add_parser("measure")
    measuring.add_argument("full", type=Path)
    measuring.add_argument("search", type=Path)
    measuring.add_argument("-o", "--output", type=Path, required=True)
    args: Any = parser.parse_args()
    if args.part == "make":
        print(f"{args.output}: {write(sums(args.problems, args.terms, args.seed), args.output)} traces")
        return
    report = measure(args.full, args.search)
    args.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
