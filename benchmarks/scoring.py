"""How fast scoring is, as ratios within one run: to the machine's matrix-product rate, and to what others do.

Compared on the same weights (SmolLM2-135M with a reward head), the same real traces and the same machine, in float32:

- ours: packed, no vocabulary logits (`scoring.engine`);
- released: one trace at a time through transformers' causal LM with full vocabulary logits, as the released snippets
  do;
- padded: transformers' token classifier on batches of 8, padded to the longest, with a mask.

Useful FLOPs are those of the whole model, as in model FLOPs utilisation: the matrix products of every real token in
every layer, and causal attention, once; padding, logits and masked-out attention count as nothing. Ours leaves out of
the last layer what nobody reads; `computed` is the share that counts only what is left to compute. Every figure is a
median of `--repeats` runs, in which the ways take turns a pack at a time; the matrix-product rate is the mean over
products before and after each turn, which take half as long as the turn together.

    python -m benchmarks.scoring --traces TRACES.jsonl CANDIDATES.jsonl -o scoring.json
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import statistics
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, islice, zip_longest
from pathlib import Path
from typing import Any

import torch

from reasonflux_prm.prm.base import PRMSpec
from reasonflux_prm.prm.checkpoint import Checkpoint
from reasonflux_prm.prm.config import DecoderConfig
from reasonflux_prm.prm.embedded.install import ensure_base
from reasonflux_prm.prm.encoding import TokenSequence
from reasonflux_prm.prm.families.native import NativePRM, NativeSettings
from reasonflux_prm.records import SegmentedTrace, Trace
from reasonflux_prm.scoring.engine import Engine, EngineSettings
from reasonflux_prm.scoring.packing import pack, plan
from reasonflux_prm.scoring.session import Session
from reasonflux_prm.scoring.windows import Read, Window
from reasonflux_prm.steps.split import split
from reasonflux_prm.traces.read import read_traces

BUCKETS = (64, 128, 256, 512, 1024, 2048, 4096)
PACK_TOKENS = 2048
WAYS = ("ours", "released", "padded")
STEP_TOKENS = 45
"""The median of real steps by the adaptive rule."""
USUAL_RATE = 1e11
"""FLOP/s, to say how long products should take that stand beside a pack; two cores of these days do about as many."""


def seconds(work: Callable[[], object]) -> float:
    """Return the wall time of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def matrix_rate(lasting: float) -> float:
    """Return the machine's float32 matrix-product rate, in FLOP/s: of products of 1,024 by 1,024, one after another.

    It is the mean over as long as is asked for. The best of a few products is a moment's rate; what runs for seconds on
    a machine that others use too meets slow moments as well, and is to be held against products that meet them.

    Args:
        lasting: Seconds; at least two products are made.
    """
    a, b, product = torch.randn(1024, 1024), torch.randn(1024, 1024), torch.empty(1024, 1024)
    torch.mm(a, b, out=product)
    started, count = time.perf_counter(), 0
    while count < 2 or time.perf_counter() - started < lasting:
        # To memory that is there: a new result each time would be the memory's rate too.
        torch.mm(a, b, out=product)
        count += 1
    return 2 * 1024**3 * count / (time.perf_counter() - started)


def beside_products(work: Callable[[], object], lasting: float) -> tuple[float, float]:
    """Return the seconds that work takes, and the mean rate of products before and after it.

    Args:
        work: What to do.
        lasting: About the seconds that it takes; the products take half as long.
    """
    before = matrix_rate(lasting / 4)
    took = seconds(work)
    return took, (before + matrix_rate(lasting / 4)) / 2


def useful_flops(config: DecoderConfig, lengths: Sequence[int]) -> float:
    """Return the FLOPs that scoring sequences of these lengths needs."""
    attention = sum(4 * config.layers * config.heads * config.head_dim * n * (n + 1) / 2 for n in lengths)
    return config.flops_per_token * sum(lengths) + attention


def unread_flops(config: DecoderConfig, lengths: Sequence[int], reads: Sequence[Sequence[int]]) -> float:
    """Return the part of `useful_flops` that the last layer need not compute if only these positions are read."""
    a_token = 4 * config.heads * config.head_dim * config.hidden + 6 * config.hidden * config.intermediate
    a_pair = 4 * config.heads * config.head_dim
    pairs = sum(n * (n + 1) / 2 - sum(at + 1 for at in own) for n, own in zip(lengths, reads, strict=True))
    return a_token * (sum(lengths) - sum(map(len, reads))) + a_pair * pairs


def native_prm(base: Path) -> NativePRM:
    """Return the base model as a PRM in our format, with a random head: timings do not depend on what a head says."""
    checkpoint = Checkpoint(base, name="benchmark")
    decoder = checkpoint.decoder()
    spec = PRMSpec("benchmark", "native", "0", (0.0, 1.0), "none", "mean", decoder.config.context, trajectory="marker")
    settings = NativeSettings(separator="<file_sep>", marker="<empty_output>")
    torch.manual_seed(0)
    return NativePRM(
        spec, decoder, checkpoint.tokenizer(), settings, torch.randn(1, decoder.config.hidden) * 0.02, None
    )


def real_traces(paths: Sequence[str], prm: NativePRM, tokens: int, longest: int) -> list[SegmentedTrace]:
    """Return traces drawn at random from the files in turn, none above `longest` tokens, that hold `tokens` tokens."""
    draw = random.Random(0)
    pools = [draw.sample(traces, len(traces)) for traces in (list(read_traces(path)) for path in paths)]
    found: list[SegmentedTrace] = []
    total = 0
    for trace in (trace for turn in zip_longest(*pools) for trace in turn if trace is not None):
        segmented = split(trace)
        length = len(prm.encode(segmented))
        if length <= longest:
            found.append(segmented)
            total += length
        if total >= tokens:
            break
    return found


class Rivals:
    """The same weights in transformers."""

    def __init__(self, base: Path) -> None:
        from transformers import AutoModelForCausalLM, AutoModelForTokenClassification

        self.causal = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="sdpa").eval()
        self.classifier = AutoModelForTokenClassification.from_pretrained(
            base, dtype=torch.float32, attn_implementation="sdpa", num_labels=1
        ).eval()

    @torch.inference_mode()
    def released(self, sequences: Sequence[Sequence[int]]) -> None:
        """One trace at a time, full vocabulary logits."""
        for tokens in sequences:
            self.causal(input_ids=torch.tensor([tokens]), use_cache=False)

    @torch.inference_mode()
    def padded(self, sequences: Sequence[Sequence[int]], size: int = 8) -> None:
        """Batches of `size` in the order given, padded to the longest."""
        for start in range(0, len(sequences), size):
            batch = sequences[start : start + size]
            longest = max(map(len, batch))
            ids = torch.zeros(len(batch), longest, dtype=torch.long)
            mask = torch.zeros(len(batch), longest, dtype=torch.long)
            for row, tokens in enumerate(batch):
                ids[row, : len(tokens)] = torch.tensor(tokens)
                mask[row, : len(tokens)] = 1
            self.classifier(input_ids=ids, attention_mask=mask, use_cache=False)


@dataclass(frozen=True, slots=True)
class Unit:
    """A part of a way's work: what it does, and the useful FLOPs of it."""

    work: Callable[[], object]
    flops: float


def unit(prm: NativePRM, traces: Sequence[SegmentedTrace], work: Callable[[], object]) -> Unit:
    """Return work on these traces as a unit."""
    return Unit(work, useful_flops(prm.decoder.config, [len(tokens) for tokens in token_lists(prm, traces)]))


def token_lists(prm: NativePRM, traces: Sequence[SegmentedTrace]) -> list[list[int]]:
    """Return the tokens of each sequence of the traces."""
    parts = [one for trace in traces for one in prm.encode(trace).sequences]
    return [[*one.head, *(token for piece in one.pieces for token in piece.tokens)] for one in parts]


def score_all(engine: Engine, traces: Sequence[SegmentedTrace]) -> None:
    """Score traces, and drop what comes."""
    deque(engine.score(traces), maxlen=0)


def taking_turns(ways: Mapping[str, Sequence[Unit]]) -> dict[str, tuple[float, float]]:
    """Do all units of all ways in turn; return each way's seconds, and its share of the rate around its units."""
    took, ideal = dict.fromkeys(ways, 0.0), dict.fromkeys(ways, 0.0)
    for turn in zip_longest(*ways.values()):
        for name, one in zip(ways, turn, strict=True):
            if one is not None:
                spent, rate = beside_products(one.work, one.flops / USUAL_RATE)
                took[name] += spent
                ideal[name] += one.flops / rate
    return {name: (took[name], ideal[name] / took[name]) for name in ways}


def share_of_ceiling(work: Callable[[], object], flops: float, computed: float, repeats: int) -> dict[str, float]:
    """Return the median share of the matrix-product rate measured around each run, and the median seconds."""
    work()
    usual = seconds(work)
    shares, times = [], []
    for _ in range(repeats):
        took, rate = beside_products(work, usual)
        times.append(took)
        shares.append(flops / took / rate)
    return {
        "share": statistics.median(shares),
        "computed": statistics.median(shares) * computed / flops,
        "lowest": min(shares),
        "highest": max(shares),
        "seconds": statistics.median(times),
    }


def buckets(prm: NativePRM, lengths: Sequence[int], repeats: int) -> dict[str, Any]:
    """Return the share of the ceiling for packs of sequences of one length, a step every `STEP_TOKENS`.

    A pack has 2,048 tokens or one sequence.
    """
    result: dict[str, Any] = {}
    for length in lengths:
        count = max(1, PACK_TOKENS // length)
        reads = [*range(STEP_TOKENS - 1, length - 1, STEP_TOKENS), length - 1]
        pieces = tuple(Read(step, at, max(at + 1 - STEP_TOKENS, 0), at + 1) for step, at in enumerate(reads))
        batch = pack([Window(tuple(range(100, 100 + length)), pieces)] * count)
        flops = useful_flops(prm.decoder.config, [length] * count)
        computed = flops - unread_flops(prm.decoder.config, [length] * count, [reads] * count)
        result[str(length)] = share_of_ceiling(partial(prm.forward, batch), flops, computed, repeats)
        print(f"length {length:>5}: {result[str(length)]['share']:.1%} of the ceiling", flush=True)
    return result


def read_positions(sequence: TokenSequence) -> list[int]:
    """Return the positions of a sequence whose output is read."""
    offsets = accumulate((len(piece.tokens) for piece in sequence.pieces), initial=len(sequence.head))
    return [
        at + piece.read_offset()
        for at, piece in zip(offsets, sequence.pieces, strict=False)
        if piece.target is not None
    ]


def mixed(
    prm: NativePRM, traces: Sequence[SegmentedTrace], base: Path, repeats: int, names: Sequence[str] = WAYS
) -> dict[str, Any]:
    """Return time and share of ours, and of the others that are named, on the same traces.

    The ways take turns a pack at a time (padded: a batch), because a shared machine's speed moves within a run.
    """
    rivals, engine = Rivals(base), Engine(prm, EngineSettings())
    packs = [[traces[at] for at in group] for group in plan([len(prm.encode(one)) for one in traces], PACK_TOKENS)]
    batches = [traces[start : start + 8] for start in range(0, len(traces), 8)]
    ways = {
        "ours": [unit(prm, group, partial(score_all, engine, group)) for group in packs],
        "released": [unit(prm, group, partial(rivals.released, token_lists(prm, group))) for group in packs],
        "padded": [unit(prm, group, partial(rivals.padded, token_lists(prm, group))) for group in batches],
    }
    ways = {name: own for name, own in ways.items() if name in ("ours", *names)}
    times: dict[str, list[float]] = {name: [] for name in ways}
    shares: dict[str, list[float]] = {name: [] for name in ways}
    for own in ways.values():
        own[0].work()
    for _ in range(repeats):
        for name, (took, share) in taking_turns(ways).items():
            times[name].append(took)
            shares[name].append(share)
            print(f"{name:>9}: {took:.1f} s, {share:.1%} of the ceiling", flush=True)
    lengths = [len(tokens) for tokens in token_lists(prm, traces)]
    rows: dict[str, dict[str, Any]] = {}
    for name in ways:
        ratios = [t / o for t, o in zip(times[name], times["ours"], strict=True)]
        rows[name] = {
            "seconds": statistics.median(times[name]),
            "tokens_per_s": sum(lengths) / statistics.median(times[name]),
            "share": statistics.median(shares[name]),
            "shares": shares[name],
            "times_slower_than_ours": statistics.median(ratios),
            "ratios": ratios,
        }
        print(
            f"{name:>9}: {rows[name]['tokens_per_s']:.0f} tokens/s, {rows[name]['share']:.1%} of the ceiling, "
            f"{rows[name]['times_slower_than_ours']:.2f} x our time ({min(ratios):.2f} to {max(ratios):.2f})",
            flush=True,
        )
    flops = useful_flops(prm.decoder.config, lengths)
    reads = [read_positions(one) for trace in traces for one in prm.encode(trace).sequences]
    left = 1 - unread_flops(prm.decoder.config, lengths, reads) / flops
    rows["ours"]["computed"] = rows["ours"]["share"] * left
    sizes = {"traces": len(traces), "sequences": len(lengths), "tokens": sum(lengths), "longest": max(lengths)}
    return {**sizes, **rows}


def appending(prm: NativePRM, repeats: int) -> dict[str, float]:
    """Return the time of a 64-token step appended to a 2,000-token session, and of scoring the whole anew."""
    filler = prm.tokenizer.decode(list(range(1000, 1063)))
    text = filler
    while len(prm.step_piece(text, 1, "thinking", "thinking").tokens) < 64:
        text += " a"
    past = filler * 40
    session = Session(prm, "A problem.")
    session.append(past[: int(len(past) * 2000 / len(prm.tokenizer.continuation(past)))])
    held = session.tokens
    added = len(prm.step_piece(text, 1, "thinking", "thinking").tokens)
    whole = SegmentedTrace(*_as_trace(past, text))
    engine = Engine(prm, EngineSettings())
    appended, anew = [], []
    for _ in range(repeats + 1):
        appended.append(seconds(lambda: session.append(text)))
        session.rollback()
        anew.append(seconds(lambda: list(engine.score([whole]))))
    ratio = statistics.median(b / a for a, b in islice(zip(appended, anew, strict=True), 1, None))
    print(
        f"append {added} tokens to {held}: {statistics.median(appended[1:]):.3f} s, "
        f"anew {statistics.median(anew[1:]):.3f} s, {ratio:.1f} x",
        flush=True,
    )
    return {
        "held": held,
        "added": added,
        "append_s": statistics.median(appended[1:]),
        "anew_s": statistics.median(anew[1:]),
        "ratio": ratio,
    }


def _as_trace(past: str, text: str) -> tuple[Trace, Any, str]:
    from reasonflux_prm.records import Step

    cut = len(past) * 2000 // 2520
    trace = Trace("benchmark", "A problem.", thinking=past[:cut] + text)
    return trace, (Step("thinking", 0, cut), Step("thinking", cut, cut + len(text))), "given"


def main() -> None:
    """Run the parts that were asked for and write one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--traces", nargs="+", default=[], help="files of real traces for the mix")
    parser.add_argument("--tokens", type=int, default=12_000, help="tokens of the mix")
    parser.add_argument(
        "--longest", type=int, default=4096, help="leave out longer traces: padding others to them takes minutes"
    )
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS, help="of the mix; ours always")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--parts", nargs="+", choices=["buckets", "mix", "append"], default=["buckets", "mix", "append"]
    )
    parser.add_argument("-o", "--output", type=Path, default=None)
    args = parser.parse_args()
    if "mix" in args.parts and not args.traces:
        parser.error("the mix needs --traces FILE ...; without them pass --parts buckets append")
    base = ensure_base()
    prm = native_prm(base)
    report: dict[str, Any] = {
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        },
        "repeats": args.repeats,
        "ceiling_gflops": matrix_rate(2.0) / 1e9,
    }
    if "buckets" in args.parts:
        report["buckets"] = buckets(prm, BUCKETS, args.repeats)
    if "append" in args.parts:
        report["append"] = appending(prm, args.repeats)
    if "mix" in args.parts:
        traces = real_traces(args.traces, prm, args.tokens, args.longest)
        report["mix"] = mixed(prm, traces, base, args.repeats, args.ways)
    if args.output is not None:
        args.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
