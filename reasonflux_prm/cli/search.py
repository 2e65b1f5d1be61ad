r"""Search for answers with a policy and a PRM: sample, stop early, or search step by step.

PROBLEMS is a file (JSON lines, also in gzip, or Parquet) or a data set with a problem and, if it is to be graded, a
reference answer in columns of the usual names; --task takes the prompt, the grader and the place on the hub of a
benchmark. One record a problem comes out: the candidates with their steps and rewards, the pick, and the tokens that
policy and PRM took. It is a candidates file: `score`, `best-of-n` and `evaluate` read it.

Methods: sample (N whole traces), adaptive (at most N, until more cannot change the pick), beam (the best W of W x M
continuations, step by step), dvts (W subtrees, each along its best step), particles (N, resampled by the odds of their
rewards), rebase (N leaves, shared out by the softmax of the rewards). Step by step takes a policy that can go on from
what it has written: local:, vllm:, or a server that knows continue_final_message (vLLM, SGLang).
"""

from __future__ import annotations

import argparse
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from reasonflux_prm.cli.console import LINE_EVERY_S, next_command, say, say_reject
from reasonflux_prm.cli.options import ScoringConfig, add_output, add_scoring, count, scoring_of
from reasonflux_prm.cli.policies import SPEC, Policies, PolicyConfig, add_policies, policies_of, said_cost
from reasonflux_prm.errors import PolicyStopped, UsageError
from reasonflux_prm.evaluation.tasks import TASKS, find_task
from reasonflux_prm.evaluation.tasks.base import Task
from reasonflux_prm.evaluation.tasks.graders import NAMES, open_task_grader
from reasonflux_prm.grading.graders import default_grader
from reasonflux_prm.search.best_of_n import METHODS as PICKS
from reasonflux_prm.search.method import SearchMethod
from reasonflux_prm.search.methods import SEARCH_METHODS, open_method
from reasonflux_prm.search.result import SearchResult, SearchStatus
from reasonflux_prm.search.searcher import Searcher, SearchSettings
from reasonflux_prm.search.writing import Writing
from reasonflux_prm.traces.resumable import PIPE
from reasonflux_prm.traces.sources import REJECTS_SUFFIX
from reasonflux_prm.traces.write import side_path

if TYPE_CHECKING:
    from reasonflux_prm.search.reader import Reader
    from reasonflux_prm.search.run import Progress

NO_PRM: Final = "none"
_METHOD_FLAGS: Final = ("n", "width", "expand", "balance", "tolerance", "confidence")


@dataclass(frozen=True, slots=True)
class SearchCommand:
    """The arguments of `search`."""

    problems: str | None
    limit: int | None
    output: str
    fresh: bool
    task: Task
    grader: str
    unsafe: bool
    policy: str
    method: SearchMethod
    settings: SearchSettings
    scoring: ScoringConfig
    policies: PolicyConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `search`."""
    parser.add_argument(
        "problems", metavar="PROBLEMS", nargs="?", help="the problems; default the task's place on the hub"
    )
    add_output(parser, "ANSWERS", "the results: a .jsonl or .jsonl.gz file, or - for standard output")
    parser.add_argument("--limit", type=count, metavar="N", help="search the first N problems only")
    names = [task.name for task in TASKS if task.ask is not None]
    parser.add_argument(
        "--task", default="custom", choices=names, metavar="TASK", help=f"one of {', '.join(names)}; default custom"
    )
    parser.add_argument("--grader", choices=NAMES, help="default the task's own")
    parser.add_argument(
        "--unsafe-no-sandbox",
        action="store_true",
        help="run programs that a model wrote although nothing here keeps them from the rest of the machine",
    )
    _add_method(parser.add_argument_group("method"))
    _add_writing(parser.add_argument_group("policy"))
    add_scoring(parser)
    add_policies(parser)
    # Steps that are written one by one are not cut.
    parser.set_defaults(steps=None)


def _add_method(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--method", required=True, choices=tuple(SEARCH_METHODS), help="how to search")
    group.add_argument(
        "--n", type=count, metavar="N", help="traces of sample, adaptive, particles and rebase; default 16"
    )
    group.add_argument("--width", type=count, metavar="W", help="traces that beam and dvts follow; default 4")
    group.add_argument("--expand", type=count, metavar="M", help="continuations of each; default 4")
    group.add_argument(
        "--balance",
        type=float,
        metavar="T",
        help="temperature of the softmax of particles (default 1) and rebase (default 0.2)",
    )
    group.add_argument(
        "--tolerance",
        type=float,
        metavar="X",
        help="adaptive, with --pick prm: stop at a reward within X of the highest that there can be; default 0",
    )
    group.add_argument(
        "--confidence",
        type=float,
        metavar="P",
        help="adaptive, with --pick majority: stop also when the leading answer is the likelier one with probability "
        "P; default only when it is certain",
    )
    group.add_argument(
        "--pick",
        default="prm",
        choices=PICKS,
        help="among the candidates: the highest reward (prm), the answer with the largest sum of rewards (weighted), "
        "or the most frequent answer (majority); default prm",
    )
    group.add_argument(
        "--cap-tokens",
        type=count,
        metavar="N",
        help="begin no further round for a problem once policy and PRM together have taken N tokens for it",
    )
    group.add_argument(
        "--at-once", type=count, default=8, metavar="N", help="problems searched at the same time; default 8"
    )


def _add_writing(group: argparse._ArgumentGroup) -> None:
    default = Writing()
    group.add_argument("--policy", required=True, metavar=SPEC, help="who writes")
    group.add_argument(
        "--temperature", type=float, default=default.temperature, metavar="X", help=f"default {default.temperature:g}"
    )
    group.add_argument("--top-p", type=float, default=default.top_p, metavar="X", help=f"default {default.top_p:g}")
    group.add_argument(
        "--max-tokens",
        type=count,
        default=default.max_tokens,
        metavar="N",
        help=f"most tokens of a trace, thinking included; default {default.max_tokens:,}",
    )
    group.add_argument(
        "--step-tokens",
        type=count,
        default=default.step_tokens,
        metavar="N",
        help=f"most tokens of a step that meets no stop text; default {default.step_tokens}",
    )
    group.add_argument(
        "--max-steps",
        type=count,
        default=default.max_steps,
        metavar="N",
        help=f"most steps of a trace; default {default.max_steps}",
    )
    group.add_argument(
        "--stop",
        action="append",
        type=_unescaped,
        metavar="TEXT",
        help=r"what ends a step, with \n for a line break; may be given several times; default \n\n",
    )
    group.add_argument(
        "--opening",
        type=_unescaped,
        default="",
        metavar="TEXT",
        help=r"what every answer begins with; <think>\n for thinking models that do not write the mark themselves",
    )
    group.add_argument("--seed", type=int, default=0, metavar="N", help="of all that is drawn; default 0")


def _unescaped(text: str) -> str:
    return text.replace("\\n", "\n")


def run(arguments: argparse.Namespace) -> int:
    """Search, and say what came of it."""
    command = _command(arguments)
    with ExitStack() as stack:
        return _search(command, stack)


def _command(arguments: argparse.Namespace) -> SearchCommand:
    """Return what the arguments say, once they go together."""
    task = find_task(arguments.task)
    if arguments.problems is None and task.source is None:
        raise UsageError(f"the task {task.name} has no problems of its own; name a file or a data set")
    method = open_method(arguments.method, {name: getattr(arguments, name) for name in _METHOD_FLAGS})
    if method.steps and arguments.steps is not None:
        raise UsageError(f"--steps cuts finished traces, and {method.name} writes step by step; --stop says where")
    writing = Writing(
        temperature=arguments.temperature,
        top_p=arguments.top_p,
        max_tokens=arguments.max_tokens,
        step_tokens=arguments.step_tokens,
        max_steps=arguments.max_steps,
        stop=tuple(arguments.stop or Writing().stop),
        opening=arguments.opening,
        seed=arguments.seed,
    )
    grader = arguments.grader or (default_grader() if task.grader == "auto" else task.grader)
    return SearchCommand(
        problems=arguments.problems,
        limit=arguments.limit,
        output=arguments.output,
        fresh=arguments.fresh,
        task=task,
        grader=grader,
        unsafe=arguments.unsafe_no_sandbox,
        policy=arguments.policy,
        method=method,
        settings=SearchSettings(writing, arguments.pick, arguments.cap_tokens, arguments.at_once),
        scoring=replace(scoring_of(arguments), steps=arguments.steps or task.steps),
        policies=policies_of(arguments),
    )


def _search(command: SearchCommand, stack: ExitStack) -> int:
    from reasonflux_prm.search.run import ProblemInput, run_search, stream_search

    source = ProblemInput(command.problems or command.task.source or "", limit=command.limit, task=command.task)
    policies = stack.enter_context(Policies(command.policies))
    grader = stack.enter_context(open_task_grader(command.grader, allow_unsafe=command.unsafe))
    policy = policies.open(command.policy)
    searcher = Searcher(command.method, policy, _reader(command), grader, command.settings, command.task)
    shown = _Lines()
    if command.output == PIPE:
        progress = stream_search(searcher, source, say_reject, shown)
        say(_outcome(progress, None) + ".")
        return int(progress.unpicked > 0 or progress.rejects > 0)
    output = Path(command.output)
    try:
        progress = run_search(searcher, source, output, resume=not command.fresh, hook=shown)
    except (KeyboardInterrupt, PolicyStopped):
        say(f"{output}: what is found and answered so far is kept; the same command goes on from there")
        raise
    if progress.resumed_traces == progress.traces > 0:
        say(f"{output} was complete: nothing was left to search")
    elif progress.resumed_traces:
        say(f"{progress.resumed_traces:,} of {progress.traces:,} problems had been searched before the interruption")
    asked = policies.cost()
    paid = f"; asked: {said_cost(asked)}" if asked.get("requests") or asked.get("cached_completions") else ""
    hint = next_command("score", output, "-o", side_path(output, ".scored.jsonl"))
    say(f"{output}: {_outcome(progress, output)}{paid}. {hint}")
    return int(progress.unpicked > 0 or progress.rejects > 0)


def _reader(command: SearchCommand) -> Reader | None:
    """Load the PRM, if there is to be one."""
    if command.scoring.prm == NO_PRM:
        if command.scoring != ScoringConfig(prm=NO_PRM, steps=command.scoring.steps):
            raise UsageError("without a PRM, leave the flags that say how to score out")
        return None
    if command.settings.pick == "majority" and not command.method.steps:
        raise UsageError(f"a majority of whole traces uses no PRM; pass --prm {NO_PRM}")
    from reasonflux_prm.search.reader import open_reader

    return open_reader(command.scoring.scorer())


class _Lines:
    """Prints where a search is, every ten seconds at most."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def __call__(self, chunk: list[SearchResult], progress: Progress) -> None:
        """Take note of a result."""
        if time.monotonic() - self._last >= LINE_EVERY_S:
            self._last = time.monotonic()
            say(_outcome(progress, None))


def _outcome(progress: Progress, output: Path | None) -> str:
    """Return what came of a search, in words."""
    picked = progress.counts[SearchStatus.PICKED.value]
    parts = [f"{progress.traces:,} problems, {picked:,} picks"]
    if progress.known:
        share = progress.right / progress.known
        parts[0] += f", {progress.right:,} of {progress.known:,} right where that is known ({share:.1%})"
    parts += [f"{progress.candidates:,} candidates"]
    cost = progress.cost
    parts += [f"{cost['policy_tokens']:,} tokens written, {cost['prm_tokens']:,} read by the PRM"]
    if progress.most:
        parts += [
            f"{progress.drawn:,} of {progress.most:,} samples drawn ({1 - progress.drawn / progress.most:.0%} saved)"
        ]
    if progress.capped:
        parts += [f"{progress.capped:,} problems reached the cap"]
    if progress.rejects:
        where = f" (see {side_path(output, REJECTS_SUFFIX)})" if output else ""
        parts += [f"{progress.rejects:,} refused{where}"]
    parts += [f"{number:,} {trouble}" for trouble, number in progress.troubles.most_common() if number]
    return "; ".join(parts)
