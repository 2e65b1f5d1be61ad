"""Measure what choosing among N candidates buys on a benchmark: pass@1, pass@k, majority, best-of-k, weighted votes.

TASK is a name that `--list` shows. Candidates are recorded (--candidates: a candidates file, scored traces, or
trajectories of agents) or sampled from a policy (--policy, --n), and then kept beside REPORT. They are graded, scored
with the PRM (`--prm none` leaves that out), and every way of choosing is reported for every k, with intervals by
problem: as Markdown on standard output, as JSON in REPORT. Steps are cut by the task's own rule unless --steps names
one: turns for agents, else adaptive.

Step benchmarks (processbench, prmbench, mr-gsm8k, bigbench-mistake, thought-anchors, and steps for any file of labelled
steps) measure step rewards instead: --file names the data, the steps are those of its records, and REPORT.md gets the
tables too.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Final

from reasonflux_prm.cli.evaluate_run import EvaluateConfig, evaluate
from reasonflux_prm.cli.evaluate_steps import add_step_flags, evaluate_steps, refuse_step_flags
from reasonflux_prm.cli.options import ScoringConfig, add_check, add_input, add_scoring, count, input_of, scoring_of
from reasonflux_prm.cli.policies import SPEC, PolicyConfig, add_policies, policies_of
from reasonflux_prm.errors import UsageError
from reasonflux_prm.evaluation.tasks import TASKS, find_task
from reasonflux_prm.evaluation.tasks.base import Task
from reasonflux_prm.evaluation.tasks.graders import NAMES
from reasonflux_prm.evaluation.tasks.sampling import SamplingSettings
from reasonflux_prm.scoring.run import PIPE, Input

NO_PRM: Final = "none"
RESAMPLES: Final = 2000
FIGURES: Final = (".svg", ".png", ".html")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `evaluate`."""
    parser.add_argument("task", metavar="TASK", nargs="?", help="the benchmark; custom or steps for data of your own")
    parser.add_argument("-o", "--output", metavar="REPORT", help="the numbers: a .json file")
    parser.add_argument(
        "--fresh", action="store_true", help="start over and replace what is there, also if it is of other settings"
    )
    parser.add_argument(
        "--list", action="store_true", help="show the tasks with their sources, sizes, graders and licences, and stop"
    )
    _add_candidates(parser.add_argument_group("candidates"))
    _add_numbers(parser.add_argument_group("numbers"))
    add_step_flags(parser.add_argument_group("step benchmarks"))
    add_input(parser)
    add_scoring(parser)
    add_check(parser)
    add_policies(parser)
    # A task has a step rule of its own: agents' trajectories are cut by turns.
    parser.set_defaults(steps=None)


def run(arguments: argparse.Namespace) -> int:
    """Evaluate, and say what came of it."""
    if arguments.list:
        sys.stdout.write(listing())
        return 0
    from reasonflux_prm.evaluation.steps import find_step_benchmark  # imports numpy, and --help should not

    if (benchmark := find_step_benchmark(arguments.task or "")) is not None:
        return evaluate_steps(benchmark, arguments)
    refuse_step_flags(arguments)
    config = _config(arguments)
    with ExitStack() as stack:
        return evaluate(config, stack)


def listing() -> str:
    """Return the tasks as a Markdown table."""
    lines = ["| task | problems | source | grader | licence |", "|---|---|---|---|---|"]
    for task in TASKS:
        sizes = " or ".join(f"{size:,}" for size in task.sizes) or "any"
        cells = (task.name, sizes, task.source or "(--problems)", task.grader, task.licence)
        lines.append(f"| {' | '.join(cells)} |")
    from reasonflux_prm.evaluation.steps import STEP_BENCHMARKS

    for benchmark in STEP_BENCHMARKS:
        size = f"{sum(benchmark.sizes.values()):,} traces" if benchmark.sizes else "any"
        cells = (benchmark.name, size, ", ".join(benchmark.sources) or "(--file)", "step labels", benchmark.licence)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _add_candidates(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--candidates", metavar="FILE", help="recorded candidates, scored or not")
    group.add_argument("--policy", metavar=SPEC, help="sample candidates from this policy, with the task's prompt")
    group.add_argument("--n", type=count, metavar="N", help="candidates to sample for each problem")
    group.add_argument("--temperature", type=float, metavar="X", help="of the samples; default 0.6")
    group.add_argument("--top-p", type=float, metavar="X", help="of the samples; default 0.95")
    group.add_argument(
        "--max-tokens", type=count, metavar="N", help="most tokens of a sample, thinking included; default 16384"
    )
    group.add_argument(
        "--problems",
        metavar="SOURCE",
        help="the problems, as a file or a data set; default the task's place on the hub. With --candidates: where "
        "references are looked up that the candidates lack, by the problem's text or id",
    )
    group.add_argument("--grader", choices=NAMES, help="default the task's own, which --list shows")
    group.add_argument(
        "--regrade", action="store_true", help="grade also candidates that come with a verdict, and count differences"
    )
    group.add_argument(
        "--unsafe-no-sandbox",
        action="store_true",
        help="run programs that a model wrote although nothing here keeps them from the rest of the machine",
    )


def _add_numbers(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--compare",
        metavar="PRM|SCORED",
        help="a second PRM, or a file of the same candidates scored by it, compared problem by problem",
    )
    group.add_argument(
        "--rewards",
        metavar="COLUMN",
        action="append",
        default=[],
        help="a column of the candidates with the rewards of another reward model; may be given several times",
    )
    group.add_argument("--ks", type=_numbers, metavar="K,K,...", help="numbers of candidates; default every one from 1")
    group.add_argument(
        "--min-candidates", type=count, default=1, metavar="N", help="leave out problems with fewer; default 1"
    )
    group.add_argument(
        "--resamples", type=count, default=RESAMPLES, metavar="N", help=f"of the bootstrap; default {RESAMPLES:,}"
    )
    group.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of the samples, subsets, bootstrap and options; default 0"
    )
    group.add_argument(
        "--figure", metavar="FILE", help="accuracy by k as a figure, .svg or .png, or as a page with the tables, .html"
    )


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(count(part.strip()) for part in text.split(","))


def _config(arguments: argparse.Namespace) -> EvaluateConfig:
    """Return what the arguments say, once they go together."""
    if arguments.task is None:
        raise UsageError("evaluate needs a task; --list shows them")
    task = find_task(arguments.task)
    if arguments.output is None:
        raise UsageError("evaluate needs a place for its numbers: -o REPORT.json")
    if arguments.figure and not arguments.figure.endswith(FIGURES):
        raise UsageError(f"expected --figure to end in {', '.join(FIGURES)}, got {arguments.figure}")
    if (arguments.candidates is None) == (arguments.policy is None):
        raise UsageError("evaluate needs either --candidates FILE or --policy SPEC with --n N")
    candidates = _recorded(arguments) if arguments.policy is None else None
    return EvaluateConfig(
        task=task,
        candidates=candidates,
        policy=arguments.policy,
        sampling=None if candidates else _sampling(arguments),
        policies=policies_of(arguments),
        problems=arguments.problems,
        limit=arguments.limit,
        output=Path(arguments.output),
        figure=Path(arguments.figure) if arguments.figure else None,
        fresh=arguments.fresh,
        scoring=_scoring(arguments, task),
        compare=arguments.compare,
        rewards=tuple(arguments.rewards),
        grader=arguments.grader or task.grader,
        regrade=arguments.regrade,
        unsafe=arguments.unsafe_no_sandbox,
        ks=arguments.ks,
        min_candidates=arguments.min_candidates,
        resamples=arguments.resamples,
        seed=arguments.seed,
    )


def _recorded(arguments: argparse.Namespace) -> Input:
    given = [f"--{name.replace('_', '-')}" for name in _SAMPLING if getattr(arguments, name) is not None]
    if policies_of(arguments) != PolicyConfig():
        given.append("flags of policies")
    if arguments.candidates == PIPE:
        raise UsageError("evaluate reads candidates more than once, so it takes a file and no pipe")
    if given:
        raise UsageError(f"{', '.join(given)}: nothing is sampled where candidates are recorded; leave that out")
    return input_of(arguments, arguments.candidates)


def _sampling(arguments: argparse.Namespace) -> SamplingSettings:
    if arguments.n is None:
        raise UsageError("--policy needs --n N, the candidates to sample for each problem")
    if arguments.map or arguments.format != "auto":
        raise UsageError("--map and --format say how recorded candidates are read; leave them out with --policy")
    named = {name: getattr(arguments, name) for name in _SAMPLING}
    return SamplingSettings(seed=arguments.seed, **{name: value for name, value in named.items() if value is not None})


_SAMPLING: Final = ("n", "temperature", "top_p", "max_tokens")


def _scoring(arguments: argparse.Namespace, task: Task) -> ScoringConfig | None:
    arguments.steps = arguments.steps or task.steps
    scoring = scoring_of(arguments)
    if scoring.prm != NO_PRM:
        return scoring
    if replace(scoring, prm="embedded") != ScoringConfig(steps=task.steps):
        raise UsageError(f"flags that say how to score go with nothing at --prm {NO_PRM}; leave them out")
    return None
