"""One record's columns, and what they are called elsewhere.

A format takes the columns it understands; whatever is left over goes to `Trace.meta` untouched. Column names are
matched exactly. No column is ever taken for the policy's text on its name alone if it usually holds a reference:
`answer` and `solution` never are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reasonflux_prm.errors import InputError
from reasonflux_prm.records import Step, Trace

PROBLEM = ("problem", "question", "prompt", "instruction", "query", "input")
THINKING = ("thinking", "reasoning_content", "reasoning", "thinking_trajectory", "cot", "chain_of_thought", "thought")
RESPONSE = (
    "response",
    "completion",
    "output",
    "generation",
    "model_output",
    "model_response",
    "generated_text",
    "text",
)
ID = ("id", "uuid", "_id", "unique_id", "question_id", "problem_id")
ANSWER = ("answer", "reference_answer", "ground_truth", "ground_truth_answer", "expected_answer", "gold_answer")
POLICY = ("policy", "model", "model_name", "generator")
CORRECT = ("correct", "is_correct", "final_correct", "final_answer_correct", "solution_correct")
CHAT = ("messages", "conversations", "conversation")


class Columns:
    """The columns of one record; remembers which were taken.

    Args:
        row: The record.
        where: Names the record if it has no id of its own.
    """

    def __init__(self, row: Mapping[str, Any], where: str) -> None:
        self.row = row
        self.where = where
        self._taken: set[str] = set()

    def take(self, name: str) -> Any:
        """Take one column, whatever it holds; None if there is none."""
        self._taken.add(name)
        return self.row.get(name)

    def take_text(self, names: Sequence[str]) -> str | None:
        """Take the first of `names` that holds text; None if none does. Nulls met on the way are taken too."""
        for name in names:
            if name in self.row and (self.row[name] is None or isinstance(self.row[name], str)):
                text: str | None = self.take(name)
                if text is not None:
                    return text
        return None

    def take_problem(self) -> str:
        """Take the problem.

        An `instruction` with a text in `input` (Alpaca) is the problem followed, after a blank line, by that text.

        Raises:
            InputError: None of the known columns holds text.
        """
        names = [name for name in PROBLEM if name not in self._taken]
        problem = self.take_text(names)
        if problem is None:
            raise InputError(missing("a problem", PROBLEM, self.row, "problem"))
        if "instruction" in self._taken and "input" not in self._taken and (extra := self.take_text(("input",))):
            problem = f"{problem}\n\n{extra}"
        return problem

    def take_verdict(self) -> bool | None:
        """Take the recorded verdict: true, false, 1 or 0; anything else stays where it is."""
        name = self._first(CORRECT)
        if name is None or self.row[name] not in (None, True, False):
            return None
        verdict = self.take(name)
        return None if verdict is None else bool(verdict)

    def take_scalar(self, names: Sequence[str]) -> str | None:
        """Take the first of `names` that the record has, as text; None if it is null or not one text or number."""
        name = self._first(names)
        if name is None or not (self.row[name] is None or _is_scalar(self.row[name])):
            return None
        value = self.take(name)
        return None if value is None else str(value)

    def take_id(self) -> str:
        """Take the first of `ID` that holds a text or whole number; without one the place of the record is its id."""
        for name in ID:
            value = self.row.get(name)
            if isinstance(value, str | int) and not isinstance(value, bool) and value != "":
                return str(self.take(name))
        return self.where

    def take_closed(self, thinking: str, response: str) -> bool:
        """Whether the thinking was finished: `thinking_closed` if there, else what other columns suggest."""
        if isinstance(self.row.get("thinking_closed"), bool):
            return bool(self.take("thinking_closed"))
        return assumed_closed(thinking, response, self.row)

    def rest(self) -> dict[str, Any]:
        """Return the columns that were not taken."""
        return {name: value for name, value in self.row.items() if name not in self._taken}

    def trace(
        self,
        problem: str,
        thinking: str = "",
        response: str = "",
        *,
        closed: bool = True,
        steps: Sequence[Step] = (),
        labels: Sequence[float | None] = (),
    ) -> Trace:
        """Build the trace: take id, answer, source, policy, verdict and group, and leave the rest to `meta`."""
        return Trace(
            id=self.take_id(),
            problem=problem,
            thinking=thinking,
            response=response,
            answer=self.take_scalar([name for name in ANSWER if name not in self._taken]),
            source=self.take_scalar(("source",)),
            policy=self.take_scalar(POLICY),
            correct=self.take_verdict(),
            group=self.take_scalar(("group",)),
            thinking_closed=closed,
            steps=tuple(steps),
            step_labels=tuple(labels),
            meta=self.rest(),
        )

    def _first(self, names: Sequence[str]) -> str | None:
        return next((name for name in names if name in self.row), None)


def assumed_closed(thinking: str, response: str, row: Mapping[str, Any]) -> bool:
    """Whether thinking that is recorded apart from the response came to its end.

    It did not if there is no response and the record says that the text was cut (`truncated`, or a `finish_reason` of
    `length`).
    """
    cut = row.get("truncated") is True or row.get("finish_reason") == "length"
    return not (cut and thinking and not response)


def text_column(row: Mapping[str, Any], names: Sequence[str]) -> str | None:
    """Return the name of the first of `names` that holds text."""
    return next((name for name in names if isinstance(row.get(name), str)), None)


def missing(what: str, names: Sequence[str], row: Mapping[str, Any], field: str) -> str:
    """Return the message for a record that lacks a column."""
    return (
        f"expected {what} as text in one of the columns {', '.join(names)}; the record has {column_list(row)}. "
        f"Name yours with --map {field}=COLUMN"
    )


def column_list(row: Mapping[str, Any]) -> str:
    """Return the columns of a record for a message: `problem (text), n (int)`."""
    return ", ".join(f"{name} ({_kind(value)})" for name, value in row.items()) or "no columns"


def expect(value: Any, kind: type, what: str) -> Any:
    """Return `value` if it is of `kind`.

    Raises:
        InputError: It is not.
    """
    if not isinstance(value, kind):
        raise InputError(f"expected {what} to be {_KINDS[kind]}, got {_kind(value)}")
    return value


_KINDS: dict[type, str] = {str: "text", list: "a list", dict: "an object", bool: "true or false", type(None): "null"}


def _kind(value: Any) -> str:
    return _KINDS.get(type(value), type(value).__name__)


def _is_scalar(value: Any) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)
