"""What is asked of each trace by itself: the first thing that speaks against it, with the numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

from reasonflux_prm.grading.graders import open_grader
from reasonflux_prm.records import Trace
from reasonflux_prm.selection.decontamination import Contamination, load_benchmarks
from reasonflux_prm.selection.pool import Pooled
from reasonflux_prm.selection.reasons import Reason
from reasonflux_prm.selection.settings import Bounds, Selection
from reasonflux_prm.selection.templates import Template

BATCH = 256
"""Traces that are judged together, so that a grader's worker processes have something to do."""
Objection = tuple[Reason, str]
"""What speaks against a trace, and the detail."""


class Gate:
    """Everything that can be said of a trace without looking at the others. Use it as a context manager."""

    def __init__(self, settings: Selection, template: Template) -> None:
        """Load benchmarks, tokenizer and grader, where they are asked for.

        Raises:
            UsageError: There is no such benchmark, grader or tokenizer.
            MissingExtra, DownloadError: One of them cannot be had.
        """
        filters = settings.filters
        self._settings, self._filters, self._template = settings, filters, template
        self._right = filters.correct or settings.by == "correct"
        self._stack = ExitStack()
        self.benchmarks = load_benchmarks(filters.benchmarks)
        self._contamination = Contamination(self.benchmarks, filters.ngram, whole=filters.whole_trace)
        self.tokens = token_counter(filters.tokenizer) if filters.tokenizer else None
        self._grader = self._stack.enter_context(open_grader(filters.grader)) if filters.grader else None

    def __enter__(self) -> Gate:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def judged(self, pool: Iterable[Pooled]) -> Iterator[tuple[Pooled, bool | None]]:
        """Pass the pool on, each trace with whether its final answer is right: as recorded, or as the grader says."""
        pool = iter(pool)
        while batch := list(islice(pool, BATCH)):
            yield from zip(batch, self._verdicts([pooled.trace for pooled in batch]), strict=True)

    def _verdicts(self, traces: Sequence[Trace]) -> list[bool | None]:
        known = [trace.correct for trace in traces]
        if self._grader is not None:
            asked = [i for i, trace in enumerate(traces) if known[i] is None and trace.answer and trace.response]
            pairs = [(traces[i].response, str(traces[i].answer)) for i in asked]
            for i, verdict in zip(asked, self._grader.grade_many(pairs), strict=True):
                known[i] = verdict.right
        return known

    def objection(self, trace: Trace, correct: bool | None) -> Objection | None:
        """Return the first thing that speaks against a trace."""
        return (
            self._unfinished(trace)
            or self._verdict(correct)
            or self._length(trace)
            or self._marks(trace)
            or self._benchmark(trace)
        )

    def _unfinished(self, trace: Trace) -> Objection | None:
        if not trace.problem.strip():
            return Reason.NO_PROBLEM, "the problem is blank"
        if self._filters.unfinished:
            return None
        if not trace.thinking_closed:
            return Reason.UNFINISHED, "the thinking has no end"
        return None if trace.response.strip() else (Reason.UNFINISHED, "there is no response")

    def _verdict(self, correct: bool | None) -> Objection | None:
        if not self._right or correct:
            return None
        if correct is None:
            return Reason.NO_VERDICT, "whether the final answer is right is not known"
        return Reason.WRONG, "the final answer is wrong"

    def _length(self, trace: Trace) -> Objection | None:
        for measure, bounds in self._filters.bounds.items():
            if (found := self._outside(trace, measure, bounds)) is not None:
                return found
        return None

    def _outside(self, trace: Trace, measure: str, bounds: Bounds) -> Objection | None:
        part, _, unit = measure.partition("-")
        texts = {"thinking": [trace.thinking], "response": [trace.response]}
        count = self.tokens if unit == "tokens" else len
        assert count is not None  # Selection.check
        number = sum(map(count, texts.get(part, [trace.problem, self._template.turn(trace.thinking, trace.response)])))
        what = f"{part} has {number:,} {unit}" if part != "total" else f"problem and turn have {number:,} {unit}"
        if bounds.low is not None and number < bounds.low:
            return Reason.TOO_SHORT, f"{what}, fewer than {bounds.low:,}"
        if bounds.high is not None and number > bounds.high:
            return Reason.TOO_LONG, f"{what}, more than {bounds.high:,}"
        return None

    def _marks(self, trace: Trace) -> Objection | None:
        mark = self._template.mark_in(trace.problem, trace.thinking, trace.response)
        return None if mark is None else (Reason.MARKS, f"the text holds {mark}, which {self._template.name} is cut by")

    def _benchmark(self, trace: Trace) -> Objection | None:
        hit = self._contamination.find(trace) if self.benchmarks else None
        return None if hit is None else (Reason.CONTAMINATED, str(hit))

    def sizes(self) -> Mapping[str, int]:
        """Return how many problems each benchmark has, for a manifest."""
        return {benchmark.name: len(benchmark.problems) for benchmark in self.benchmarks}


def token_counter(name: str) -> Callable[[str], int]:
    """Return what counts the tokens of a text, special ones in front and behind left out.

    Args:
        name: A folder with a `tokenizer.json`, such a file, or a hub id.

    Raises:
        UsageError: There is no such folder, or it has no `tokenizer.json`.
        DownloadError: It could not be fetched.
    """
    from tokenizers import Tokenizer

    from reasonflux_prm.errors import DownloadError, UsageError

    path = Path(name)
    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file() and name.count("/") != 1:
        raise UsageError(f"expected --tokenizer to be a hub id, or a folder with a tokenizer.json, got {name}")
    try:
        tokenizer = Tokenizer.from_file(str(file)) if file.is_file() else Tokenizer.from_pretrained(name)
    except Exception as error:  # the library raises bare Exceptions, for a broken file and a hub out of reach alike
        raise DownloadError(f"the tokenizer {name} cannot be read: {str(error).splitlines()[0]}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False))
