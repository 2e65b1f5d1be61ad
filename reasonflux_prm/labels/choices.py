"""The parts of a labeller by name, as the command line gives them: which judge, which rater, who is asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from reasonflux_prm.errors import UsageError
from reasonflux_prm.grading.grader import Grader
from reasonflux_prm.labels.formula import ALIGNMENT_TERMS, COHERENCE_TERM, Aggregation, Formula, Mode
from reasonflux_prm.labels.judges.base import QUALITY, Judge
from reasonflux_prm.labels.trajectory.base import TrajectoryRater
from reasonflux_prm.policy.base import Policy

Quality = Literal["rules", "llm", "rollout", "consensus", "recorded", "none"]
Trajectory = Literal["outcome", "template", "judge", "none"]
Alignment = Literal["max", "index", "proportional", "dtw", "none"]
Role = Literal["judge", "solver", "writer"]

QUALITIES: Final[tuple[str, ...]] = get_args(Quality)
TRAJECTORIES: Final[tuple[str, ...]] = get_args(Trajectory)
ALIGNMENTS: Final[tuple[str, ...]] = get_args(Alignment)

_ASKED: Final[dict[str, tuple[Role, ...]]] = {
    "llm": ("judge",),
    "rollout": ("solver",),
    "consensus": ("judge", "solver"),
    "template": ("writer", "solver"),
    "judge": ("judge",),
}


@dataclass(frozen=True, slots=True)
class Choices:
    """What a label is made of, by name, and how often policies are asked; None takes the part's own default."""

    quality: Quality = "rules"
    trajectory: Trajectory = "outcome"
    judge_samples: int = 1
    """Reviews of each trace, averaged."""
    rollouts: int | None = None
    """Continuations of each prefix."""
    rollout_search: bool = False
    """Whether rollouts find the first bad step by binary search instead of valuing every prefix."""
    rollout_own_words: bool = False
    """Whether the solver goes on from a prefix as from its own words; see `RolloutSettings`."""
    attempts: int | None = None
    """Attempts with the template, and as many without."""
    max_tokens: int | None = None
    """Most tokens of a continuation or an attempt."""
    solver_temperature: float | None = None
    """Of continuations and attempts."""
    judge_max_tokens: int | None = None
    """Most tokens of a review, a judgement or a template; a policy that thinks first needs more than the default."""
    seed: int = 0

    def roles(self) -> frozenset[Role]:
        """Return who is asked."""
        return frozenset((*_ASKED.get(self.quality, ()), *_ASKED.get(self.trajectory, ())))

    def grades(self) -> bool:
        """Whether final answers are graded."""
        return self.quality in ("rollout", "consensus") or self.trajectory in ("outcome", "template")


def open_judge(choices: Choices, policy: Callable[[Role], Policy], grader: Callable[[], Grader]) -> Judge | None:
    """Return the judge of quality that was chosen; None for `none`.

    Args:
        choices: What was chosen.
        policy: Gives the policy of a role; called only for those in `choices.roles()`.
        grader: Gives the grader; called only if `choices.grades()`.

    Raises:
        UsageError: A setting is out of its range.
        MissingExtra: The judge needs a package that is not installed.
    """
    if choices.quality == "rules":
        from reasonflux_prm.labels.judges.rules import RulesJudge

        return RulesJudge()
    if choices.quality == "recorded":
        from reasonflux_prm.labels.judges.recorded import RecordedJudge

        return RecordedJudge()
    if choices.quality == "llm":
        return _reviewer(choices, policy)
    if choices.quality == "rollout":
        return _rollouts(choices, policy, grader)
    if choices.quality == "consensus":
        from reasonflux_prm.labels.judges.consensus import ConsensusJudge

        return ConsensusJudge(_reviewer(choices, policy), _rollouts(choices, policy, grader))
    return None


def open_rater(
    choices: Choices, policy: Callable[[Role], Policy], grader: Callable[[], Grader]
) -> TrajectoryRater | None:
    """Return the rater of the trajectory that was chosen; None for `none`. See `open_judge`."""
    if choices.trajectory == "outcome":
        from reasonflux_prm.labels.trajectory.outcome import OutcomeRater

        return OutcomeRater(grader())
    if choices.trajectory == "template":
        from reasonflux_prm.labels.trajectory.template import TemplateRater, TemplateSettings

        chosen = {
            "n": choices.attempts,
            "max_tokens": choices.max_tokens,
            "temperature": choices.solver_temperature,
            "expert_max_tokens": choices.judge_max_tokens,
        }
        given: dict[str, Any] = {name: value for name, value in chosen.items() if value is not None}
        return TemplateRater(policy("writer"), policy("solver"), grader(), TemplateSettings(seed=choices.seed, **given))
    if choices.trajectory == "judge":
        from reasonflux_prm.labels.trajectory.judged import JudgedRater, JudgedSettings

        most: dict[str, Any] = {} if choices.judge_max_tokens is None else {"max_tokens": choices.judge_max_tokens}
        settings = JudgedSettings(samples=choices.judge_samples, seed=choices.seed, **most)
        return JudgedRater(policy("judge"), settings)
    return None


def formula_of(
    text: str,
    *,
    aggregation: Aggregation | None = None,
    alignment: Alignment | None = None,
    quality: bool | None = None,
    coherence: bool | None = None,
    weights: dict[str, float] | None = None,
) -> Formula:
    """Return the formula that the choices make.

    Args:
        text: A mode, `bounded` or `literal`, to which the other arguments apply; or a whole formula.
        aggregation: Default softmax, or weighted if there are weights.
        alignment: Which alignment takes part; default max, `none` leaves it out.
        quality: Whether quality takes part; default yes.
        coherence: Whether coherence takes part; default yes.
        weights: Of `alignment`, `quality` and `coherence`, 1 where left out; for `weighted`.

    Raises:
        UsageError: The text is no formula, a whole formula comes with other choices, or weights do not fit.
    """
    others = (aggregation, alignment, coherence, weights)
    if text not in get_args(Mode):
        if any(other is not None for other in others):
            raise UsageError(f"the formula {text!r} is whole; leave out the flags that name its aggregation and terms")
        return Formula.parse(text)
    taken = {
        "alignment": None if alignment == "none" else f"alignment_{alignment or 'max'}",
        "quality": QUALITY if quality is not False else None,
        "coherence": COHERENCE_TERM if coherence is not False else None,
    }
    terms = {kind: name for kind, name in taken.items() if name is not None}
    if weights is None and aggregation != "weighted":
        # Without any term of a step, the trajectory's reward may still be asked for; then the formula is the default.
        return Formula(text, aggregation or "softmax", tuple(terms.values()) or Formula().terms)  # type: ignore[arg-type]
    if stray := set(weights or ()) - set(terms):
        raise UsageError(
            f"weights are for the terms that take part ({', '.join(terms)}), and not for {', '.join(sorted(stray))}"
        )
    weighed = tuple((weights or {}).get(kind, 1.0) for kind in terms)
    return Formula(text, aggregation or "weighted", tuple(terms.values()), weighed)  # type: ignore[arg-type]


def term_names(names: Sequence[str], formula: Formula) -> list[str]:
    """Return terms of a formula by the names that people give them: `alignment` is whichever alignment it takes.

    Raises:
        UsageError: The formula takes no such term.
    """
    found = []
    for name in names:
        matching = [term for term in formula.terms if name == term or (name == "alignment" and term in ALIGNMENT_TERMS)]
        if not matching:
            raise UsageError(f"the formula {formula} has no term {name!r}")
        found += matching
    return found


def _reviewer(choices: Choices, policy: Callable[[Role], Policy]) -> Judge:
    from reasonflux_prm.labels.judges.llm import LLMJudge, LLMJudgeSettings

    settings = LLMJudgeSettings(samples=choices.judge_samples, max_tokens=choices.judge_max_tokens, seed=choices.seed)
    return LLMJudge(policy("judge"), settings)


def _rollouts(choices: Choices, policy: Callable[[Role], Policy], grader: Callable[[], Grader]) -> Judge:
    from reasonflux_prm.labels.judges.rollout import RolloutJudge, RolloutSearchJudge, RolloutSettings

    chosen = {
        "n": choices.rollouts,
        "max_tokens": choices.max_tokens,
        "temperature": choices.solver_temperature,
    }
    given: dict[str, Any] = {name: value for name, value in chosen.items() if value is not None}
    judge = RolloutSearchJudge if choices.rollout_search else RolloutJudge
    return judge(
        policy("solver"), grader(), RolloutSettings(seed=choices.seed, own_words=choices.rollout_own_words, **given)
    )
