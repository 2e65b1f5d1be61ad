"""The whole paper on a laptop: a policy, its labelled samples, a PRM, and the three uses of its rewards.

    python -m recipes.small_world.run -o FOLDER

Every stage leaves its output below FOLDER and is skipped where that is whole, so a run that was killed goes on:

- `problems`: stories to add up (`world.py`), and a small random Llama (`base.py`);
- `teach`: policies that think in steps and then respond: `novice`, `student`, taught longer, and `expert`, much longer;
- `sample`: the first two answer problems; `label`: steps by rules, by outcome or by the truth; `train`: `PRMS`;
- `choose`: best of 16 by each PRM and by votes, on tests that nothing was learnt from;
- `select`: `recipes.select_sft`, whose students begin as the novice;
- `grpo`: `recipes.grpo`, which begins as the student.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Final

from reasonflux_prm.evaluation.tasks import gsm8k
from reasonflux_prm.evaluation.tasks.base import Problem, load
from reasonflux_prm.evaluation.tasks.sampling import SamplingSettings, write_candidates
from reasonflux_prm.policy.local import LocalPolicy
from reasonflux_prm.records import Trace
from reasonflux_prm.traces.native import trace_row
from reasonflux_prm.traces.write import atomic_path, json_line
from recipes.prm_135m.commands import run, run_stages
from recipes.prm_135m.samples import graded, with_steps
from recipes.select_sft.pool import write_pool
from recipes.small_world.base import GAP, STEP, TRACE, write_base
from recipes.small_world.corrupt import corrupted
from recipes.small_world.story import with_truth
from recipes.small_world.world import SPLITS, write_problems
from recipes.student.form import chat_row, reference_traces
from recipes.student.sft import SFTSettings, teach

RULE: Final = "blank-line"
TOKENS = 80
"""Of a sample; the longest solutions have some 70."""
LESSONS: Final = {
    "beginner": ("random", 2_200_000),
    "novice": ("beginner", 450_000),
    "student": ("beginner", 900_000),
    "expert": ("student", 3_600_000),
}
"""From what each policy goes on, and the tokens that it is taught. The expert samples nothing: a PRM begins as it."""
LEARNT: Final = slice(16_000, 17_000)
"""Training problems whose samples the PRMs learn from."""
MORE: Final = slice(8_000, 12_000)
"""Further ones, of the PRM that learns from more."""
POOLED: Final = slice(19_000, 20_500)
"""Training problems of the pool that is selected from."""
PRMS: Final = {
    "prm": ("student", "labels"),
    "prm-outcome": ("student", "outcomes"),
    "prm-expert": ("expert", "outcomes"),
    "prm-more": ("expert", "more"),
    "prm-truth": ("expert", "truth"),
}
"""By its name, what a PRM begins as, and the files that it learns from: labels of steps by rules; all steps of a trace
by its answer, also of more problems; or, of as many, whether all is right up to the step."""
PRM_SAMPLES: Final = {"novice": 4, "student": 8}
MORE_SAMPLES: Final = {"novice": 2, "student": 4}
POOL_SAMPLES: Final = {"novice": 2, "student": 2}


@dataclass(frozen=True, slots=True)
class World:
    """All stages, in one folder."""

    folder: Path
    parallel: int
    prm: str = "prm"
    """A key of `PRMS`, which chooses and rewards in the last two stages."""

    @property
    def problems(self) -> list[Path]:
        """The files of training problems, test problems, and longer test problems."""
        return [self.folder / "problems" / own.file for own in SPLITS]

    def make(self) -> None:
        """Write the problems and a random model."""
        write_problems(self.folder / "problems")
        write_base(self.problems[0], self.folder / "random")

    def teach(self) -> None:
        """Teach the two policies, asked with and without the words about a box."""
        for name, (before, tokens) in LESSONS.items():
            settings = SFTSettings(tokens, batch=64, at_once=64, learning_rate=3e-3, rank=None, whole=True)
            rows = []
            for number, trace in enumerate(reference_traces(self.problems[0], GAP)):
                row = chat_row(trace)
                if number % 2:
                    row["prompt"] = [{"role": "user", "content": trace.problem}]
                rows.append(row)
            print(name, teach(self.folder / before, rows, self.folder / name, settings), flush=True)

    def sample(self) -> None:
        """Sample both policies on training problems, for the PRM and for the pool."""
        problems = load(gsm8k.TASK, self.problems[0])
        uses = {
            "learnt": (LEARNT, PRM_SAMPLES), "more": (MORE, MORE_SAMPLES), "pooled": (POOLED, POOL_SAMPLES)
        }  # fmt: skip
        for use, (part, samples) in uses.items():
            for name, n in samples.items():
                self._sample(name, problems[part], n, self.folder / f"{use}-{name}.candidates.jsonl")

    def _sample(self, policy: str, problems: list[Problem], n: int, output: Path) -> None:
        if output.exists():
            return
        opened = LocalPolicy(str(self.folder / policy), batch_sequences=256)
        try:
            print(write_candidates(gsm8k.TASK, problems, opened, SamplingSettings(n, 1.0, 1.0, TOKENS, 0), output))
        finally:
            opened.close()

    def label(self) -> None:
        """Label the samples: traces by their answers; steps by rules, by their trace's answer, or by the truth."""
        for name in PRM_SAMPLES:
            source, labels = self.folder / f"learnt-{name}.candidates.jsonl", self.folder / f"labels-{name}.jsonl"
            how = ("--steps", RULE, "--quality", "rules", "--trajectory", "outcome", "--grader", "numeric")
            formula = ("--aggregation", "mean", "--alignment", "none", "--no-coherence")
            run("label", source, "-o", labels, *how, *formula)
            more = self.folder / f"more-{name}.candidates.jsonl"
            for kind, file, labelled in (
                ("outcomes", source, with_steps), ("more", more, with_steps), ("truth", more, with_truth)
            ):  # fmt: skip
                with atomic_path(self.folder / f"{kind}-{name}.jsonl") as part:
                    part.write_bytes(b"".join(json_line(trace_row(labelled(trace, RULE))) for trace in graded(file)))

    def train(self) -> None:
        """Train the PRMs."""
        how = ("--separator", STEP, "--marker", TRACE, "--lr", "1e-3")
        amounts = ("--epochs", "2", "--batch-tokens", "8192", "--trackers", "none", "--loss", "bce")
        for prm, (base, kind) in PRMS.items():
            labels = [self.folder / f"{kind}-{name}.jsonl" for name in PRM_SAMPLES]
            # Labels have trajectory targets; what `prm-more` learns of a whole trace is its last step's label.
            more = ("--outcome-targets",) if kind in ("outcomes", "truth") else ()
            run("train", *labels, "-o", self.folder / prm, "--base", self.folder / base, *how, *amounts, *more)

    def choose(self) -> None:
        """Choose among samples of the tests."""
        for file, test in zip(self.problems[1:], SPLITS[1:], strict=True):
            samples = self.folder / f"{test.source}.candidates.jsonl"
            self._sample("student", load(gsm8k.TASK, file), 16, samples)
            for prm in PRMS:
                asked = ("--candidates", samples, "--steps", RULE, "--prm", self.folder / prm)
                run("evaluate", "gsm8k", *asked, "-o", self.folder / f"{test.source}-{prm}.json")

    def select(self) -> None:
        """Train students on what each method selects."""
        pool = self.folder / "pool.jsonl"
        if not pool.exists():
            for name, (right, number) in write_pool(pool, self._pool()).items():
                print(f"pool: {name:10} {number:6,} traces, {right / number:.1%} right", flush=True)
        self._recipe(
            "recipes.select_sft.run", "--data", self.folder / "problems", "--pool", pool,
            "--student", self.folder / "novice", "-o", self.folder / f"select-{self.prm}",
        )  # fmt: skip

    def _pool(self) -> Iterator[Trace]:
        for name in POOL_SAMPLES:
            for trace in graded(self.folder / f"pooled-{name}.candidates.jsonl"):
                if trace.thinking.strip() and trace.response.strip():
                    yield replace(trace, policy="policy", source=name, id=f"{trace.id}-{name}")
        for trace in islice(reference_traces(self.problems[0], GAP), POOLED.start, POOLED.stop):
            yield replace(trace, id=f"{trace.id}-reference", group=trace.id)
            yield replace(corrupted(trace), id=f"{trace.id}-corrupted", group=trace.id)

    def grpo(self) -> None:
        """Train policies from seven rewards."""
        output = self.folder / f"grpo-{self.prm}"
        self._recipe("recipes.grpo.run", *self.problems, "--student", self.folder / "student", "-o", output)

    def _recipe(self, module: str, *words: object) -> None:
        command = [module, *map(str, words), "--size", "world", "--prm", str(self.folder / self.prm)]
        command += ["--parallel", str(self.parallel)]
        print("+ python -m", shlex.join(command), flush=True)
        threads = str(max(1, (os.cpu_count() or 1) // self.parallel))
        subprocess.run([sys.executable, "-m", *command], check=True, env={**os.environ, "OMP_NUM_THREADS": threads})

    def stages(self) -> dict[str, Callable[[], None]]:
        """Return all stages, in order."""
        return {
            "problems": self.make, "teach": self.teach, "sample": self.sample, "label": self.label, "train": self.train,
            "choose": self.choose, "select": self.select, "grpo": self.grpo,
        }  # fmt: skip


def main() -> None:
    """Parse the command line and run every stage, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--parallel", type=int, default=2, help="trainings at once in the last two stages; default 2")
    parser.add_argument("--prm", choices=PRMS, default="prm", help="of the last two stages; default prm")
    parser.add_argument("--stages", nargs="+", help="only these, of those before which are done")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    run_stages(World(args.output, args.parallel, args.prm).stages(), args.stages)


if __name__ == "__main__":
    main()
