"""What a selection is asked to do: one frozen object, checked before anything is read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal, get_args

from reasonflux_prm.errors import UsageError
from reasonflux_prm.scoring.aggregate import AGGREGATIONS

By = Literal["reward", "response-reward", "random", "longest", "shortest", "correct", "student", "ids"]
BY: Final[tuple[str, ...]] = get_args(By)
REWARDED: Final = ("reward", "response-reward")
"""The orders that need a PRM."""
Coverage = Literal["facility", "k-center"]
COVERAGES: Final[tuple[str, ...]] = get_args(Coverage)
Part = Literal["problem", "response", "trace"]
PARTS: Final[tuple[str, ...]] = get_args(Part)
MEASURES: Final = (
    "thinking-characters",
    "response-characters",
    "thinking-tokens",
    "response-tokens",
    "total-tokens",
)
NGRAM: Final = 13


@dataclass(frozen=True, slots=True)
class Bounds:
    """A closed range; None leaves an end open."""

    low: int | None = None
    high: int | None = None

    @classmethod
    def parse(cls, text: str) -> Bounds:
        """Read `LOW:HIGH`, `LOW:` or `:HIGH`.

        Raises:
            ValueError: It is something else.
        """
        match = re.fullmatch(r"(\d*):(\d*)", text)
        if match is None or not any(match.groups()):
            raise ValueError(f"expected LOW:HIGH, LOW: or :HIGH in whole numbers, got {text!r}")
        low, high = (int(end) if end else None for end in match.groups())
        if low is not None and high is not None and low > high:
            raise ValueError(f"expected a range whose ends are in order, got {text!r}")
        return cls(low, high)


@dataclass(frozen=True, slots=True)
class Filters:
    """What a trace must be, whatever its rank."""

    correct: bool = False
    """Only those whose final answer is right."""
    grader: str | None = None
    """Judges the traces that have a reference answer and no recorded verdict; None leaves them without one."""
    unfinished: bool = False
    """Keep traces whose thinking has no end or that have no response."""
    bounds: Mapping[str, Bounds] = field(default_factory=dict)
    """By a name in `MEASURES`."""
    tokenizer: str | None = None
    """What counts tokens: a folder or a hub id with a `tokenizer.json`."""
    benchmarks: tuple[str, ...] = ()
    """`NAME`, `NAME=SOURCE` or `SOURCE`; see `decontamination.load_benchmarks`."""
    ngram: int = NGRAM
    whole_trace: bool = False
    """Look for n-grams in thinking and response too, not in the problem alone."""
    duplicates: bool = False
    """Keep traces with the same text."""
    near_duplicates: float | None = None
    """Jaccard similarity of 5-word shingles from which on two traces are near-duplicates; None keeps them."""


@dataclass(frozen=True, slots=True)
class Student:
    """Whose surprise counts."""

    model: str
    weight: float = 0.5
    """Share of the student's part of the score; the rest is the reward's."""
    device: str | None = None
    dtype: str = "float32"


@dataclass(frozen=True, slots=True)
class Diversity:
    """Coverage of what the encoder sees."""

    how: Coverage
    part: Part = "problem"
    encoder: str = "embedded"
    device: str | None = None


@dataclass(frozen=True, slots=True)
class Selection:
    """Everything that the choice depends on, besides the pool."""

    by: By = "reward"
    top: int | None = None
    share: float | None = None
    threshold: float | None = None
    quotas: Mapping[str, int] = field(default_factory=dict)
    """Column -> most traces of each of its values."""
    ids: str | None = None
    """File of ids, for `by="ids"`."""
    prm: str | None = None
    """NAME or NAME@REVISION: the PRM whose rewards count, where the pool has several."""
    alpha: float | None = None
    aggregation: str | None = None
    """Either makes the reward anew from the stored step rewards; None keeps what the records say."""
    candidates: int | None = None
    """How many of the best-ranked the student reads and diversity chooses among."""
    filters: Filters = Filters()
    student: Student | None = None
    diversity: Diversity | None = None
    seed: int = 0

    def check(self) -> None:
        """Refuse what makes no sense.

        Raises:
            UsageError: It does not.
        """
        for problem in (self._number(), self._order(), self._filtered(), self._models()):
            if problem is not None:
                raise UsageError(problem)

    def as_json(self) -> dict[str, Any]:
        """Return the settings as JSON values, for a manifest."""
        return asdict(self)

    @property
    def rewarded(self) -> bool:
        """Whether a trace without a reward cannot be chosen."""
        return self.by in REWARDED

    def _number(self) -> str | None:
        if self.top is not None and self.share is not None:
            return "--top and --share both say how many to keep; give one"
        if self.top is not None and self.top < 1:
            return f"expected --top of at least 1, got {self.top}"
        if self.share is not None and not 0 < self.share <= 1:
            return f"expected --share above 0 and up to 1, got {self.share:g}"
        for column, most in self.quotas.items():
            if most < 1:
                return f"expected --per {column}=N with N of at least 1, got {most}"
        return None

    def _order(self) -> str | None:
        if self.by not in BY:
            return f"unknown order {self.by!r}; there are {', '.join(BY)}"
        if (self.by == "ids") != (self.ids is not None):
            return "--by ids and a file of ids go together: --ids FILE"
        if self.threshold is not None and not self.rewarded:
            return f"--threshold is a reward, and --by {self.by} looks at none; leave it out"
        if not self.rewarded and (self.alpha, self.aggregation, self.prm) != (None, None, None):
            return f"--alpha, --aggregation and --prm say what the reward is, and --by {self.by} looks at none"
        if self.by == "response-reward" and self.alpha is not None:
            return "--alpha weighs the trajectory reward, which has no part in --by response-reward; leave it out"
        if self.aggregation is not None and self.aggregation not in AGGREGATIONS:
            return f"unknown aggregation {self.aggregation!r}; there are {', '.join(AGGREGATIONS)}"
        return None

    def _filtered(self) -> str | None:
        filters = self.filters
        tokens = [name for name in filters.bounds if name.endswith("-tokens")]
        if tokens and filters.tokenizer is None:
            return f"--{tokens[0]} counts tokens: say of which student with --tokenizer FOLDER or HUB_ID"
        if unknown := [name for name in filters.bounds if name not in MEASURES]:
            return f"unknown measure {unknown[0]!r}; there are {', '.join(MEASURES)}"
        if filters.ngram < 1:
            return f"expected n-grams of at least 1 word, got {filters.ngram}"
        if filters.near_duplicates is not None and not 0 < filters.near_duplicates < 1:
            return f"expected --near-duplicates above 0 and below 1, got {filters.near_duplicates:g}"
        if filters.grader is not None and not (filters.correct or self.by == "correct"):
            return "--grader judges answers, and nothing here asks whether they are right: add --correct"
        return None

    def _models(self) -> str | None:
        if (self.by == "student" or self.student is not None) and not (
            self.student is not None and (self.rewarded or self.by == "student")
        ):
            return "--student MODEL goes with --by reward, response-reward or student, and --by student needs it"
        if self.student is not None and not 0 <= self.student.weight <= 1:
            return f"expected --student-weight in [0, 1], got {self.student.weight:g}"
        if self.diversity is not None and self.top is None and self.share is None:
            return "--diversity chooses a number of traces: say how many with --top or --share"
        if self.diversity is not None and self.by == "ids":
            return "--diversity chooses, and --ids has chosen already; leave one out"
        if self.candidates is not None and self.student is None and self.diversity is None:
            return "--candidates limits what --student reads and --diversity chooses among; there is neither"
        if self.candidates is not None and self.by == "student":
            return "--candidates takes the best by reward, and --by student knows no reward; leave it out"
        return None
