"""The flags of `select`, and the settings they are turned into."""

from __future__ import annotations

import argparse
from typing import Any, Final

from reasonflux_prm.cli.options import columns, count
from reasonflux_prm.grading.graders import NAMES as GRADERS
from reasonflux_prm.scoring.aggregate import AGGREGATIONS
from reasonflux_prm.selection.export import FORMS, Export
from reasonflux_prm.selection.settings import (
    BY,
    COVERAGES,
    MEASURES,
    NGRAM,
    PARTS,
    Bounds,
    Diversity,
    Filters,
    Selection,
    Student,
)
from reasonflux_prm.selection.templates import TEMPLATES
from reasonflux_prm.traces.formats import FORMATS
from reasonflux_prm.traces.read import FIELDS
from reasonflux_prm.traces.resumable import Input

DTYPES: Final = ("float32", "bfloat16", "float16")
"""As `policy.surprise.DTYPES`, which would import transformers."""
_NEAR: Final = 0.8


def add_select_flags(parser: argparse.ArgumentParser) -> None:
    """Add them all."""
    _add_choice(parser.add_argument_group("which traces"))
    _add_filters(parser.add_argument_group("what is left out, whatever its rank"))
    _add_student(parser.add_argument_group("the student, and diversity"))
    _add_rows(parser.add_argument_group("what is written"))
    _add_pool(parser.add_argument_group("input"))


def _add_choice(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--by",
        choices=BY,
        metavar="ORDER",
        help="the rank: reward; response-reward (of the response's steps alone); random; longest or shortest (thinking "
        "and response, in characters); correct (right ones, at random); student (by --student alone); ids (the list of "
        "--ids); default reward",
    )
    group.add_argument("--ids", metavar="FILE", help="keep these: a .txt file with an id a line, or records with an id")
    group.add_argument("--top", type=count, metavar="K", help="keep the K best")
    group.add_argument(
        "--share", type=float, metavar="X", help="keep this share of what is left of the pool, in (0, 1]"
    )
    group.add_argument("--threshold", type=float, metavar="X", help="keep rewards of at least X")
    group.add_argument(
        "--per",
        action="append",
        type=_quota,
        default=[],
        metavar="COLUMN=N",
        help="at most N of each problem, source, policy, or value of another column; can be repeated",
    )
    group.add_argument("--prm", metavar="NAME[@REVISION]", help="the PRM whose rewards count, where there are several")
    group.add_argument(
        "--alpha", type=float, metavar="X", help="make the rewards anew: weight of the trajectory reward"
    )
    group.add_argument(
        "--aggregation", choices=tuple(AGGREGATIONS), metavar="NAME", help=f"the same: {', '.join(AGGREGATIONS)}"
    )
    group.add_argument("--seed", type=int, default=0, metavar="N", help="of the random order, and of ties; default 0")


def _add_filters(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--correct", action="store_true", help="traces whose final answer is wrong, or not judged")
    group.add_argument(
        "--grader", choices=GRADERS, help="judges the traces that have a reference answer and no recorded verdict"
    )
    group.add_argument("--unfinished", action="store_true", help="keep thinking without an end, and empty responses")
    for measure in MEASURES:
        group.add_argument(
            f"--{measure}", type=_bounds, metavar="LOW:HIGH", help=f"{measure.replace('-', ' ')} outside these bounds"
        )
    group.add_argument("--tokenizer", metavar="HUB_ID|FOLDER", help="counts tokens; take the student's")
    group.add_argument(
        "--decontaminate",
        action="append",
        default=[],
        metavar="BENCHMARK",
        help="traces that share an n-gram with a problem of it: a task of `evaluate` (gsm8k, math500, ...), NAME=FILE, "
        "or a file of problems; can be repeated",
    )
    group.add_argument("--ngram", type=count, default=NGRAM, metavar="N", help=f"words of an n-gram; default {NGRAM}")
    group.add_argument(
        "--decontaminate-all", action="store_true", help="look into thinking and response too, not the problem alone"
    )
    group.add_argument("--keep-duplicates", action="store_true", help="keep traces whose text another one has too")
    group.add_argument(
        "--near-duplicates",
        nargs="?",
        type=float,
        const=_NEAR,
        metavar="X",
        help="traces that share X of their 5-word shingles with a better one (Jaccard similarity); "
        f"{_NEAR} if X is left out",
    )


def _add_student(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--student", metavar="HUB_ID|FOLDER", help="a causal model; how well traces suit it counts")
    group.add_argument(
        "--student-weight", type=float, metavar="X", help="the student's share of the score, in [0, 1]; default 0.5"
    )
    group.add_argument("--student-dtype", choices=DTYPES, help="default float32")
    group.add_argument("--diversity", choices=COVERAGES, help="of the best, take those that cover the others")
    group.add_argument("--diversity-of", choices=PARTS, help="what is compared; default problem")
    group.add_argument("--encoder", metavar="NAME|HUB_ID|FOLDER", help="of --diversity; default embedded")
    group.add_argument("--device", metavar="DEVICE", help="of student and encoder; default a GPU if there is one")
    group.add_argument(
        "--candidates",
        type=count,
        metavar="N",
        help="the N best alone are read by the student, and chosen among by --diversity; default all, and 10 for each "
        "that is to be kept",
    )


def _add_rows(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--format", default="messages", choices=FORMS, help="of the rows; default messages")
    group.add_argument(
        "--template",
        metavar="NAME",
        help=f"how the student writes thinking: {', '.join(TEMPLATES)}; default think (<think> tags in the text)",
    )
    group.add_argument("--system", metavar="TEXT", help="a system message in front of each problem")
    group.add_argument("--dropped", action="store_true", help="write the others too, with why: X.dropped.jsonl")
    group.add_argument("--report", metavar="REPORT.html", help="write a page of what was kept and what not")
    group.add_argument(
        "--report-traces", type=count, default=4000, metavar="N", help="traces on it, at most; default 4,000"
    )
    group.add_argument("--license", metavar="ID", help="of the data, for the card")
    group.add_argument("--push", metavar="ORG/NAME", help="upload to a data set of the hub when all is done")
    group.add_argument("--private", action="store_true", help="make that data set private")


def _add_pool(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--input-format",
        default="auto",
        choices=("auto", *FORMATS),
        metavar="FORMAT",
        help=f"of traces that are not scored: auto or one of {', '.join(FORMATS)}; default auto",
    )
    group.add_argument(
        "--map",
        type=columns,
        default={},
        metavar="A=B,...",
        help=f"what the columns of such traces are called: FIELD=COLUMN, with FIELD one of {', '.join(FIELDS)}",
    )
    group.add_argument("--limit", type=count, metavar="N", help="read the first N records only")


def pool_of(arguments: argparse.Namespace, source: str) -> Input:
    """Return what the flags say of the pool."""
    return Input(source, arguments.input_format, arguments.map, arguments.limit)


def export_of(arguments: argparse.Namespace) -> Export:
    """Return what the flags say of the rows."""
    return Export.of(arguments.format, arguments.template, arguments.system)


def selection_of(arguments: argparse.Namespace) -> Selection:
    """Return what the flags say of the choice, checked.

    Raises:
        UsageError: They make no sense.
    """
    a = arguments
    bounds = {name: found for name in MEASURES if (found := getattr(a, name.replace("-", "_"))) is not None}
    settings = Selection(
        by=a.by or ("ids" if a.ids is not None else "reward"),
        top=a.top,
        share=a.share,
        threshold=a.threshold,
        quotas=dict(a.per),
        ids=a.ids,
        prm=a.prm,
        alpha=a.alpha,
        aggregation=a.aggregation,
        candidates=a.candidates,
        filters=Filters(
            correct=a.correct,
            grader=a.grader,
            unfinished=a.unfinished,
            bounds=bounds,
            tokenizer=a.tokenizer,
            benchmarks=tuple(a.decontaminate),
            ngram=a.ngram,
            whole_trace=a.decontaminate_all,
            duplicates=a.keep_duplicates,
            near_duplicates=a.near_duplicates,
        ),
        student=_student(a),
        diversity=_diversity(a),
        seed=a.seed,
    )
    settings.check()
    return settings


def _student(a: argparse.Namespace) -> Student | None:
    given = _given(a, ("student_weight", "student_dtype"))
    if a.student is None:
        _refuse(given, "--student")
        return None
    return Student(
        a.student,
        weight=given.get("student_weight", 0.5),
        device=a.device,
        dtype=given.get("student_dtype", "float32"),
    )


def _diversity(a: argparse.Namespace) -> Diversity | None:
    given = _given(a, ("diversity_of", "encoder"))
    if a.diversity is None:
        _refuse(given, "--diversity")
        return None
    return Diversity(a.diversity, given.get("diversity_of", "problem"), given.get("encoder", "embedded"), a.device)


def _given(a: argparse.Namespace, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name in names if (value := getattr(a, name)) is not None}


def _refuse(given: dict[str, Any], needs: str) -> None:
    from reasonflux_prm.errors import UsageError

    for name in given:
        raise UsageError(f"--{name.replace('_', '-')} goes with {needs}, which is not there")


def _bounds(text: str) -> Bounds:
    try:
        return Bounds.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _quota(text: str) -> tuple[str, int]:
    column, _, number = text.rpartition("=")
    if not column or not number.isdecimal() or int(number) < 1:
        raise argparse.ArgumentTypeError(f"expected COLUMN=N with N of at least 1, got {text!r}")
    return column, int(number)
