"""Flags of `label` and `label combine`: what a label is made of, and how its terms become targets."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Final, cast, get_args

from reasonflux_prm.cli.options import count
from reasonflux_prm.cli.policies import SPEC, positive
from reasonflux_prm.errors import UsageError
from reasonflux_prm.labels.choices import (
    ALIGNMENTS,
    QUALITIES,
    TRAJECTORIES,
    Alignment,
    Choices,
    Quality,
    Role,
    Trajectory,
    formula_of,
)
from reasonflux_prm.labels.formula import Aggregation, Formula
from reasonflux_prm.steps.split import RULE_NAMES

_GRADERS: Final = ("auto", "math", "numeric", "choice", "string", "exact")
"""As `grading.graders.NAMES`."""


@dataclass(frozen=True, slots=True)
class LabelConfig:
    """What a label is made of."""

    choices: Choices
    formula: Formula
    specs: dict[Role, str | None]
    """The policy of each role, as it was named."""
    steps: str
    alignment: Alignment
    coherence: bool
    encoder: str
    device: str | None
    negatives: int | None
    pool: int | None
    temperature: float | None
    grader: str | None

    @property
    def embeds(self) -> bool:
        """Whether an encoder is needed."""
        return self.alignment != "none" or self.coherence

    def spec(self, role: Role) -> str:
        """Return the policy of a role; a template's writer is by default the judge, or else the solver."""
        others: tuple[Role, ...] = ("judge", "solver") if role == "writer" else ()
        found = next((spec for one in (role, *others) if (spec := self.specs[one]) is not None), None)
        if found is None:
            flag = _FLAGS[role]
            raise UsageError(f"{self._why(role)} asks a policy: name it with {flag} {SPEC}")
        return found

    def check(self) -> None:
        """Notice what does not go together before anything is opened.

        Raises:
            UsageError: A policy is missing, or one is named that nobody asks; or there is nothing to make.
        """
        roles = self.choices.roles()
        for role in sorted(roles):
            self.spec(role)
        used = {*roles, *(("judge", "solver") if "writer" in roles and self.specs["writer"] is None else ())}
        if idle := [_FLAGS[role] for role, spec in self.specs.items() if spec is not None and role not in used]:
            raise UsageError(
                f"{', '.join(idle)} names a policy that nobody asks with --quality {self.choices.quality} and "
                f"--trajectory {self.choices.trajectory}; leave it out"
            )
        if not self.coherence and any(value is not None for value in (self.negatives, self.pool, self.temperature)):
            raise UsageError("--negatives, --negative-pool and --temperature are for coherence, which was left out")
        if not self.embeds and self.choices.quality == "none" and self.choices.trajectory == "none":
            raise UsageError("a label needs at least one of alignment, coherence, quality and the trajectory's reward")

    def _why(self, role: Role) -> str:
        by_quality = {"judge": ("llm", "consensus"), "solver": ("rollout", "consensus"), "writer": ()}
        if self.choices.quality in by_quality[role]:
            return f"--quality {self.choices.quality}"
        return f"--trajectory {self.choices.trajectory}"


_FLAGS: Final[dict[Role, str]] = {"judge": "--judge", "solver": "--solver", "writer": "--template-writer"}


def add_label_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `LabelConfig`."""
    _add_parts(parser.add_argument_group("labels"))
    _add_encoder(parser.add_argument_group("alignment and coherence"))
    _add_asked(parser.add_argument_group("judges and solvers"))
    add_formula(parser)


def label_of(arguments: argparse.Namespace) -> LabelConfig:
    """Return what the flags of `add_label_flags` say.

    Raises:
        UsageError: The formula makes no sense.
    """
    choices = Choices(
        quality=cast(Quality, arguments.quality),
        trajectory=cast(Trajectory, arguments.trajectory),
        judge_samples=arguments.judge_samples,
        rollouts=arguments.rollouts,
        rollout_search=arguments.rollout_search,
        rollout_own_words=arguments.rollout_own_words,
        attempts=arguments.attempts,
        max_tokens=arguments.max_tokens,
        solver_temperature=arguments.solver_temperature,
        judge_max_tokens=arguments.judge_max_tokens,
        seed=arguments.seed,
    )
    alignment = cast(Alignment, arguments.alignment or "max")
    return LabelConfig(
        choices=choices,
        formula=formula_given(arguments, None if choices.quality != "none" else False),
        specs={"judge": arguments.judge, "solver": arguments.solver, "writer": arguments.template_writer},
        steps=arguments.steps,
        alignment=alignment,
        coherence=arguments.coherence is not False,
        encoder=arguments.encoder,
        device=arguments.device,
        negatives=arguments.negatives,
        pool=arguments.negative_pool,
        temperature=arguments.temperature,
        grader=arguments.grader,
    )


def formula_given(arguments: argparse.Namespace, quality: bool | None) -> Formula:
    """Return the formula that the flags of `add_formula` make."""
    return formula_of(
        arguments.formula,
        aggregation=cast(Aggregation | None, arguments.aggregation),
        alignment=cast(Alignment | None, arguments.alignment),
        quality=quality,
        coherence=arguments.coherence,
        weights=arguments.weights,
    )


def add_formula(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say how terms become targets."""
    group = parser.add_argument_group("formula")
    group.add_argument(
        "--formula",
        default="bounded",
        metavar="FORMULA",
        help="bounded: targets in [0, 1]; literal: terms as the paper prints them; or a whole one, such as 'bounded "
        "mean(quality!, coherence)', where ! marks a term without which a step has no target; default bounded",
    )
    group.add_argument(
        "--aggregation",
        choices=get_args(Aggregation),
        help="from a step's terms to its target; default softmax, the paper's, or weighted if there are weights",
    )
    group.add_argument(
        "--alignment",
        choices=ALIGNMENTS,
        help="which response step a thinking step is compared with: max (the closest), index (of the same number, the "
        "paper's), proportional, dtw; all are kept in the label; default max",
    )
    group.add_argument(
        "--coherence",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="whether a step is held against steps of other problems; default yes",
    )
    group.add_argument(
        "--weights",
        type=weights,
        metavar="TERM=W,...",
        help="weights of alignment, quality and coherence, 1 where left out",
    )


def _add_parts(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--quality",
        default="rules",
        choices=QUALITIES,
        metavar="JUDGE",
        help="who says how good a step is: rules (claims about numbers are checked), llm (a policy reviews), rollout "
        "(share of continuations that end right), consensus (where llm and rollout agree), recorded (labels that came "
        "with the record), none; default rules",
    )
    group.add_argument(
        "--trajectory",
        default="outcome",
        choices=TRAJECTORIES,
        metavar="RATER",
        help="the reward of the whole trace: outcome (is its final answer right), template (how often a policy solves "
        "the problem with the trace's strategy), judge (a policy judges the whole), none; default outcome",
    )
    group.add_argument(
        "--steps", default="adaptive", choices=RULE_NAMES, metavar="RULE", help=f"how traces are cut: {_names()}"
    )
    group.add_argument("--grader", choices=_GRADERS, help="who grades final answers; default auto, or string")
    group.add_argument("--seed", type=_seed, default=0, metavar="N", help="of negatives and of samples; default 0")


def _add_encoder(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--encoder",
        default="embedded",
        metavar="NAME|FOLDER|HUB_ID",
        help="a sentence-transformers model; default embedded, which is all-MiniLM-L6-v2",
    )
    group.add_argument("--device", metavar="DEVICE", help="of the encoder: cpu, cuda, ...; default a GPU if any")
    group.add_argument("--negatives", type=count, metavar="N", help="steps that each step is held against; default 16")
    group.add_argument(
        "--negative-pool",
        type=count,
        metavar="N",
        help="steps of the whole input to draw them from; default 4,096",
    )
    group.add_argument("--temperature", type=positive, metavar="TAU", help="of coherence; default 0.1")


def _add_asked(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--judge", metavar="POLICY", help=f"who reviews: {SPEC}")
    group.add_argument("--solver", metavar="POLICY", help="who goes on from prefixes, and solves problems")
    group.add_argument("--template-writer", metavar="POLICY", help="who writes templates; default the judge or solver")
    group.add_argument(
        "--judge-samples", type=count, default=1, metavar="N", help="reviews of a trace that are averaged; default 1"
    )
    group.add_argument("--rollouts", type=count, metavar="K", help="continuations of each prefix; default 4")
    group.add_argument(
        "--rollout-search",
        action="store_true",
        help="find the first bad step by binary search instead of valuing every prefix",
    )
    group.add_argument(
        "--rollout-own-words",
        action="store_true",
        help="have the solver go on from a prefix as from its own words, which local policies, vLLM and SGLang can; "
        "without it the prefix is shown in the question",
    )
    group.add_argument(
        "--attempts", type=count, metavar="N", help="attempts with the template, and as many without; default 4"
    )
    group.add_argument(
        "--judge-max-tokens",
        type=count,
        metavar="N",
        help="most tokens of a review, a judgement or a template; a policy that thinks first needs some thousands",
    )
    group.add_argument(
        "--max-tokens", type=count, metavar="N", help="most tokens of a continuation or an attempt; default 2,048"
    )
    group.add_argument(
        "--solver-temperature", type=positive, metavar="T", help="of continuations and attempts; default 0.7"
    )


def weights(text: str) -> dict[str, float]:
    """Read `quality=2,coherence=0.5`."""
    found = {}
    for pair in text.split(","):
        name, equals, value = pair.partition("=")
        try:
            found[name.strip()] = float(value)
        except ValueError:
            equals = ""
        if not equals:
            raise argparse.ArgumentTypeError(f"expected weights as in quality=2,coherence=0.5, got {text!r}")
    return found


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number of 0 or more, got {text!r}")
    return int(text)


def _names() -> str:
    return f"{', '.join(RULE_NAMES)}; default {RULE_NAMES[0]}"
