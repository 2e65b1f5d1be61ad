"""A policy taught by word problems and what chooses among its samples; a PRM that is trained on them.

    python -m recipes.words.run --data DATA --student ADAPTERS -o FOLDER --stages write teach test choose

ADAPTERS is the folder of a student's adapters (`FOLDER/student/adapter` of `recipes.prm_135m`); the policy and the PRM
go on from them. DATA holds `problems/gsm8k_train.jsonl` to learn from, `problems/svamp.jsonl` and
`problems/gsm8k_test.jsonl` to measure on. Every stage leaves its output below FOLDER, and is skipped where it is whole:

- `write`: problems to teach with, others to sample on, and those of stories that are set aside; `teach`: the policy;
- `test`: its samples on tests that nothing was learnt from; `choose`: by the embedded PRM, with claims checked and not;
- `sample`: the policy's samples to learn from; `trees`: these, wrong solutions and GSM8K train's, labelled;
- `train`: a PRM; `calibrate`: its rewards; `choose-own`: as `choose`, by this PRM.

Work is done by as many processes of one thread as `--parallel` says.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from reasonflux_prm.evaluation.tasks import find_task, gsm8k, svamp
from reasonflux_prm.prm.embedded.install import ensure_base, ensure_embedded
from reasonflux_prm.traces.write import atomic_path
from recipes.prm_135m.commands import run, run_stages
from recipes.prm_135m.gold import write_gold
from recipes.prm_135m.logprobs import add_logprobs
from recipes.prm_135m.samples import sample
from recipes.selection_results.choosing import write_chosen
from recipes.words.wrong import KINDS

TAUGHT: Final = 6000
"""Problems to teach with; `LESSON` is spent on some 2,100 of them."""
LESSON: Final = 100_000
"""Tokens of solutions."""
SAMPLED: Final = 300
"""Problems whose samples the PRM learns from."""
DEV: Final = 40
"""Problems of stories that are set aside, whose samples training is watched on."""
EACH: Final = 8
"""Samples of a problem."""
ERRORS: Final = 6
"""Wrong solutions of a problem."""
TREES: Final = {"words": 1500, "sampled": 300, "gsm8k": 300}
"""Problems of each kind that the PRM learns from: with wrong solutions, with samples, and GSM8K train's with errors."""
LEFT: Final = tuple(kind for kind in KINDS if kind != "slip")
"""Errors that the PRM learns: slips are found by checking claims, and samples with a false one are left out too."""
TASKS: Final = {"svamp": (svamp.TASK, "svamp.jsonl", 240), "gsm8k": (gsm8k.TASK, "gsm8k_test.jsonl", 60)}
"""Of each test, its file, and so many of its problems, by a hash of their text."""
BEST_OF: Final = 16
AT_ONCE: Final = 192
"""Samples that a process writes together: products of so many rows are what a core is fast at."""


@dataclass(frozen=True, slots=True)
class Words:
    """All stages, in one folder."""

    data: Path
    student: Path
    folder: Path
    parallel: int

    def at(self, name: str) -> Path:
        """Return where something is kept."""
        return self.folder / name

    def write(self) -> None:
        """Write the problems."""
        for name, count, how in (
            ("words", TAUGHT, ["--seed", "0"]),
            ("sampled", SAMPLED, ["--seed", "1"]),
            ("dev", 400, ["--seed", "0", "--dev"]),
        ):
            if not self.at(f"{name}.jsonl").exists():
                self._python("recipes.words.write", "-o", self.at(f"{name}.jsonl"), "--count", count, *how)
        write_chosen(self.at("dev.jsonl"), self.at("dev-sampled.jsonl"), most=DEV)

    def teach(self) -> None:
        """Teach the policy."""
        if not self.at("policy/sft.json").exists():
            amounts = ("--tokens", LESSON, "--learning-rate", "6e-4", "--frozen", 10, "--prompt-once")
            how = (*amounts, "--start-from", self.student)
            self._together("recipes.student.sft", self.at("words.jsonl"), "-o", self.at("policy"), *how)

    def sample(self) -> None:
        """Sample the policy on problems of stories that it knows, and of others."""
        for name in ("sampled", "dev-sampled"):
            self._sample(gsm8k.TASK.name, self.at(f"{name}.jsonl"), self.at(f"{name}.candidates.jsonl"), EACH)

    def trees(self) -> None:
        """Label wrong solutions and samples, and mix in GSM8K train's; what training is watched on comes first."""
        train, dev = self.data / "problems/gsm8k_train.jsonl", self.at("dev-sampled.jsonl")
        self._python("recipes.prm_first.data", train, "-o", self.at("gsm8k.trees.jsonl"), "--seed", 0)
        for name, problems in (("words", self.at("words.jsonl")), ("dev-errors", dev)):
            errors = self.at(f"{name}.errors.jsonl")
            self._python("recipes.words.wrong", problems, "-o", errors, "--each", ERRORS, "--kinds", *LEFT)
            self._label(problems, errors, name)
        for name in ("sampled", "dev-sampled"):
            self._label(self.at(f"{name}.jsonl"), self.at(f"{name}.candidates.jsonl"), name)
        learnt = [line for name, most in TREES.items() for line in lines(self.at(f"{name}.trees.jsonl"))[:most]]
        random.Random(0).shuffle(learnt)
        with atomic_path(self.at("mixed.jsonl")) as part:
            part.write_text("".join([*self._watched(), *learnt]), "utf-8")

    def _watched(self) -> list[str]:
        """Return the trees that training is watched on."""
        return [*lines(self.at("dev-errors.trees.jsonl"))[: DEV // 2], *lines(self.at("dev-sampled.trees.jsonl"))]

    def _label(self, problems: Path, candidates: Path, name: str) -> None:
        trees, held = self.at(f"{name}.trees.jsonl"), self.at(f"{name}.traces.jsonl")
        self._python(
            "recipes.prm_first.sampled", problems, candidates, "-o", trees, "--all", "--claims-hold", "--traces", held
        )

    def train(self) -> None:
        """Train the PRM, from the policy on."""
        adapter = self.at("adapter.safetensors")
        if adapter.exists():
            return
        where = ("--base", ensure_base(), "--cache", self.at("cache"), "-o", self.at("best.safetensors"))
        amounts = ("--dev", len(self._watched()), "--epochs", 1, "--batch", 8, "--every", 80)
        how = (*amounts, "--split", 0, "--frozen", 10, "--lr", "4e-4", "--longest", 900, "--threads", 1, "--slips", 0)
        more = ("--start-from", self.at("policy/adapter"), "--workers", 1)
        self._together("recipes.prm_first.train", self.at("mixed.jsonl"), *where, *how, *more)
        self.at("best.safetensors").rename(adapter)

    def calibrate(self) -> None:
        """Fit maps of the rewards on traces of the stories that are set aside and of GSM8K train; ship the adapter."""
        if self.at("calibrated.safetensors").exists():
            return
        gold = [self.at(f"gsm8k-held-{side}.jsonl") for side in "ab"]
        with atomic_path(self.at("held.trees.jsonl")) as part:
            part.write_text("".join(lines(self.at("gsm8k.trees.jsonl"))[-DEV:]), "utf-8")
        write_gold(self.at("held.trees.jsonl"), *gold, thinking=False, seed=0, problems=DEV, branches=2)
        words = [self.at(f"{name}.traces.jsonl") for name in ("dev-errors", "dev-sampled")]
        held, scored = self.at("held.jsonl"), self.at("held.scored.jsonl")
        with atomic_path(held) as part:
            part.write_text("".join(line for path in (*gold, *words) for line in lines(path)), "utf-8")
        prm = ensure_embedded(self.at("adapter.safetensors"))
        run("score", held, "-o", scored, "--steps", "given", "--prm", prm)
        run("calibrate", scored, "-o", self.at("maps.json"))
        shipped = ("-o", self.at("calibrated.safetensors"))
        self._python("recipes.prm_135m.ship", self.at("adapter.safetensors"), self.at("maps.json"), *shipped)

    def test(self) -> None:
        """Sample the policy on the tests, and note how likely it finds each sample."""
        for name, (task, file, most) in TASKS.items():
            problems, sampled = self.at(f"{name}.jsonl"), self.at(f"{name}.sampled.jsonl")
            write_chosen(self.data / "problems" / file, problems, most=most)
            self._sample(task.name, problems, sampled, BEST_OF)
            add_logprobs(sampled, self.at("policy"), self.at(f"{name}.candidates.jsonl"))

    def choose(self) -> None:
        """Choose by the embedded PRM, by what is left of its rewards once claims are checked, and by claims alone."""
        self._choose("embedded", "plain", "checked")

    def choose_own(self) -> None:
        """Choose by the PRM that was trained here."""
        self._choose(ensure_embedded(self.at("calibrated.safetensors")), "own", "own-checked")

    def _choose(self, prm: str | Path, plain: str, checked: str) -> None:
        for name in TASKS:
            candidates, first = self.at(f"{name}.candidates.jsonl"), self.at(f"{name}-{plain}.json")
            asked = ("evaluate", name, "--rewards", "logprob", "--candidates")
            run(*asked, candidates, "--prm", prm, "-o", first)
            run(*asked, first.with_suffix(".scored.jsonl"), "--check-claims", "-o", self.at(f"{name}-{checked}.json"))
            run(*asked, candidates, "--prm", "claims", "-o", self.at(f"{name}-claims.json"))

    def _sample(self, task: str, problems: Path, output: Path, n: int) -> None:
        """Sample in several processes, each on every so-manieth problem."""
        if output.exists():
            return
        rows, parts = lines(problems), list[Path]()
        for number in range(self.parallel):
            part = output.with_suffix(f".part{number}")
            part.write_text("".join(rows[number :: self.parallel]), "utf-8")
            parts.append(part)
        asked = [("recipes.words.run", "--part", task, part, self.at("policy"), n) for part in parts]
        with ThreadPoolExecutor(self.parallel) as pool:
            list(pool.map(lambda words: self._python(*words), asked))
        done = [lines(part.with_suffix(f"{part.suffix}.done")) for part in parts]
        with atomic_path(output) as whole:
            whole.write_text("".join(done[at % self.parallel][at // self.parallel] for at in range(len(rows))), "utf-8")

    def _python(self, module: str, *words: object) -> None:
        self._start(["-m", module, *map(str, words)])

    def _together(self, module: str, *words: object) -> None:
        """Run a module in several processes that share the work."""
        processes = ["torch.distributed.run", "--nproc-per-node", str(self.parallel)]
        self._start(["-m", *processes, "-m", module, *map(str, words)])

    def _start(self, words: Sequence[str]) -> None:
        print("+ python", *words, flush=True)
        subprocess.run([sys.executable, *words], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})

    def stages(self) -> dict[str, Callable[[], None]]:
        """Return all stages, in order."""
        return {
            "write": self.write, "teach": self.teach, "test": self.test, "choose": self.choose, "sample": self.sample,
            "trees": self.trees, "train": self.train, "calibrate": self.calibrate, "choose-own": self.choose_own,
        }  # fmt: skip


def lines(path: Path) -> list[str]:
    """Return the lines of a file, with their ends."""
    return path.read_text("utf-8").splitlines(keepends=True)


def main() -> None:
    """Parse the command line and run every stage, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--student", type=Path, help="folder of a student's adapters")
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--parallel", type=int, default=2)
    parser.add_argument("--stages", nargs="+", help="only these, of those before which are done")
    parser.add_argument("--part", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        task, problems, policy, n = args.part
        done = Path(f"{problems}.done")
        sample(find_task(task), Path(problems), f"local:{policy}", done, int(n), None, at_once=AT_ONCE)
        return
    if not (args.data and args.student and args.output):
        parser.error("expected --data, --student and -o")
    args.output.mkdir(parents=True, exist_ok=True)
    run_stages(Words(args.data, args.student, args.output, args.parallel).stages(), args.stages)


if __name__ == "__main__":
    main()
