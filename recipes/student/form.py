r"""The think-then-respond form that the small student of the recipes is taught, made of GSM8K's reference solutions.

The lines of a solution are the thinking, without the calculator's marks (`<<6*2=12>>`); the response states the answer
in a box. What the student is asked is what `reasonflux-prm evaluate gsm8k` asks, so what it was taught is what it is
tested with.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from reasonflux_prm.evaluation.tasks.base import Problem
from reasonflux_prm.evaluation.tasks.prompts import ask_answer
from reasonflux_prm.records import Trace

_MARK = re.compile(r"<<[^<>]*>>")


def reference_traces(problems: Path, between: str = "\n") -> Iterator[Trace]:
    """Read problems with reference solutions as think-then-respond traces, all of them right.

    Args:
        problems: JSON lines with `id, problem, answer, solution`, as GSM8K's training split.
        between: Stands between the lines of a solution.
    """
    for line in problems.open(encoding="utf-8"):
        row = json.loads(line)
        lines = [text for text in row["solution"].splitlines() if text.strip() and not text.startswith("####")]
        yield Trace(
            id=row["id"],
            problem=row["problem"],
            thinking=_MARK.sub("", between.join(lines)).strip(),
            response=respond(row["answer"]),
            answer=row["answer"],
            source=f"{row.get('source', 'gsm8k')}-train",
            policy="reference",
            correct=True,
        )


def respond(answer: str) -> str:
    """Return the response that states an answer."""
    return f"The answer is \\boxed{{{answer}}}."


def chat_row(trace: Trace) -> dict[str, Any]:
    """Return a trace as a training row of prompt and completion, in TRL's conversational form."""
    return {
        "prompt": [{"role": "user", "content": ask_answer(Problem(trace.id, trace.problem, trace.answer))}],
        "completion": [{"role": "assistant", "content": written(trace)}],
    }


def written(trace: Trace) -> str:
    """Return what the student writes: the thinking between its marks, then the response."""
    return f"<think>\n{trace.thinking.strip()}\n</think>\n\n{trace.response.strip()}"


def chat_rows(traces: Iterable[Trace]) -> list[Mapping[str, Any]]:
    """Return all traces as training rows."""
    return [chat_row(trace) for trace in traces]
