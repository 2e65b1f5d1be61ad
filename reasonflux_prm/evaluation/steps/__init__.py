"""Step-level benchmarks of PRMs. To add one, write its file and put it into the list."""

from __future__ import annotations

from typing import Final

from reasonflux_prm.evaluation.steps import labelled, prmbench, processbench
from reasonflux_prm.evaluation.steps.base import StepBenchmark

STEP_BENCHMARKS: Final[tuple[StepBenchmark, ...]] = (processbench.BENCHMARK, prmbench.BENCHMARK, *labelled.BENCHMARKS)


def find_step_benchmark(name: str) -> StepBenchmark | None:
    """Return the step benchmark of a name; None if there is none."""
    return next((benchmark for benchmark in STEP_BENCHMARKS if benchmark.name == name), None)
