"""Sample the traces of the demo: several candidates a problem, some right and some wrong, none of them touched by hand.

The policy is the embedded PRM's base as it comes, SmolLM2-135M-Instruct. It was not trained to think, so three worked
examples in the conversation (`EXAMPLES`) show it the form, and its turn is opened with `<think>`. A candidate is what
it then writes up to the end of its turn, cut into thinking and response by the package's own reader of marks.

What is kept is fixed beforehand, by `pick_candidates` and `--keep`. The same seed gives the same bytes on the same
machine with the same versions of torch and transformers.

    python -m recipes.demo_traces.sample -o reasonflux_prm/data/demo.jsonl
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import re
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from random import Random
from typing import Any, Final

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache

from reasonflux_prm.prm.embedded.install import ensure_base
from reasonflux_prm.traces.marks import split_marks
from reasonflux_prm.traces.write import atomic_path, json_line

PROBLEMS: Final = Path(__file__).with_name("problems.json")
POLICY: Final = "SmolLM2-135M-Instruct"
THINK: Final = "<think>\n"
EXAMPLES: Final = (
    (
        "Ola had 12 beads. She found 5 more beads. How many beads does she have now?",
        "We want the number of beads now.\n\nOla had 12 beads and found 5 more.\n\nSo we add: 12 + 5 = 17.",
        "The answer is 17.",
    ),
    (
        "Pia has 3 jars. Each jar holds 8 buttons. She uses 4 buttons. How many buttons are left?",
        "We want the number of buttons that are left.\n\nThere are 3 jars of 8 buttons, so we multiply: 3 * 8 = 24.\n\n"
        "She uses 4 of them, so we subtract: 24 - 4 = 20.",
        "The answer is 20.",
    ),
    (
        "There are 19 ducks on a lake. Then 6 of them fly away. How many ducks are left on the lake?",
        "We want the number of ducks that are left.\n\nThere were 19 ducks and 6 flew away.\n\n"
        "So we subtract: 19 - 6 = 13.",
        "The answer is 13.",
    ),
)
"""Problem, thinking and response of each worked example; written for this recipe."""
_NUMBER = re.compile(r"-?\d+(?:,\d{3})*(?:\.\d+)?")


@dataclass(frozen=True)
class Settings:
    """How the policy is sampled."""

    n: int
    temperature: float
    top_p: float
    max_tokens: int
    seed: int


@dataclass(frozen=True)
class Sample:
    """One text of the policy, cut into its parts and graded."""

    thinking: str
    response: str
    finished: bool
    """The policy ended its turn by itself, and both parts hold text."""
    correct: bool
    tokens: int


class Policy:
    """The base model behind the worked examples, which it reads once for the whole run."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.messages = [
            message
            for problem, thinking, response in EXAMPLES
            for message in (
                {"role": "user", "content": problem},
                {"role": "assistant", "content": f"{THINK}{thinking}\n</think>\n{response}"},
            )
        ]
        self.prefix = self._tokens(self.messages, open_turn=False)
        self.read = DynamicCache(config=self.model.config)
        self._forward(self.prefix, self.read)

    def _tokens(self, messages: list[dict[str, str]], *, open_turn: bool) -> torch.Tensor:
        text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=open_turn)
        ids = self.tokenizer(text + THINK * open_turn, add_special_tokens=False).input_ids
        return torch.tensor([ids])

    @torch.inference_mode()
    def _forward(self, tokens: torch.Tensor, cache: DynamicCache) -> None:
        self.model(tokens, past_key_values=cache)

    @torch.inference_mode()
    def sample(self, problem: str, settings: Settings) -> list[tuple[str, int, bool]]:
        """Return `settings.n` texts, each with its number of tokens and whether it ended by itself."""
        prompt = self._tokens([*self.messages, {"role": "user", "content": problem}], open_turn=True)
        cache = copy.deepcopy(self.read)
        self._forward(prompt[:, self.prefix.shape[1] : -1], cache)
        cache.batch_repeat_interleave(settings.n)
        prompts = prompt.repeat(settings.n, 1)
        out = self.model.generate(
            prompts,
            attention_mask=torch.ones_like(prompts),
            past_key_values=cache,
            do_sample=True,
            temperature=settings.temperature,
            top_p=settings.top_p,
            top_k=0,
            max_new_tokens=settings.max_tokens,
        )
        texts = []
        for row in out[:, prompt.shape[1] :].tolist():
            end = row.index(self.tokenizer.eos_token_id) if self.tokenizer.eos_token_id in row else None
            texts.append((self.tokenizer.decode(row[:end]), len(row[:end]), end is not None))
        return texts


def last_number(text: str) -> Fraction | None:
    """Return the last number written in a text."""
    found = _NUMBER.findall(text)
    return Fraction(found[-1].replace(",", "")) if found else None


def grade(text: str, tokens: int, ended: bool, answer: str) -> Sample:
    """Cut a text of the policy into its parts; right is a response whose last number is the answer."""
    parts = split_marks(THINK + text)
    if parts is None:
        raise RuntimeError(f"a text that was opened with {THINK!r} was read as one without marks: {text!r}")
    finished = ended and parts.closed and bool(parts.thinking.strip()) and bool(parts.response.strip())
    correct = finished and last_number(parts.response) == Fraction(answer)
    return Sample(parts.thinking, parts.response, finished, correct, tokens)


def pick_candidates(samples: Sequence[Sample], size: int) -> list[Sample] | None:
    """Return the first `size` finished samples that differ in their text, in the order in which they were sampled.

    None if there are fewer, or if they are all right or all wrong: best-of-N has nothing to choose there.
    """
    first = list(dict.fromkeys(sample for sample in samples if sample.finished))[:size]
    return first if len(first) == size and len({s.correct for s in first}) == 2 else None


def sample_problems(
    policy: Policy, problems: Sequence[dict[str, str]], settings: Settings
) -> Iterator[tuple[dict[str, str], list[Sample]]]:
    """Yield every problem with its samples, and print what came of it."""
    for problem in problems:
        began = time.monotonic()
        # A seed of its own, so that a problem's samples do not depend on which other problems are in the file.
        torch.manual_seed(Random(f"{settings.seed}/{problem['id']}").getrandbits(63))
        samples = [grade(*text, problem["answer"]) for text in policy.sample(problem["problem"], settings)]
        right, finished = sum(s.correct for s in samples), sum(s.finished for s in samples)
        print(
            f"{problem['id']:10} right {right:2} finished {finished:2} of {len(samples)}, "
            f"{sum(s.tokens for s in samples)} tokens, {time.monotonic() - began:.0f} s",
            flush=True,
        )
        yield problem, samples


def row(problem: dict[str, str], candidates: Sequence[Sample]) -> dict[str, Any]:
    """Return one record of a candidates file."""
    texts = [{"thinking": s.thinking, "response": s.response, "correct": s.correct} for s in candidates]
    return {**problem, "policy": POLICY, "candidates": texts}


def report(sampled: Sequence[Sequence[Sample]]) -> None:
    """Print pass@1 over all samples, with a 95% interval by problem, and how many samples finished."""
    rates = [sum(s.correct for s in samples) / len(samples) for samples in sampled]
    half = 1.96 * statistics.stdev(rates) / math.sqrt(len(rates)) if len(rates) > 1 else math.nan
    every = [s for samples in sampled for s in samples]
    print(
        f"pass@1 {statistics.mean(rates):.3f} +- {half:.3f} ({len(rates)} problems, {len(every)} samples), "
        f"at least one right on {sum(rate > 0 for rate in rates)} problems, "
        f"finished {sum(s.finished for s in every) / len(every):.3f}, {sum(s.tokens for s in every)} tokens"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Sample, keep what the rule keeps, write it, and print the rates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=Path, default=PROBLEMS, help="JSON list of id, problem, answer")
    parser.add_argument("-o", "--output", type=Path, required=True, help="candidates file (JSON lines)")
    parser.add_argument("--base", type=Path, help="folder of the policy; default: fetched, as for the embedded PRM")
    parser.add_argument("--n", type=int, default=8, help="samples a problem")
    parser.add_argument("--candidates", type=int, default=6, help="candidates of a problem that are kept")
    parser.add_argument("--keep", type=int, default=12, help="problems that are kept: the first that pass the rule")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--temperature", type=float, default=0.7)
    parser.add_argument("--top-p", type=float, default=0.95)
    parser.add_argument("--max-tokens", type=int, default=80)
    args = parser.parse_args(argv)
    settings = Settings(args.n, args.temperature, args.top_p, args.max_tokens, args.seed)
    problems = json.loads(args.problems.read_text(encoding="utf-8"))
    sampled = list(sample_problems(Policy(args.base or ensure_base()), problems, settings))
    report([samples for _, samples in sampled])
    picked = [(problem, pick_candidates(samples, args.candidates)) for problem, samples in sampled]
    rows = [row(problem, candidates) for problem, candidates in picked if candidates][: args.keep]
    with atomic_path(args.output) as part:
        part.write_bytes(b"".join(json_line(record) for record in rows))
    right = sum(candidate["correct"] for record in rows for candidate in record["candidates"])
    print(
        f"{args.output}: {len(rows)} problems of {sum(c is not None for _, c in picked)} that pass the rule, "
        f"{len(rows) * args.candidates} candidates, {right} right"
    )


if __name__ == "__main__":
    main()
