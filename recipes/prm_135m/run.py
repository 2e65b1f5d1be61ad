"""The embedded PRM from nothing: a student, its graded samples, training in both layouts, and the tables.

    python -m recipes.prm_135m.run --data DATA -o FOLDER --size gpu

DATA holds `problems/gsm8k_train.jsonl` to learn from, and `problems/gsm8k_test.jsonl`, `problems/svamp.jsonl` and
`steps/mr_gsm8k_first_error.jsonl`, `steps/prmbench.jsonl`, `steps/thought_anchors_mc_values.jsonl` to measure on;
nothing is learnt from these. Each stage is skipped where its output is whole, so the run can be killed and started
again; `--stages` names some of them, which may then run side by side. The PRM that ships is the adapter of the causal
layout, `FOLDER/prm-causal/adapter.safetensors`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from reasonflux_prm.evaluation.tasks import gsm8k, svamp
from reasonflux_prm.prm.embedded.install import ensure_base
from reasonflux_prm.training import TrainConfig, train
from recipes.prm_135m.commands import run, run_stages
from recipes.prm_135m.gold import write_gold
from recipes.prm_135m.logprobs import add_logprobs
from recipes.prm_135m.samples import sample, write_labelled
from recipes.prm_135m.sizes import SIZES, Size
from recipes.prm_first.data import main as write_trees
from recipes.student.form import chat_rows, reference_traces
from recipes.student.sft import SFTSettings, teach

STEP_SETS: Final = {
    "prmbench": "prmbench.jsonl",
    "mr-gsm8k": "mr_gsm8k_first_error.jsonl",
    "thought-anchors": "thought_anchors_mc_values.jsonl",
}
TESTS: Final = {"gsm8k": (gsm8k.TASK, "gsm8k_test.jsonl"), "svamp": (svamp.TASK, "svamp.jsonl")}
LAYOUTS: Final = ("causal", "response_first")


@dataclass(frozen=True, slots=True)
class Run:
    """Where to read and to write, and how much."""

    data: Path
    folder: Path
    size: Size

    @property
    def train_problems(self) -> Path:
        """GSM8K's training split."""
        return self.data / "problems/gsm8k_train.jsonl"

    @property
    def student(self) -> str:
        """The student, as a policy."""
        return f"local:{self.folder / 'student'}"

    def gold(self) -> None:
        """Write GSM8K train's traces with errors put in, labelled with the truth; those of set-aside problems apart."""
        trees, (train_file, dev_file) = self.folder / "trees.jsonl", self.parts("gold")
        if not trees.exists():
            write_trees([str(self.train_problems), "-o", str(trees), "--seed", "0"])
        if not dev_file.exists():
            amounts = {"problems": self.size.problems, "branches": self.size.branches}
            write_gold(trees, train_file, dev_file, thinking=False, seed=0, **amounts)

    def teach(self) -> None:
        """Teach the student to think and then respond."""
        if self.size.student:
            rows = chat_rows(reference_traces(self.train_problems))
            print(teach(ensure_base(), rows, self.folder / "student", SFTSettings(**self.size.student)), flush=True)

    def sample(self) -> None:
        """Sample the student on GSM8K train, grade, and label."""
        train_file, dev_file = self.parts("sampled")
        if not self.size.student or dev_file.exists():
            return
        candidates, size = self.folder / "sampled.candidates.jsonl", self.size
        sample(gsm8k.TASK, self.train_problems, self.student, candidates, size.samples, size.sampled_problems)
        print(json.dumps(write_labelled(candidates, train_file, dev_file, dev_problems=size.dev_problems)), flush=True)

    def test(self) -> None:
        """Sample the student on the test problems, and note how likely it finds each sample."""
        for name, (task, file) in TESTS.items() if self.size.student else ():
            sampled = self.folder / f"{name}.sampled.jsonl"
            limit, problems = self.size.test_problems, self.data / "problems" / file
            sample(task, problems, self.student, sampled, self.size.best_of, limit, seed=1)
            add_logprobs(sampled, self.folder / "student", self.folder / f"{name}.candidates.jsonl")

    def prm(self, layout: str) -> None:
        """Train in one layout; the adapter is written beside the weights."""
        kinds = ("gold", "sampled") if self.size.student else ("gold",)
        settings: dict[str, Any] = {**self.size.train, "layout": layout}
        config = TrainConfig(
            data=tuple(str(self.parts(kind)[0]) for kind in kinds),
            dev=(str(self.parts(kinds[-1])[1]),),
            outcome_targets=True,
            output=str(self.folder / f"prm-{layout}"),
            adapter=True,
            trackers=("none",),
            card_command=f"python -m recipes.prm_135m.run (layout {layout})",
            **settings,
        )
        for result in train(config).record["results"]:
            print(layout, json.dumps(result), flush=True)

    def measure(self, layout: str) -> None:
        """Evaluate a PRM: the best of the student's samples on test problems, then labelled steps."""
        prm, limit = self.folder / f"prm-{layout}", self.size.test_problems
        for name in TESTS if self.size.student else ():
            candidates, report = self.folder / f"{name}.candidates.jsonl", self.folder / f"{prm.name}-{name}.json"
            asked = ("evaluate", name, "--candidates", candidates, "--prm", prm, "-o", report)
            run(*asked, "--rewards", "logprob")
        for name, file in STEP_SETS.items():
            report = self.folder / f"{prm.name}-{name}.json"
            asked = ("evaluate", name, "--file", self.data / "steps" / file, "--prm", prm, "-o", report)
            run(*asked, *(["--limit", str(limit)] if limit else []))

    def parts(self, kind: str) -> tuple[Path, Path]:
        """Return the files to learn from and to choose by."""
        return self.folder / f"{kind}-train.jsonl", self.folder / f"{kind}-dev.jsonl"

    def stages(self) -> dict[str, Callable[[], None]]:
        """Return all stages, in order."""
        found = {"gold": self.gold, "student": self.teach, "sample": self.sample, "test": self.test}
        for layout in LAYOUTS:
            found[f"prm-{layout}"] = lambda layout=layout: self.prm(layout)  # type: ignore[misc]
            found[f"measure-{layout}"] = lambda layout=layout: self.measure(layout)  # type: ignore[misc]
        return found


def main() -> None:
    """Parse the command line and run every stage, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--size", choices=list(SIZES), required=True)
    parser.add_argument("--stages", nargs="+", help="only these, of those before which are done")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    run_stages(Run(args.data, args.output, SIZES[args.size]).stages(), args.stages)


if __name__ == "__main__":
    main()
