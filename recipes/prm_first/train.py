"""Train the first embedded PRM from step-labelled trees, on a CPU.

In: the trees of `data.py` and the base folder. Out: an adapter file (LoRA of the upper layers, reward head, settings)
that `reasonflux_prm.prm.embedded` merges into the base.

Two things make this affordable on one or two cores:
- a problem's right steps and all their wrong alternatives are one tree: every token attends to its ancestors only, so
  the shared beginning is computed once and each label costs the tokens of its own step;
- the lower layers are frozen, so their output is computed once and kept on disk; only the upper layers are run again.

    python -m recipes.prm_first.train TREES --base FOLDER --cache FOLDER -o adapter.safetensors

Processes that `torchrun` starts share every batch and the evaluations; two of one thread are faster than one of two.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from reasonflux_prm.prm.base import PRMSpec
from reasonflux_prm.prm.checkpoint import Checkpoint
from reasonflux_prm.prm.embedded.adapter import Adapter, save_adapter
from reasonflux_prm.prm.embedded.fetch import SMOLLM2
from reasonflux_prm.prm.families.native import NativePRM, NativeSettings
from recipes.prm_first.tree import Tree, TreeBuilder, attention_mask

SETTINGS = NativeSettings(separator="<file_sep>", marker="<empty_output>", name="embedded")
RANK, WORLD = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


class Lora(nn.Module):
    """A frozen linear layer plus a trained product of two thin matrices."""

    def __init__(self, base: nn.Linear, rank: int, scale: float) -> None:
        super().__init__()
        self.base, self.scale = base, scale
        self.a = nn.Parameter(torch.randn(rank, base.in_features) / math.sqrt(base.in_features))
        self.b = nn.Parameter(torch.zeros(base.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        """Apply both."""
        plain: Tensor = self.base(x)
        return plain + F.linear(F.linear(x, self.a), self.b) * self.scale


class Upper(nn.Module):
    """The layers from `split` on, with adapters, and the reward head."""

    def __init__(self, model: Any, split: int, rank: int) -> None:
        super().__init__()
        self.layers = model.layers[split:]
        self.norm, self.rotary, self.split = model.norm, model.rotary_emb, split
        for parameter in self.parameters():
            parameter.requires_grad_(False)
        for layer in self.layers:
            for block, names in (
                (layer.self_attn, ("q_proj", "k_proj", "v_proj", "o_proj")),
                (layer.mlp, ("gate_proj", "up_proj", "down_proj")),
            ):
                for name in names:
                    setattr(block, name, Lora(getattr(block, name), rank, 2.0))
        self.score = nn.Linear(model.config.hidden_size, 1)
        nn.init.zeros_(self.score.weight)
        nn.init.zeros_(self.score.bias)

    def forward(self, hidden: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        """Return the logit at every position, (B, T)."""
        rope = self.rotary(hidden, positions)
        for layer in self.layers:
            hidden = layer(hidden, attention_mask=mask, position_ids=positions, position_embeddings=rope)
        logits: Tensor = self.score(self.norm(hidden))
        return logits.squeeze(-1)

    def start_from(self, adapter: Path) -> None:
        """Take over the trained tensors of an earlier run, or a student's adapters (a folder), which have no head."""
        student = adapter.is_dir()
        saved = load_file(str(adapter / "adapter_model.safetensors" if student else adapter))
        if not student:
            self.score.weight.data.copy_(saved["score.weight"])
            self.score.bias.data.copy_(saved["score.bias"])
        for index, layer in enumerate(self.layers):
            for name, module in layer.named_modules():
                if isinstance(module, Lora):
                    key = f"model.layers.{self.split + index}.{name}"
                    form = f"base_model.model.{key}.lora_{{}}.weight" if student else f"{key}.weight.lora_{{}}"
                    module.a.data.copy_(saved[form.format("A")])
                    # A student's scale is 2 too; an adapter file has it in B.
                    module.b.data.copy_(saved[form.format("B")].float() / (1.0 if student else module.scale))

    def adapter(self) -> dict[str, Tensor]:
        """Return the trained tensors in the adapter file's names, the scale folded into B."""
        tensors = {"score.weight": self.score.weight.data.clone(), "score.bias": self.score.bias.data.clone()}
        for index, layer in enumerate(self.layers):
            for name, module in layer.named_modules():
                if isinstance(module, Lora):
                    key = f"model.layers.{self.split + index}.{name}.weight"
                    tensors[f"{key}.lora_A"] = module.a.data.to(torch.bfloat16).clone()
                    tensors[f"{key}.lora_B"] = (module.b.data * module.scale).to(torch.bfloat16).clone()
        return tensors


@torch.no_grad()
def cache_share(base: Path, trees: list[Tree], split: int, folder: Path, worker: int, workers: int) -> None:
    """Write the first `split` layers' output for every `workers`-th tree that no earlier run finished."""
    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="sdpa").model
    store, done = open_cache(trees, split, folder, model.config.hidden_size)
    offsets = np.cumsum([0, *(len(tree.tokens) for tree in trees)])
    seen, started = 0, time.time()
    for number in range(worker, len(trees), workers):
        if done[number]:
            continue
        tree = trees[number]
        mask, positions = attention_mask([tree], len(tree.tokens)), torch.tensor([tree.depth])
        hidden = model.embed_tokens(torch.tensor([tree.tokens]))
        rope = model.rotary_emb(hidden, positions)
        for layer in model.layers[:split]:
            hidden = layer(hidden, attention_mask=mask, position_ids=positions, position_embeddings=rope)
        store[offsets[number] : offsets[number + 1]] = hidden[0].to(torch.float16).numpy()
        done[number] = 1
        seen += len(tree.tokens)
        if number // workers % 50 == 49:
            print(
                f"worker {worker}: {number + 1}/{len(trees)} trees, {seen / (time.time() - started):.0f} tokens/s",
                flush=True,
            )
    store.flush()
    done.flush()


def open_cache(
    trees: list[Tree], split: int, folder: Path, size: int
) -> tuple[np.memmap[Any, Any], np.memmap[Any, Any]]:
    """Open or create the lower layers' output, (tokens, d) float16, and the flags of finished trees."""
    folder.mkdir(parents=True, exist_ok=True)
    opened: list[np.memmap[Any, Any]] = []
    shapes = ((sum(len(tree.tokens) for tree in trees), size), (len(trees),))
    for name, kind, shape in zip(
        (f"hidden-{split}.f16", f"hidden-{split}.done"), (np.float16, np.uint8), shapes, strict=True
    ):
        path = folder / name
        opened.append(np.memmap(path, kind, "r+" if path.exists() else "w+", shape=shape))
    return opened[0], opened[1]


def cache_lower(
    base: Path, trees: list[Tree], split: int, folder: Path, workers: int, size: int
) -> np.memmap[Any, Any]:
    """Compute the lower layers' output in `workers` processes of one thread each."""
    store, done = open_cache(trees, split, folder, size)
    if done.all():
        return store
    context = multiprocessing.get_context("spawn")
    jobs = [
        context.Process(target=cache_share, args=(base, trees, split, folder, number, workers))
        for number in range(workers)
    ]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    store, done = open_cache(trees, split, folder, size)
    if not done.all():
        raise SystemExit(f"{int((done == 0).sum())} trees are not cached; run the same command again")
    return store


def auc(scores: list[float], labels: list[float]) -> float:
    """Return the share of (right, wrong) pairs that the scores order rightly, ties counted half."""
    order = np.argsort(scores)
    ranks = np.empty(len(scores))
    values = np.asarray(scores)[order]
    _, first, counts = np.unique(values, return_index=True, return_counts=True)
    ranks[order] = np.repeat(first + (counts + 1) / 2, counts)
    good = np.asarray(labels) > 0.5
    n, m = int(good.sum()), int((~good).sum())
    return float((ranks[good].sum() - n * (n + 1) / 2) / (n * m))


class Batches:
    """Batches of cached trees of like length."""

    def __init__(self, trees: list[Tree], store: np.memmap[Any, Any]) -> None:
        self.trees, self.store = trees, store
        self.offsets = np.cumsum([0, *(len(tree.tokens) for tree in trees)])

    def get(self, numbers: list[int]) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Return hidden, mask, positions, and for the reads: flat positions, labels, whether at a marker."""
        trees = [self.trees[n] for n in numbers]
        length = max(len(tree.tokens) for tree in trees)
        hidden = torch.zeros(len(trees), length, self.store.shape[1])
        positions = torch.zeros(len(trees), length, dtype=torch.long)
        for b, (number, tree) in enumerate(zip(numbers, trees, strict=True)):
            chunk = self.store[self.offsets[number] : self.offsets[number + 1]]
            hidden[b, : len(chunk)] = torch.from_numpy(np.asarray(chunk, np.float32))
            positions[b, : len(chunk)] = torch.tensor(tree.depth)
        reads = torch.tensor([b * length + read for b, tree in enumerate(trees) for read in tree.reads])
        labels = torch.tensor([label for tree in trees for label in tree.labels])
        markers = torch.tensor([marker for tree in trees for marker in tree.marker])
        return hidden, attention_mask(trees, length), positions, reads, labels, markers

    def epoch(self, numbers: list[int], size: int, rng: random.Random) -> Iterator[list[int]]:
        """Yield shuffled batches, each of trees of like length."""
        pool = numbers[:]
        rng.shuffle(pool)
        chunks = [
            sorted(pool[i : i + size * 16], key=lambda n: len(self.trees[n].tokens))
            for i in range(0, len(pool), size * 16)
        ]
        batches = [chunk[i : i + size] for chunk in chunks for i in range(0, len(chunk), size)]
        rng.shuffle(batches)
        yield from batches


def share_gradients(parameters: list[nn.Parameter]) -> None:
    """Average the gradients of all processes."""
    if WORLD > 1:
        flat = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
        dist.all_reduce(flat)
        sizes = [p.numel() for p in parameters]
        for p, mean in zip(parameters, torch.split(flat / WORLD, sizes), strict=True):
            p.grad = mean.view_as(p)


@torch.no_grad()
def evaluate(upper: Upper, batches: Batches, numbers: list[int]) -> dict[str, float]:
    """Return AUC and accuracy over the steps, and over the markers, of held-out problems."""
    scores: list[float] = []
    labels: list[float] = []
    markers: list[bool] = []
    own = numbers[RANK::WORLD]
    for start in range(0, len(own), 16):
        hidden, mask, positions, reads, target, marker = batches.get(own[start : start + 16])
        scores += upper(hidden, mask, positions).flatten()[reads].tolist()
        labels += target.tolist()
        markers += marker.tolist()
    if WORLD > 1:
        everyone: list[Any] = [None] * WORLD
        dist.all_gather_object(everyone, (scores, labels, markers))
        scores, labels, markers = ([value for one in everyone for value in one[field]] for field in range(3))
    result: dict[str, float] = {}
    for name, wanted in (("step", False), ("trajectory", True)):
        chosen = [(s, y) for s, y, m in zip(scores, labels, markers, strict=True) if m == wanted]
        result[f"{name}_auc"] = auc([s for s, _ in chosen], [y for _, y in chosen])
        result[f"{name}_accuracy"] = sum((s > 0) == (y > 0.5) for s, y in chosen) / len(chosen)
        result[f"{name}_n"] = len(chosen)
    return result


def thinned(row: dict[str, Any], share: float, rng: random.Random) -> dict[str, Any]:
    """Drop some arithmetic slips: they outnumber the errors of understanding that real policies make."""
    kept = [b for b in row["branches"] if b["kind"] != "arithmetic" or b["complete"] or rng.random() < share]
    return {**row, "branches": kept}


def train(args: argparse.Namespace) -> None:
    """Run the recipe."""
    torch.manual_seed(args.seed)
    rng = random.Random(args.seed)
    if args.threads:
        torch.set_num_threads(args.threads)
    checkpoint = Checkpoint(args.base, name="base")
    decoder = checkpoint.decoder()
    spec = PRMSpec(
        "first",
        "native",
        checkpoint.revision,
        (0.0, 1.0),
        SETTINGS.meaning,
        "mean",
        decoder.config.context,
        trajectory="marker",
    )
    prm = NativePRM(spec, decoder, checkpoint.tokenizer(), SETTINGS, torch.zeros(1, decoder.config.hidden), None)
    builder = TreeBuilder(prm)
    rows = [json.loads(line) for line in args.trees.open(encoding="utf-8")]
    built = (builder.build(thinned(row, args.slips, rng)) for row in rows[: args.limit])
    trees = [tree for tree in built if len(tree.tokens) <= args.longest]
    print(
        f"{len(trees)} trees, {sum(len(t.tokens) for t in trees):,} tokens,",
        f"{sum(len(t.labels) for t in trees):,} labels",
        flush=True,
    )
    if WORLD > 1:
        dist.init_process_group("gloo")
        if RANK == 0:  # the others find it done
            cache_lower(args.base, trees, args.split, args.cache, args.workers, decoder.config.hidden)
        dist.barrier()
    store = cache_lower(args.base, trees, args.split, args.cache, args.workers, decoder.config.hidden)
    model = AutoModelForCausalLM.from_pretrained(args.base, dtype=torch.float32, attn_implementation="sdpa").model
    upper = Upper(model, args.split, args.rank)
    if args.start_from is not None:
        upper.start_from(args.start_from)
    for layer in upper.layers[: max(0, args.frozen - args.split)]:
        layer.requires_grad_(False)
    batches = Batches(trees, store)
    dev, pool = list(range(args.dev)), list(range(args.dev, len(trees)))
    fit(upper, batches, pool, dev, args, rng)


def fit(
    upper: Upper, batches: Batches, pool: list[int], dev: list[int], args: argparse.Namespace, rng: random.Random
) -> None:
    """Train, and write the adapter after every evaluation that is the best so far."""
    head = list(upper.score.parameters())
    rest = [p for p in upper.parameters() if p.requires_grad and all(p is not h for h in head)]
    learnt = [*rest, *head]
    optimiser = torch.optim.AdamW([{"params": rest, "lr": args.lr}, {"params": head, "lr": 1e-3}], weight_decay=0.01)
    steps = args.epochs * math.ceil(len(pool) / args.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, [args.lr, 1e-3], total_steps=steps + 1, pct_start=0.05)
    best, step, started, tokens, running = 0.0, 0, time.time(), 0, 0.0
    for _ in range(args.epochs):
        for numbers in batches.epoch(pool, args.batch, rng):
            if len(numbers) < WORLD:
                continue
            hidden, mask, positions, reads, labels, markers = batches.get(numbers[RANK::WORLD])
            logits = upper(hidden, mask, positions).flatten()[reads]
            losses = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
            loss = losses[~markers].mean() + 0.5 * losses[markers].mean()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            share_gradients(learnt)
            torch.nn.utils.clip_grad_norm_(learnt, 1.0)
            optimiser.step()
            schedule.step()
            step += 1
            tokens += sum(len(batches.trees[n].tokens) for n in numbers)
            running = loss.item() if step == 1 else 0.98 * running + 0.02 * loss.item()
            if step % 20 == 0 and RANK == 0:
                print(
                    f"step {step}/{steps} loss {running:.4f} {tokens / (time.time() - started):.0f} tokens/s",
                    flush=True,
                )
            if step % args.every == 0 or step == steps:
                upper.eval()
                result = evaluate(upper, batches, dev)
                upper.train()
                if RANK:
                    continue
                print(f"step {step} dev {json.dumps({k: round(v, 4) for k, v in result.items()})}", flush=True)
                if result["step_auc"] > best:
                    best = result["step_auc"]
                    save_adapter(args.output, Adapter(upper.adapter(), SETTINGS.to_json(), SMOLLM2.gguf_sha256))


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trees", type=Path)
    parser.add_argument("--base", type=Path, required=True, help="folder of the base model")
    parser.add_argument("--cache", type=Path, required=True, help="folder for the lower layers' output")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--start-from", type=Path, help="an adapter of an earlier run, or the folder of a student's")
    parser.add_argument("--split", type=int, default=15, help="layers below this one are frozen")
    parser.add_argument("--frozen", type=int, default=0, help="adapters of layers below this one stay as they are")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--lr", type=float, default=7e-4)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--dev", type=int, default=300, help="the first so many trees are held out")
    parser.add_argument("--every", type=int, default=100, help="evaluate every so many steps")
    parser.add_argument("--limit", type=int, default=None)
    parser.add_argument("--longest", type=int, default=100_000, help="trees with more tokens are left out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2, help="processes that compute the lower layers' output")
    parser.add_argument(
        "--slips", type=float, default=0.5, help="share of the incomplete arithmetic slips that is kept"
    )
    train(parser.parse_args())


if __name__ == "__main__":
    main()
