"""Records whose text comes as a list of steps, most with a label for each: PRM800K, Math-Shepherd, TRL, ProcessBench.

The steps are joined to the response; each keeps the separator that follows it, so the steps' texts joined give the
response. Labels are numbers in [0, 1], 1 for a good step; None where a step has none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, TypeGuard

from reasonflux_prm.errors import InputError
from reasonflux_prm.records import Step, Trace
from reasonflux_prm.traces.columns import Columns, column_list, expect
from reasonflux_prm.traces.native import read_labels

STEP_TAG = "ки"
"""What Math-Shepherd puts after each step."""


def join_steps(texts: Sequence[str], separator: str = "\n\n") -> tuple[str, tuple[int, ...]]:
    r"""Join steps to one text.

    The separator goes between two steps, and belongs to the first of them. It is left out where the first ends or the
    second begins with a newline, unless the first is empty.

    Returns:
        The text, and for each step the offset of the character after its last.

    Example:
        >>> join_steps(["a", "b"])
        ('a\n\nb', (3, 4))
    """
    pieces = [
        text if text and (text.endswith("\n") or after.startswith("\n")) else text + separator
        for text, after in pairwise(texts)
    ]
    pieces += texts[-1:]
    stops, length = [], 0
    for piece in pieces:
        length += len(piece)
        stops.append(length)
    return "".join(pieces), tuple(stops)


def steps_trace(
    columns: Columns, problem: str, texts: Sequence[str], labels: Sequence[float | None], separator: str = "\n\n"
) -> Trace:
    """Build the trace of a list of steps; an empty text at its end is no step, and takes its label with it."""
    while texts and not texts[-1]:
        texts, labels = texts[:-1], labels[: len(texts) - 1]
    response, stops = join_steps(texts, separator)
    steps = [Step("response", start, stop) for start, stop in zip((0, *stops), stops, strict=False)]
    return columns.trace(problem, "", response, steps=steps, labels=labels)


def is_steps(row: Mapping[str, Any]) -> bool:
    """Whether the record has a list of texts in `steps`; an empty one needs labels beside it to be known."""
    return _is_texts(row.get("steps"), empty="labels" in row or "label" in row)


def steps(row: Mapping[str, Any], where: str) -> list[Trace]:
    """Read `problem, steps: [text], labels: [label]`, or ProcessBench's `label` in the place of `labels`.

    ProcessBench's `label` is the index of the first wrong step, -1 if there is none. The steps before it get the label
    1, it gets 0, and those after it None: nobody looked at them.
    """
    columns = Columns(row, where)
    texts = _texts(columns.take("steps"), "steps")
    if "labels" in row or not _is_index(row.get("label")):
        labels = read_labels(columns.take("labels") or [], len(texts))
    else:
        labels = first_error_labels(columns.take("label"), len(texts))
    return [steps_trace(columns, columns.take_problem(), texts, labels)]


def first_error_labels(first_error: int, num_steps: int) -> tuple[float | None, ...]:
    """Return 1 before the first wrong step, 0 at it and None after it; 1 throughout if `first_error` is -1.

    Raises:
        InputError: There is no such step.
    """
    if not -1 <= first_error < num_steps:
        raise InputError(f"expected `label` to be -1 or the index of one of the {num_steps} steps, got {first_error}")
    if first_error == -1:
        return (1.0,) * num_steps
    return (1.0,) * first_error + (0.0,) + (None,) * (num_steps - first_error - 1)


def is_trl(row: Mapping[str, Any]) -> bool:
    """Whether the record has a prompt with completions that are labelled."""
    return (
        isinstance(row.get("prompt"), str)
        and _is_texts(row.get("completions"), empty=True)
        and isinstance(row.get("labels"), list)
    )


def trl(row: Mapping[str, Any], where: str) -> list[Trace]:
    """Read TRL's stepwise supervision: `prompt, completions: [text of a step], labels: [bool]`."""
    columns = Columns(row, where)
    texts = _texts(columns.take("completions"), "completions")
    labels = read_labels(columns.take("labels") or [], len(texts))
    return [steps_trace(columns, columns.take_problem(), texts, labels)]


def is_math_shepherd(row: Mapping[str, Any]) -> bool:
    """Whether the record has an `input` with step tags and a `label`."""
    return isinstance(row.get("label"), str) and isinstance(row.get("input"), str) and STEP_TAG in row["input"]


def math_shepherd(row: Mapping[str, Any], where: str) -> list[Trace]:
    r"""Read Math-Shepherd: `input` has `ки` after each step, `label` is the same with `+` or `-` in its place.

    The problem ends where `Step 1:` begins, or without one after the last question mark of the first step.
    """
    if not is_math_shepherd(row):
        raise InputError(f"expected the texts input (with {STEP_TAG}) and label; the record has {column_list(row)}")
    columns = Columns(row, where)
    *pieces, tail = columns.take("input").split(STEP_TAG)
    labels, position, labelled = [], 0, columns.take("label")
    for index, piece in enumerate(pieces):
        position += len(piece)
        if labelled[position - len(piece) : position + 1] not in (f"{piece}+", f"{piece}-"):
            raise InputError(
                f"expected `label` to be `input` with + or - for each {STEP_TAG}, but they differ at step {index}"
            )
        labels.append(1.0 if labelled[position] == "+" else 0.0)
        position += 1
    problem, pieces[0] = _cut_problem(pieces[0])
    texts = [piece.strip() for piece in pieces]
    if tail.strip():
        texts.append(tail.strip())
    return [steps_trace(columns, problem, texts, [*labels, *[None] * (len(texts) - len(labels))], separator="\n")]


def is_prm800k(row: Mapping[str, Any]) -> bool:
    """Whether the record has an object `question` with a problem and an object `label` with steps."""
    question, label = row.get("question"), row.get("label")
    return (
        isinstance(question, dict)
        and "problem" in question
        and isinstance(label, dict)
        and isinstance(label.get("steps"), list)
    )


def prm800k(row: Mapping[str, Any], where: str) -> list[Trace]:
    """Read PRM800K: `question.problem` and `label.steps`, each with rated completions.

    Of each step the chosen completion is taken, or what the labeller wrote (its label is 1), or the first completion.
    Where the solution was generated beforehand, its steps after the last one that was looked at follow without labels.
    Ratings 1 and -1 are labels 1 and 0; a rating of 0 (neither good nor bad) gives no label. Completions that were not
    chosen are left out. A labelling that ended with `solution` reached the right answer.
    """
    if not is_prm800k(row):
        raise InputError(f"expected question.problem and label.steps; the record has {column_list(row)}")
    columns = Columns(row, where)
    question, label = dict(columns.take("question")), dict(columns.take("label"))
    problem = expect(question.pop("problem"), str, "question.problem")
    rated = [_rated_step(step, index) for index, step in enumerate(label.pop("steps"))]
    generated = question.get("pre_generated_steps")
    if _is_texts(generated) and [text for text, _ in rated] == generated[: len(rated)]:
        rated += [(text, None) for text in generated[len(rated) :]]
        question.pop("pre_generated_steps")
    answer = question.pop("ground_truth_answer", None)
    texts, labels = [text for text, _ in rated], [value for _, value in rated]
    trace = steps_trace(columns, problem, texts, labels)
    correct = True if label.get("finish_reason") == "solution" else None
    return [
        replace(
            trace,
            answer=None if answer is None else str(answer),
            correct=correct,
            meta={**trace.meta, "question": question, "label": label},
        )
    ]


_RATINGS = {1: 1.0, -1: 0.0}


def _rated_step(step: Any, index: int) -> tuple[str, float | None]:
    what = f"step {index}"
    completions = expect(step, dict, what).get("completions") or []
    human, chosen = step.get("human_completion"), step.get("chosen_completion")
    if chosen is None and human is not None:
        return expect(
            human["text"] if isinstance(human, dict) and "text" in human else human,
            str,
            f"the human completion of {what}",
        ), 1.0
    if not isinstance(completions, list) or not 0 <= (chosen or 0) < len(completions):
        raise InputError(f"expected {what} to have the completion {chosen or 0}, got {len(completions)} completions")
    completion = expect(completions[chosen or 0], dict, f"the completion of {what}")
    return expect(completion.get("text"), str, f"the text of {what}"), _RATINGS.get(completion.get("rating"))


_FIRST_STEP = re.compile(r"step 1\s*:", re.IGNORECASE)


def _cut_problem(text: str) -> tuple[str, str]:
    """Cut problem and first step apart."""
    starts = [match.start() for match in _FIRST_STEP.finditer(text)]
    cut = starts[-1] if starts else text.rfind("?") + 1
    if not cut or not text[:cut].strip():
        raise InputError("expected a problem before `Step 1:` in `input`, found none")
    return text[:cut].strip(), text[cut:]


def _is_texts(value: Any, *, empty: bool = False) -> TypeGuard[list[str]]:
    return isinstance(value, list) and (empty or bool(value)) and all(isinstance(text, str) for text in value)


def _texts(value: Any, column: str) -> list[str]:
    if not _is_texts(value, empty=True):
        raise InputError(f"expected `{column}` to be a list of texts")
    return list(value)


def _is_index(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
