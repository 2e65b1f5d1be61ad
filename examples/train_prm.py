"""Train a process reward model in one file: torch, transformers, and no framework.

    reasonflux-prm label export labels.jsonl -o rows.jsonl --form soft
    python examples/train_prm.py rows.jsonl --base Qwen/Qwen2.5-0.5B-Instruct -o my-prm
    reasonflux-prm score traces.jsonl -o scored.jsonl --prm my-prm

A row has `prompt`, `completions` (the steps' texts), `labels` (one a step, true/false or in [0, 1], null where unknown)
and perhaps `trajectory` (in [0, 1]). The loss is that of ReasonFlux-PRM (arXiv:2506.18896):

    lambda_step * (1/T) sum_t (R_t - r_t)^2 + lambda_final * (R - r_final)^2,   R = sigmoid(head(hidden state)),

with R_t read at a control token behind step t, and R at another one that ends the input. `reasonflux-prm train` does
the same with windows for long traces, LoRA, cached activations, resuming, evaluation and several GPUs.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForTokenClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

# Control tokens that models have and do not use; two are needed.
UNUSED = ("<extra_0>", "<extra_1>", "<file_sep>", "<empty_output>", "<|object_ref_end|>", "<|object_ref_start|>")
OPEN, CLOSE = "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"


@dataclass
class Example:
    """One trace as tokens, and what is read where."""

    tokens: list[int]
    reads: list[int]
    """Positions whose output is a reward."""
    targets: list[float]
    weights: list[float]
    """lambda_step / T for a step, lambda_final for the trajectory: the loss is a weighted sum over reads."""


class Encoder:
    """Rows to examples. Text can never become a control token: it is tokenized with those switched off."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, lambda_step: float, lambda_final: float) -> None:
        self.tokenizer, self.lambdas = tokenizer, (lambda_step, lambda_final)
        free = [name for name in UNUSED if name in tokenizer.get_vocab()]
        if len(free) < 2:
            raise SystemExit(f"the tokenizer has {len(free)} of {', '.join(UNUSED)}: two are needed to read rewards at")
        self.separator, self.marker = free[:2]
        self.separator_id, self.marker_id = tokenizer.convert_tokens_to_ids([self.separator, self.marker])

    def text(self, text: str) -> list[int]:
        """Return the ids of a text of the data."""
        return self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]

    def template(self, text: str) -> list[int]:
        """Return the ids of a text in which control tokens count as such."""
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def __call__(self, row: dict) -> Example:
        """Return a row as tokens and reads."""
        steps, labels = row["completions"], row["labels"]
        if len(steps) != len(labels):
            raise SystemExit(
                f"expected one label for each of {len(steps)} steps, got {len(labels)}: {row['prompt'][:60]}"
            )
        known = sum(label is not None for label in labels)
        tokens = self.template(OPEN) + self.text(row["prompt"].strip()) + self.template(CLOSE)
        example = Example(tokens, [], [], [])
        for step, label in zip(steps, labels, strict=True):
            tokens += [*self.text(step.strip()), self.separator_id]
            self.read(example, label, self.lambdas[0] / max(known, 1))
        tokens.append(self.marker_id)
        self.read(example, row.get("trajectory"), self.lambdas[1])
        return example

    def read(self, example: Example, target: float | None, weight: float) -> None:
        """Read the last token, if there is something to learn there."""
        if target is not None:
            example.reads.append(len(example.tokens) - 1)
            example.targets.append(float(target))
            example.weights.append(weight)


def packs(examples: list[Example], budget: int, rng: random.Random) -> Iterator[list[Example]]:
    """Yield lists of examples of about `budget` tokens, shuffled; nothing is padded."""
    order = list(examples)
    rng.shuffle(order)
    pack: list[Example] = []
    for example in order:
        if pack and sum(len(e.tokens) for e in pack) + len(example.tokens) > budget:
            yield pack
            pack = []
        pack.append(example)
    if pack:
        yield pack


def rewards(model: PreTrainedModel, pack: list[Example]) -> Tensor:
    """Return R at all reads of a pack, (R,).

    Positions start over with each example. transformers makes the block-diagonal mask of that, but only without an
    attention mask and without a cache: otherwise an example would see those before it.
    """
    device = model.device
    tokens = torch.tensor([[token for example in pack for token in example.tokens]], device=device)
    positions = torch.cat([torch.arange(len(example.tokens)) for example in pack])[None].to(device)
    logits = model(tokens, position_ids=positions, attention_mask=None, use_cache=False).logits[0, :, 0]
    reads, start = [], 0
    for example in pack:
        reads += [start + read for read in example.reads]
        start += len(example.tokens)
    return torch.sigmoid(logits[reads].float())


def loss_of(model: PreTrainedModel, pack: list[Example]) -> Tensor:
    """Return the objective, summed over the examples of a pack."""
    found = rewards(model, pack)
    targets = torch.tensor([t for example in pack for t in example.targets], device=found.device)
    weights = torch.tensor([w for example in pack for w in example.weights], device=found.device)
    return (weights * (found - targets) ** 2).sum()


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, encoder: Encoder, folder: Path) -> None:
    """Write a checkpoint that reasonflux-prm, transformers and vLLM load."""
    model.config.prm = {"separator": encoder.separator, "marker": encoder.marker, "layout": "causal"}
    model.config.id2label, model.config.label2id = {0: "LABEL_0"}, {"LABEL_0": 0}
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--base", required=True)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--lr", type=float, default=1e-5)
    parser.add_argument("--pack-tokens", type=int, default=4096)
    parser.add_argument("--packs-a-step", type=int, default=4)
    parser.add_argument("--lambda-step", type=float, default=1.0)
    parser.add_argument("--lambda-final", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)

    torch.manual_seed(args.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = AutoTokenizer.from_pretrained(args.base)
    config = AutoConfig.from_pretrained(args.base, num_labels=1, classifier_dropout=0.0)
    model = AutoModelForTokenClassification.from_pretrained(args.base, config=config, dtype=torch.float32).to(device)
    encoder = Encoder(tokenizer, args.lambda_step, args.lambda_final)
    examples = [encoder(json.loads(line)) for line in args.rows.open(encoding="utf-8")]
    examples = [example for example in examples if example.reads]
    longest = max(len(example.tokens) for example in examples)
    if longest > config.max_position_embeddings:
        raise SystemExit(f"a row has {longest:,} tokens, the model takes {config.max_position_embeddings:,}")

    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=0.0)
    rng = random.Random(args.seed)
    model.train()
    for epoch in range(args.epochs):
        todo = list(packs(examples, args.pack_tokens, rng))
        total = 0.0
        for start in range(0, len(todo), args.packs_a_step):
            step = todo[start : start + args.packs_a_step]
            traces = sum(map(len, step))
            for pack in step:  # the mean over the traces of the whole step, whatever pack they are in
                loss = loss_of(model, pack) / traces
                loss.backward()
                total += loss.item() * traces
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
        print(f"epoch {epoch + 1} of {args.epochs}: loss {total / len(examples):.4f}")
    save(model.eval(), tokenizer, encoder, args.output)
    print(f"Next: reasonflux-prm score traces.jsonl -o scored.jsonl --prm {args.output}")


if __name__ == "__main__":
    main()
