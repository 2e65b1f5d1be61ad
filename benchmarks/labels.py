"""How fast the label terms without a judge are: encoding steps, and combining terms into targets.

- encoder: our batches (each distinct text once, by length, bounded by tokens) beside the encoder's own `encode` on the
  same distinct texts, at its best batch size; both without a cache on disk. Runs are interleaved. Rates are texts a
  second of wall time, and the ratio of CPU times is given too, because a busy neighbour changes it less. Texts longer
  than the encoder's window are left out: the encoder cuts them off, we read them to the end.
- combine: terms in memory to targets, for 100,000 traces; reading and writing files is not in it.

    python -m benchmarks.labels --traces TRACES.jsonl -o labels.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from reasonflux_prm.labels.combine import combine_all
from reasonflux_prm.labels.encoder import SentenceEncoder, open_encoder
from reasonflux_prm.labels.formula import ALIGNMENT_TERMS, Formula
from reasonflux_prm.records import LabelledTrace, LabelStatus, Step, Term, Trace
from reasonflux_prm.steps.split import split
from reasonflux_prm.traces.read import read_traces

OWN_BATCHES = (8, 16, 32, 64)
FORMULAS = (
    "bounded",
    "literal",
    "bounded min",
    "bounded weighted(alignment_max=1, quality=2, coherence=1)",
    "bounded softmax(alignment_max, coherence)",
)


@dataclass
class Timings:
    """Wall and CPU seconds of one way of doing the work, a run each."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def run(self, work: Callable[[], object]) -> None:
        """Do the work once."""
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        self.wall.append(time.perf_counter() - wall)
        self.cpu.append(time.process_time() - cpu)


def step_texts(paths: Sequence[str], limit: int) -> list[str]:
    """Return distinct steps of the files' traces, at most `limit`, shuffled."""
    texts: dict[str, None] = {}
    for path in paths:
        for trace in read_traces(path):
            segmented = split(trace)
            texts.update(dict.fromkeys(text for step in segmented.steps if (text := segmented.text(step).strip())))
    found = list(texts)
    random.Random(0).shuffle(found)
    return found[:limit]


def encoder_rates(encoder: SentenceEncoder, texts: Sequence[str], repeats: int) -> dict[str, Any]:
    """Return our rate and the encoder's own."""
    model = encoder._model
    window = model.max_seq_length
    fitting = [text for text in texts if len(model.tokenizer(text)["input_ids"]) <= window]

    def own(size: int) -> Callable[[], object]:
        return lambda: model.encode(fitting, batch_size=size, normalize_embeddings=True, show_progress_bar=False)

    ways: dict[str, Callable[[], object]] = {"ours": lambda: encoder.encode(fitting)}
    ways |= {f"own, batches of {size}": own(size) for size in OWN_BATCHES}
    model.encode(fitting[:64], show_progress_bar=False)
    timings = {name: Timings() for name in ways}
    for _ in range(repeats):
        for name, work in ways.items():
            timings[name].run(work)
    rates = {name: len(fitting) / statistics.median(each.wall) for name, each in timings.items()}
    ours, own_cpu = timings.pop("ours"), [statistics.median(each.cpu) for each in timings.values()]
    return {
        "texts": len(fitting),
        "longer_than_the_window": len(texts) - len(fitting),
        "texts_per_s": rates,
        "ratio_to_best_own": rates["ours"] / max(rate for name, rate in rates.items() if name != "ours"),
        "cpu_ratio_to_best_own": min(own_cpu) / statistics.median(ours.cpu),
    }


def labelled_traces(count: int, steps: int) -> list[LabelledTrace]:
    """Return made-up labels with all terms that there are."""
    draw = random.Random(0)

    def step_terms(thinking: bool) -> dict[str, Term]:
        terms = {name: Term(draw.uniform(-0.2, 1)) if thinking else Term(None, "why") for name in ALIGNMENT_TERMS}
        terms["coherence"] = Term(draw.uniform(-10, 5))
        quality = Term(draw.random()) if draw.random() < 0.95 else Term(None, "why")
        return terms | {"quality": quality, "quality_correctness": quality, "quality_progress": quality}

    return [
        LabelledTrace(
            Trace(str(number), "problem", "x" * steps),
            LabelStatus.LABELLED,
            tuple(Step("thinking", step, step + 1) for step in range(steps)),
            tuple(step_terms(step < 0.9 * steps) for step in range(steps)),
            (None,) * steps,
            {"trajectory": Term(draw.random())},
            None,
            "",
        )
        for number in range(count)
    ]


def combine_seconds(traces: int, steps: int, repeats: int) -> dict[str, Any]:
    """Return the seconds that each formula takes for so many traces."""
    held = labelled_traces(min(traces, 1000), steps)
    result: dict[str, Any] = {"traces": traces, "steps_per_trace": steps}
    for text in FORMULAS:
        timings = Timings()
        for _ in range(repeats):
            timings.run(partial(_combine_all, held, traces, Formula.parse(text)))
        result[text] = {"wall_s": statistics.median(timings.wall), "cpu_s": statistics.median(timings.cpu)}
    return result


def _combine_all(held: Sequence[LabelledTrace], traces: int, formula: Formula) -> None:
    for _ in combine_all((held[number % len(held)] for number in range(traces)), formula):
        pass


def main() -> None:
    """Run the parts that were asked for and write their numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=["encoder", "combine"], default=["encoder", "combine"])
    parser.add_argument("--traces", nargs="+", default=[], metavar="FILE", help="traces whose steps are encoded")
    parser.add_argument("--texts", type=int, default=2000, help="most texts to encode (default: %(default)s)")
    parser.add_argument("--encoder", default="embedded", help="name, folder or hub id (default: %(default)s)")
    parser.add_argument("--combine-traces", type=int, default=100_000, metavar="N")
    parser.add_argument("--steps", type=int, default=50, help="of each combined trace (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    if "encoder" in options.parts and not options.traces:
        parser.error("the part 'encoder' needs --traces")
    result: dict[str, Any] = {
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load_before": os.getloadavg(),
        "python": platform.python_version(),
    }
    if "encoder" in options.parts:
        encoder = open_encoder(options.encoder)
        result["device"] = str(encoder._model.device)
        result["encoder"] = encoder_rates(encoder, step_texts(options.traces, options.texts), options.repeats)
    if "combine" in options.parts:
        result["combine"] = combine_seconds(options.combine_traces, options.steps, min(options.repeats, 3))
    result["load_after"] = os.getloadavg()
    text = json.dumps(result, indent=2)
    print(text)
    if options.output:
        options.output.write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
