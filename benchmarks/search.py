"""Beam search over steps: what sessions save against reading every prefix anew, on the same candidates.

A scripted policy replays steps of recorded traces, chosen by what stands before them, so that both ways of reading
search the same tree. One keeps the PRM's past, the other reads every draft from its beginning, as a search has to with
a PRM that only scores whole texts. Reported: the tokens that each had the PRM read, the wall time, and whether the
picks, the rewards and every other candidate are the same.

    python -m benchmarks.search --width 4 --expand 4 --steps 30 --problems 8 -o search.json

With `--policy FOLDER` a local model writes the steps instead, once with what it has read kept across rounds and once
without: the tokens that it had to read, the time, and whether both found the same.

    python -m benchmarks.search --policy FOLDER --width 4 --expand 2 --steps 8 --problems 2 -o policy.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Sequence
from hashlib import blake2b
from importlib.resources import files
from pathlib import Path
from typing import Any

from reasonflux_prm.evaluation.tasks.base import Problem
from reasonflux_prm.grading.graders import open_grader
from reasonflux_prm.policy.base import Completion, Message, Request
from reasonflux_prm.policy.scripted import ScriptedPolicy
from reasonflux_prm.scoring.engine import Engine
from reasonflux_prm.search.beam import Beam
from reasonflux_prm.search.reader import Reader, SessionReader, WholeReader
from reasonflux_prm.search.result import SearchResult
from reasonflux_prm.search.searcher import Searcher, SearchSettings
from reasonflux_prm.search.writing import Writing
from reasonflux_prm.steps.split import split
from reasonflux_prm.traces.read import read_traces

SAMPLES = files("reasonflux_prm") / "data" / "demo.jsonl"
STOP = "\n\n"


class Replay(ScriptedPolicy):
    """Writes recorded steps: which one comes next depends on the prefix and the sample's index only.

    Args:
        steps: Texts of recorded steps.
        length: Steps of a trace; the last is the response.
    """

    def __init__(self, steps: Sequence[str], length: int) -> None:
        super().__init__(self._next, name="replay")
        self._steps, self._length = steps, length

    def _next(self, request: Request) -> list[Completion]:
        done = request.prefix.count(STOP)
        return [self._step(request.prefix, done, at) for at in range(request.n)]

    def _step(self, prefix: str, done: int, at: int) -> Completion:
        digest = blake2b(f"{at}\0{prefix}".encode(errors="surrogatepass"), digest_size=8).digest()
        text = self._steps[int.from_bytes(digest, "big") % len(self._steps)]
        if done == self._length - 1:
            return Completion(f"{text} The answer is {digest[0] % 5}.", stopped_at="", completion_tokens=1)
        closing = "\n</think>" if done == self._length - 2 else ""
        return Completion(text + closing, stopped_at=STOP, completion_tokens=1)


def recorded(path: str, problems: int) -> tuple[list[Problem], list[str]]:
    """Return problems of a file, and the thinking steps of all its traces."""
    found: dict[str, Problem] = {}
    steps: dict[str, None] = {}
    for trace in read_traces(path):
        if len(found) < problems:
            found.setdefault(trace.problem, Problem(trace.id, trace.problem, trace.answer))
        segmented = split(trace)
        # A blank line would end the step early; an adaptive step may hold several paragraphs.
        texts = (segmented.text(step).replace(STOP, "\n").strip() for step in segmented.steps)
        steps.update(dict.fromkeys(text for text in texts if text and "</think>" not in text))
    return list(found.values()), list(steps)


def searched(reader: Reader, problems: Sequence[Problem], steps: Sequence[str], arguments: argparse.Namespace) -> Any:
    """Search all problems one after the other; return the results and the seconds."""
    writing = Writing(opening="<think>\n", max_steps=arguments.steps, max_tokens=1 << 30, step_tokens=1 << 20)
    with open_grader("string") as grader:
        searcher = Searcher(
            Beam(arguments.width, arguments.expand),
            Replay(steps, arguments.steps),
            reader,
            grader,
            SearchSettings(writing, at_once=1),
        )
        started = time.perf_counter()
        results = list(searcher.search(problems))
        return results, time.perf_counter() - started


def searched_locally(
    engine: Engine, problems: Sequence[Problem], arguments: argparse.Namespace, prefix_bytes: int | None
) -> tuple[list[SearchResult], dict[str, float]]:
    """Search with a local policy; return the results, the tokens that its model read, and seconds."""
    from reasonflux_prm.policy.local import LocalPolicy

    policy = LocalPolicy(arguments.policy, prefix_bytes=prefix_bytes)
    policy.generate([Request((Message("user", "Hello"),), max_tokens=1)])
    read = [0]

    def count(_module: Any, _given: Any, named: dict[str, Any]) -> None:
        read[0] += int(named["attention_mask"][:, -named["input_ids"].shape[1] :].sum())

    policy._model.base_model.register_forward_pre_hook(count, with_kwargs=True)
    writing = Writing(max_steps=arguments.steps, max_tokens=1 << 20, step_tokens=arguments.step_tokens, stop=("\n",))
    with open_grader("string") as grader:
        beam, reader = Beam(arguments.width, arguments.expand), SessionReader(engine)
        searcher = Searcher(beam, policy, reader, grader, SearchSettings(writing, at_once=1))
        started, cpu = time.perf_counter(), time.process_time()
        results = list(searcher.search(problems))
        took = {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - cpu}
    policy.close()
    written = sum(one.policy_tokens for one in results)
    return results, {"read": read[0], "written": written, **took}


def compared(kept: Sequence[SearchResult], anew: Sequence[SearchResult]) -> dict[str, Any]:
    """Return how far two searches came to the same."""
    pairs = list(zip(kept, anew, strict=True))
    texts = [([one.text for one in a.candidates], [one.text for one in b.candidates]) for a, b in pairs]
    rewards = [(a.pick.scores, b.pick.scores) for a, b in pairs if a.pick is not None and b.pick is not None]
    apart = [abs((x or 0.0) - (y or 0.0)) for a, b in rewards for x, y in zip(a, b, strict=True)]
    return {
        "same_picks": sum(
            a.picked is not None and b.picked is not None and a.picked.text == b.picked.text for a, b in pairs
        ),
        "same_candidates": sum(one == other for one, other in texts),
        "largest_difference_of_rewards": max(apart, default=None),
    }


def with_prm(
    engine: Engine, problems: Sequence[Problem], steps: Sequence[str], arguments: argparse.Namespace
) -> dict[str, Any]:
    """Measure what the PRM's sessions save."""
    kept, kept_s = searched(SessionReader(engine), problems, steps, arguments)
    anew, anew_s = searched(WholeReader(engine), problems, steps, arguments)
    tokens = {"kept": sum(one.prm_tokens for one in kept), "anew": sum(one.prm_tokens for one in anew)}
    return {
        "recorded_steps": len(steps),
        "prm_tokens": tokens,
        "times_fewer_tokens": tokens["anew"] / tokens["kept"],
        "each_times_fewer": [two.prm_tokens / one.prm_tokens for one, two in zip(kept, anew, strict=True)],
        "seconds": {"kept": kept_s, "anew": anew_s},
        "times_faster": anew_s / kept_s,
        **compared(kept, anew),
    }


def with_policy(
    engine: Engine, problems: Sequence[Problem], _steps: Sequence[str], arguments: argparse.Namespace
) -> dict[str, Any]:
    """Measure what a local policy saves that keeps what it has read."""
    kept, kept_took = searched_locally(engine, problems, arguments, None)
    anew, anew_took = searched_locally(engine, problems, arguments, 0)
    return {
        "policy_kept": kept_took,
        "policy_anew": anew_took,
        "times_fewer_tokens_read": anew_took["read"] / kept_took["read"],
        "times_less_cpu": anew_took["cpu_seconds"] / kept_took["cpu_seconds"],
        **compared(kept, anew),
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=4)
    parser.add_argument("--expand", type=int, default=4)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--problems", type=int, default=8)
    parser.add_argument("--prm", default="embedded")
    parser.add_argument("--traces", default=str(SAMPLES), help="recorded traces whose steps are replayed")
    parser.add_argument("--policy", metavar="FOLDER", help="a local model that writes, instead of recorded steps")
    parser.add_argument("--step-tokens", type=int, default=48, help="most tokens of a step that the model writes")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()

    import torch

    from reasonflux_prm.prm.load import load_prm

    torch.set_num_threads(arguments.threads)
    problems, steps = recorded(arguments.traces, arguments.problems)
    engine = Engine(load_prm(arguments.prm))
    report = {
        "prm": engine.identity.name,
        "problems": len(problems),
        "width": arguments.width,
        "expand": arguments.expand,
        "steps": arguments.steps,
        **(with_policy if arguments.policy else with_prm)(engine, problems, steps, arguments),
        "threads": arguments.threads,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "torch": torch.__version__,
    }
    text = json.dumps(report, indent=2)
    print(text)
    if arguments.output:
        arguments.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
