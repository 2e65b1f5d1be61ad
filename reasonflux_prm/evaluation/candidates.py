"""The candidates of a problem as evaluation sees them: verdicts, answers, rewards, lengths and tokens, but no text.

Nothing that is amiss with a candidate stops the others: it is counted under its name, one of `Trouble`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

from reasonflux_prm.errors import InputError, UsageError
from reasonflux_prm.grading.grader import Grader
from reasonflux_prm.grading.graders import open_grader
from reasonflux_prm.grading.verdict import ANSWER_UNREAD, NO_ANSWER, REFERENCE_UNREAD, Grade, Verdict
from reasonflux_prm.records import Reject, ScoredTrace, Trace
from reasonflux_prm.traces.native import is_scored
from reasonflux_prm.traces.read import read_traces
from reasonflux_prm.traces.rows import Row
from reasonflux_prm.traces.sources import open_source
from reasonflux_prm.traces.write import read_scored

POLICY_TOKENS: Final = ("policy_tokens", "completion_tokens")
"""The columns of a candidate that may say how many tokens the policy wrote, the first that does so."""


class Trouble(StrEnum):
    """What can be amiss with a candidate, or with a problem; and what is made of it."""

    NO_TEXT = "no-text"
    """The candidate has neither thinking nor response: it has no vote, and is neither shortest nor longest."""
    NO_ANSWER = "no-answer"
    """The candidate has text and states no final answer: it has no vote, and is wrong unless a verdict is recorded."""
    ANSWER_UNREAD = "answer-unread"
    """The candidate's answer does not parse: wrong unless a verdict is recorded; it votes with those written alike."""
    UNGRADED = "ungraded"
    """The grader gave up on the candidate (a time limit): not right unless a verdict is recorded."""
    VERDICT_DIFFERS = "verdict-differs"
    """The candidate was graded anew, and the grader says otherwise than the record: the grader's verdict counts."""
    REPEATED = "repeated"
    """The candidate came a second time, with the same id and the same text: it is left out."""
    NO_REFERENCE = "no-reference"
    """The problem has neither verdicts nor a reference answer: it is in no number."""
    REFERENCE_UNREAD = "reference-unread"
    """The problem's reference answer does not parse: without recorded verdicts it is in no number."""
    SINGLE = "single"
    """The problem has one candidate, so there is nothing to choose."""
    APART = "apart"
    """The problem comes in several places of the input: all its candidates count as one problem's."""


OF_PROBLEMS: Final = frozenset({Trouble.NO_REFERENCE, Trouble.REFERENCE_UNREAD, Trouble.SINGLE, Trouble.APART})
"""The troubles that are counted in problems; the others are counted in candidates."""


@dataclass(frozen=True, slots=True)
class ProblemCandidates:
    """The n candidates of one problem; every tuple has one entry a candidate.

    Raises:
        UsageError: There is no candidate, or a tuple is of another length.
    """

    id: str
    cluster: str
    """Problems with the same cluster are drawn together in the bootstrap: the same problem under several ids."""
    correct: tuple[bool | None, ...]
    """The verdicts; None if unknown."""
    groups: tuple[int | None, ...]
    """The number of the candidate's answer: equal answers have equal numbers; None if it states none."""
    lengths: tuple[int, ...]
    """Characters of thinking and response together."""
    rewards: Mapping[str, tuple[float | None, ...]] = field(default_factory=dict)
    """By the PRM's name; None where it gave none."""
    logarithmic: frozenset[str] = frozenset()
    """The PRMs whose rewards are logarithms (the aggregation `product`)."""
    policy_tokens: tuple[int | None, ...] = ()
    """Tokens that the policy wrote for the candidate; None where unknown, empty if all are."""
    prm_tokens: Mapping[str, tuple[int | None, ...]] = field(default_factory=dict)
    """Tokens that a PRM read for the candidate, by its name; None where unknown."""
    ids: tuple[str, ...] = ()
    """The candidates' own ids; empty if they have none."""
    fingerprint: str = ""
    """Of the problem and the candidates' texts: equal for equal candidates."""
    troubles: Mapping[Trouble, int] = field(default_factory=dict)
    """How many candidates have each; 1 for those of the problem itself."""

    def __post_init__(self) -> None:
        n = len(self.correct)
        needed = {"groups": self.groups, "lengths": self.lengths, **self.rewards, **self.prm_tokens}
        optional = {name: own for name, own in (("policy_tokens", self.policy_tokens), ("ids", self.ids)) if own}
        wrong = {name: len(own) for name, own in {**needed, **optional}.items() if len(own) != n}
        if not n or wrong:
            raise UsageError(
                f"expected at least one candidate of {self.id!r}, and one entry a candidate everywhere, got {n} "
                f"verdicts{''.join(f', {own} of {name}' for name, own in wrong.items())}"
            )

    @property
    def n(self) -> int:
        """Return how many candidates there are."""
        return len(self.correct)


def read_candidates(
    source: str | Path, rejects: Callable[[Reject], None] | None = None
) -> Iterator[ScoredTrace | Trace]:
    """Read candidates from what `reasonflux-prm score` wrote, or from any other source of traces, in constant memory.

    Args:
        source: What `traces.sources.open_source` takes, except `-`: its first record is looked at before it is read.
        rejects: Takes each record that cannot be read, and reading goes on; without it the first such record raises.

    Raises:
        InputError: As `traces.read.read_traces` and `traces.write.read_scored`.
    """
    first = next(iter(open_source(source)), None)
    if isinstance(first, Row) and is_scored(first.columns):
        return read_scored(source)
    return read_traces(source, rejects=rejects)


def problems_of(
    candidates: Iterable[ScoredTrace | Trace],
    grader: Grader | None = None,
    *,
    name: str | None = None,
    recorded: Sequence[str] = (),
    regrade: bool = False,
) -> list[ProblemCandidates]:
    """Gather candidates by problem, in the order in which the problems first come. Texts are read once and not kept.

    Args:
        candidates: Scored traces, or traces; those of one problem have the same `Trace.group`, or without groups the
            same problem text.
        grader: Says which answers are the same, and which are right where no verdict is recorded; default `string`,
            which needs no worker processes. It is not closed.
        name: What to call the PRM of scored traces; default the name that they have.
        recorded: Columns of the candidates that hold rewards of other reward models, each under its own name.
        regrade: Grade also candidates with a recorded verdict, wherever there is a reference.
    """
    grader = grader or open_grader("string")
    found: dict[tuple[bool, str], _Gathering] = {}
    last = None
    for candidate in candidates:
        trace = candidate.trace if isinstance(candidate, ScoredTrace) else candidate
        cluster = _digest(trace.problem)
        key = (True, trace.group) if trace.group is not None else (False, cluster)
        problem = found.setdefault(key, _Gathering(trace.group or trace.id, cluster))
        if problem.rows and key != last:
            problem.apart = True
        last = key
        problem.add(_row(candidate, trace, grader, name, recorded))
    rows = [row for problem in found.values() for row in problem.rows]
    wanted = [row for row in rows if row.reference is not None and (regrade or row.recorded is None)]
    verdicts = grader.grade_answers((row.answer, str(row.reference)) for row in wanted)
    for row, verdict in zip(wanted, verdicts, strict=True):
        row.verdict = verdict
    return [problem.done(grader) for problem in found.values()]


def join(*sets: Sequence[ProblemCandidates]) -> list[ProblemCandidates]:
    """Put the rewards of several PRMs for the same candidates together; verdicts and answers are the first set's.

    Raises:
        InputError: The sets do not hold the same candidates.
        UsageError: Two sets have a PRM of the same name.
    """
    joined = {(problem.id, problem.cluster): problem for problem in sets[0]}
    for other in sets[1:]:
        own = {(problem.id, problem.cluster): problem for problem in other}
        if missing := sorted(joined.keys() ^ own.keys()):
            raise _different(missing[0][0], "which only one of them has")
        for key, problem in own.items():
            joined[key] = _join_two(joined[key], problem)
    return list(joined.values())


def prm_names(problems: Iterable[ProblemCandidates]) -> list[str]:
    """Return the names of all PRMs that gave any of the problems a reward, in the order in which they come."""
    return list(dict.fromkeys(name for problem in problems for name in problem.rewards))


def vote_weights(problem: ProblemCandidates, name: str) -> tuple[float | None, ...]:
    """Return what each candidate's vote weighs: its reward, on a scale on which it should be 0 or more.

    A product of step rewards is kept as the sum of their logarithms, and its vote weighs the product. All weights of a
    problem are divided by the largest then, which changes no vote and keeps products of hundreds of steps above 0.
    """
    rewards = problem.rewards.get(name, (None,) * problem.n)
    if name not in problem.logarithmic:
        return rewards
    top = max((reward for reward in rewards if reward is not None), default=0.0)
    return tuple(None if reward is None else math.exp(reward - top) for reward in rewards)


def _join_two(first: ProblemCandidates, second: ProblemCandidates) -> ProblemCandidates:
    if (first.n, first.ids, first.fingerprint) != (second.n, second.ids, second.fingerprint):
        raise _different(first.id, "whose candidates differ")
    if both := sorted(first.rewards.keys() & second.rewards.keys()):
        raise UsageError(f"two sets of rewards are called {both[0]!r}; give them different names")
    return replace(
        first,
        rewards={**first.rewards, **second.rewards},
        prm_tokens={**first.prm_tokens, **second.prm_tokens},
        logarithmic=first.logarithmic | second.logarithmic,
    )


def _different(problem: str, how: str) -> InputError:
    return InputError(
        f"PRMs are compared on the same candidates, and these sets are different: see {problem!r}, {how}; score one "
        "file of candidates with each PRM"
    )


def _digest(*texts: str) -> str:
    """Return a short hash of texts; where one ends and the next begins makes a difference."""
    state = blake2b(digest_size=12)
    for text in texts:
        data = text.encode(errors="surrogatepass")
        state.update(len(data).to_bytes(8, "little") + data)
    return state.hexdigest()


@dataclass(slots=True)
class _Row:
    """What is kept of one candidate while the others are read."""

    id: str
    digest: str
    length: int
    answer: str | None
    reference: str | None
    recorded: bool | None
    rewards: dict[str, float | None]
    prm_tokens: dict[str, int]
    logarithmic: set[str]
    policy_tokens: int | None
    verdict: Verdict | None = None


def _row(
    candidate: ScoredTrace | Trace, trace: Trace, grader: Grader, name: str | None, recorded: Sequence[str]
) -> _Row:
    text = trace.response if trace.response.strip() else trace.thinking
    row = _Row(
        id=trace.id,
        digest=_digest(trace.problem, trace.thinking, trace.response),
        length=len(trace.thinking) + len(trace.response) if text.strip() else 0,
        answer=grader.find(text, trace.answer or "") if text.strip() else None,
        reference=trace.answer,
        recorded=trace.correct,
        rewards={column: _number(_column(trace, column)) for column in recorded},
        prm_tokens={},
        logarithmic=set(),
        policy_tokens=next((n for column in POLICY_TOKENS if (n := _count(_column(trace, column))) is not None), None),
    )
    if isinstance(candidate, ScoredTrace):
        prm = name or candidate.prm.name
        row.rewards[prm] = candidate.reward
        row.prm_tokens[prm] = candidate.tokens
        row.logarithmic = {prm} if candidate.prm.aggregation == "product" else set()
    return row


@dataclass(slots=True)
class _Gathering:
    """The candidates of one problem, as far as they are read."""

    id: str
    cluster: str
    rows: list[_Row] = field(default_factory=list)
    seen: set[tuple[str, str]] = field(default_factory=set)
    repeated: int = 0
    apart: bool = False

    def add(self, row: _Row) -> None:
        """Add a candidate, unless it is there."""
        if (row.id, row.digest) in self.seen:
            self.repeated += 1
            return
        self.seen.add((row.id, row.digest))
        self.rows.append(row)

    def done(self, grader: Grader) -> ProblemCandidates:
        """Return the problem, once its candidates are graded."""
        rows = self.rows
        # The others of its candidates are not known to be wrong just because they state no answer.
        unread = {row.reference for row in rows if row.verdict and _because(row.verdict, REFERENCE_UNREAD)}
        prms = dict.fromkeys(name for row in rows for name in row.rewards)
        read = dict.fromkeys(name for row in rows for name in row.prm_tokens)
        tokens = tuple(row.policy_tokens for row in rows)
        return ProblemCandidates(
            id=self.id,
            cluster=self.cluster,
            correct=tuple(_verdict(row, unread) for row in rows),
            groups=tuple(grader.groups([row.answer for row in rows])),
            lengths=tuple(row.length for row in rows),
            rewards={name: tuple(row.rewards.get(name) for row in rows) for name in prms},
            logarithmic=frozenset().union(*(row.logarithmic for row in rows)),
            policy_tokens=tokens if any(count is not None for count in tokens) else (),
            prm_tokens={name: tuple(row.prm_tokens.get(name) for row in rows) for name in read},
            ids=tuple(row.id for row in rows),
            fingerprint=_digest(*(row.digest for row in rows)),
            troubles=self._troubles(unread),
        )

    def _troubles(self, unread: set[str | None]) -> dict[Trouble, int]:
        rows = self.rows
        graded = [(row, row.verdict) for row in rows if row.verdict is not None and row.reference not in unread]
        unparsed = [verdict for _, verdict in graded if verdict.grade is Grade.UNPARSED]
        no_answer = sum(_because(verdict, NO_ANSWER) for verdict in unparsed)
        answer_unread = sum(_because(verdict, ANSWER_UNREAD) for verdict in unparsed)
        counts = {
            Trouble.NO_TEXT: sum(not row.length for row in rows),
            Trouble.NO_ANSWER: sum(bool(row.length) and row.answer is None for row in rows),
            Trouble.ANSWER_UNREAD: answer_unread,
            Trouble.UNGRADED: len(unparsed) - no_answer - answer_unread,
            Trouble.VERDICT_DIFFERS: sum(row.recorded not in (None, _verdict(row, unread)) for row, _ in graded),
            Trouble.REPEATED: self.repeated,
            Trouble.NO_REFERENCE: all(row.recorded is None and row.reference is None for row in rows),
            Trouble.REFERENCE_UNREAD: bool(unread),
            Trouble.SINGLE: len(rows) == 1,
            Trouble.APART: self.apart,
        }
        return {trouble: int(count) for trouble, count in counts.items() if count}


def _because(verdict: Verdict, reason: str) -> bool:
    # A reason may go on: `the answer does not parse: it has 2,000 characters`.
    return verdict.grade is Grade.UNPARSED and (verdict.reason or "").startswith(reason)


def _verdict(row: _Row, unread: set[str | None]) -> bool | None:
    """Return whether a candidate is right: the grader's verdict where it was asked and could tell, or the recorded."""
    verdict = row.verdict
    if verdict is None or row.reference in unread:
        return row.recorded
    if verdict.grade is not Grade.UNPARSED:
        return verdict.right
    no_answer = _because(verdict, NO_ANSWER) or _because(verdict, ANSWER_UNREAD)
    return False if no_answer and row.recorded is None else row.recorded


def _column(trace: Trace, name: str) -> Any:
    """Return a column of the candidate, whose own stand in `candidate` where the problem has columns of that name."""
    own = trace.meta.get("candidate")
    return own[name] if isinstance(own, Mapping) and name in own else trace.meta.get(name)


def _number(value: Any) -> float | None:
    known = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if known else None


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
