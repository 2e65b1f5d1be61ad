"""A policy that runs in this process with `transformers`: requests that wait are sorted and run in batches.

A request with a seed gets the same text from the same batch, always. What it is batched with changes the shapes of the
matrix products and with them the last bits of the model's numbers, so across batches texts agree until two tokens are
within rounding of each other: seldom in float32, after some hundreds of tokens in bfloat16. Every sample draws from a
random stream of its own, which depends on nothing but the seed and the sample's index.
"""

from __future__ import annotations

import gc
import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from reasonflux_prm.errors import PolicyError, PolicyStopped, UsageError
from reasonflux_prm.policy.base import Completion, Outcome, PartlyAnswered, Request, TokenLogprob
from reasonflux_prm.policy.chat_prompt import ChatPrompt
from reasonflux_prm.policy.gathering import Asked, Gatherer
from reasonflux_prm.policy.model_files import ModelFiles
from reasonflux_prm.policy.thinking import split_thinking

if TYPE_CHECKING:
    from reasonflux_prm.policy.sampling import Row

log = logging.getLogger(__name__)

_CPU_SEQUENCES, _GPU_SEQUENCES = 16, 512
_CPU_TOKENS = 65_536
_SHARE_OF_FREE_MEMORY = 0.8
"""How much of a GPU's free memory the keys and values of a batch may take, before any memory was seen to run out."""
_PREFILL_TOKENS = 32_768
"""Tokens of the prompts that are read at once; more only costs memory."""
_CONTEXT = 8
"""Tokens of a prefix that what comes behind it is decoded with."""


@dataclass(eq=False, slots=True)
class _Sample:
    """One sample of a request, on its way."""

    asked: Asked
    index: int
    row: Row
    outcome: Completion | PolicyError | None = None

    @property
    def length(self) -> int:
        """Tokens it may come to."""
        return len(self.row.prompt) + self.row.limit


class LocalPolicy:
    """A causal language model from a folder or the hub, generating with `transformers`.

    The weights are loaded with the first request.

    Args:
        model: A folder, or an id on the hub. Weights must be safetensors; code that comes with a model is not run.
        device: `cpu`, `cuda`, `cuda:1`, ...; default the GPU if there is one.
        dtype: `float32`, `bfloat16` or `float16`; default float32 on a CPU and bfloat16 on a GPU.
        batch_sequences: Most sequences of a batch; default 16 on a CPU, 512 on a GPU.
        batch_tokens: Most tokens of a batch, prompts and what may be written, padding included; default 65,536 on a
            CPU, and on a GPU as many as its free memory holds keys and values of. Halved where memory runs out.

    Raises:
        MissingExtra: `transformers` is not installed.
        PolicyStopped: There is no such model, or it cannot be read.
        UsageError: A setting is outside its range.
    """

    def __init__(
        self,
        model: str,
        *,
        device: str | None = None,
        dtype: str | None = None,
        batch_sequences: int | None = None,
        batch_tokens: int | None = None,
    ) -> None:
        if any(limit is not None and limit < 1 for limit in (batch_sequences, batch_tokens)):
            raise UsageError(
                f"batch_sequences and batch_tokens must be at least 1, and are {batch_sequences} and {batch_tokens}"
            )
        self._files = ModelFiles(model)
        import torch

        self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        on_cpu = self._device.type == "cpu"
        self._dtype = dtype or ("float32" if on_cpu else "bfloat16")
        if self._dtype not in ("float32", "bfloat16", "float16"):
            raise UsageError(f"dtype must be float32, bfloat16 or float16, and is {dtype!r}")
        self.name = self._files.name
        self._most_sequences = batch_sequences or (_CPU_SEQUENCES if on_cpu else _GPU_SEQUENCES)
        self._most_tokens = batch_tokens or (_CPU_TOKENS if on_cpu else None)
        self.concurrency = 2 * self._most_sequences
        """A batch that runs, and one that waits and is sorted meanwhile."""
        self._model: Any = None
        self._prompt = ChatPrompt(self._files.tokenizer, self.name)
        self._gatherer = Gatherer(self._answer)

    def identity(self) -> Mapping[str, Any]:
        """Return the model's name, the hash of its files or its commit on the hub, and the dtype."""
        return {"backend": "transformers", **self._files.identity(), "dtype": self._dtype}

    def generate(self, requests: Sequence[Request]) -> list[Outcome]:
        """Answer every request, in order.

        Raises:
            PolicyStopped: The model cannot be loaded.
        """
        return self._gatherer.generate(requests)

    async def ask(self, request: Request) -> Outcome:
        """Answer one request, together with others that are asked at the same time.

        Raises:
            PolicyStopped: The model cannot be loaded.
        """
        return await self._gatherer.ask(request)

    def close(self) -> None:
        """Free the model's memory; requests under way are given up at their next token."""
        self._gatherer.close()
        if self._model is not None:
            self._model = None
            if self._device.type == "cuda":
                import torch

                torch.cuda.empty_cache()

    # --- the rest runs on the gatherer's thread ---------------------------------------------------------------------

    def _answer(self, round_: list[Asked]) -> None:
        if self._model is None:
            self._load()
        samples = {asked: self._samples(asked) for asked in round_}
        waiting = sorted((one for own in samples.values() for one in own), key=lambda one: one.length, reverse=True)
        while waiting and not self._gatherer.closed:
            batch = waiting[: self._batch_size(waiting[0])]
            del waiting[: len(batch)]
            self._run([one for one in batch if not one.asked.given_up])
            for asked in {one.asked for one in batch}:
                outcomes = [one.outcome for one in samples[asked]]
                if None not in outcomes:
                    asked.answer(_joined(outcomes))

    def _load(self) -> None:
        import torch
        from transformers import AutoModelForCausalLM, GenerationConfig

        try:
            model = AutoModelForCausalLM.from_pretrained(
                self._files.source, dtype=getattr(torch, self._dtype), trust_remote_code=False, use_safetensors=True
            ).to(self._device)
        except Exception as error:  # a missing file, a wrong shape, an unknown architecture, no memory: all end the run
            raise PolicyStopped(
                f"the model {self.name} could not be loaded ({type(error).__name__}: {error})"
            ) from error
        self._ends = self._files.end_tokens(model.generation_config.eos_token_id)
        # What a model's authors recommend (a temperature, a repetition penalty) must not mix with what is asked.
        model.generation_config = GenerationConfig(
            do_sample=False, eos_token_id=sorted(self._ends) or None, pad_token_id=self._files.pad_token
        )
        self._model = model.eval()
        self._most_tokens = self._most_tokens or self._tokens_in_memory()

    def _tokens_in_memory(self) -> int:
        import torch

        free, _ = torch.cuda.mem_get_info(self._device) if self._device.type == "cuda" else (2**33, None)
        per_token = self._files.cache_values_per_token() * getattr(torch, self._dtype).itemsize
        return max(1, int(_SHARE_OF_FREE_MEMORY * free / per_token))

    def _samples(self, asked: Asked) -> list[_Sample]:
        """Return one sample for each of `n`; none for a request that cannot be run, which is told so."""
        from reasonflux_prm.policy.sampling import Row

        request = asked.request
        try:
            prompt = self._prompt.tokens(request.messages, request.prefix)
        except PolicyError as error:
            asked.answer(error)
            return []
        room = self._files.context - len(prompt)
        if room < 1:
            asked.answer(
                PolicyError(
                    f"the prompt has {len(prompt):,} tokens, and the context of {self.name} is "
                    f"{self._files.context:,}; shorten it or take a model with a longer context"
                )
            )
            return []
        rows = [
            Row(
                prompt,
                min(request.max_tokens, room),
                request.temperature,
                request.top_p,
                request.stop,
                request.top_logprobs,
                lambda: asked.given_up,
                random.Random(None if request.seed is None else request.seed + index),
            )
            for index in range(request.n)
        ]
        return [_Sample(asked, index, row) for index, row in enumerate(rows)]

    def _batch_size(self, longest: _Sample) -> int:
        assert self._most_tokens is not None
        return max(1, min(self._most_sequences, self._most_tokens // longest.length))

    def _run(self, batch: list[_Sample]) -> None:
        """Write every sample of a batch; where memory runs out, one half after the other."""
        if not batch or self._gatherer.closed:
            return
        state = [one.row.stream.getstate() for one in batch]
        try:
            self._write(batch)
            return
        except Exception as error:
            if not _out_of_memory(error):
                raise
            reason = str(error).partition("\n")[0]
        # Not in the except clause, where the traceback keeps the batch's tensors alive.
        _free_memory()
        if len(batch) == 1:
            batch[0].outcome = PolicyError(
                f"there is not enough memory for a sequence of {batch[0].length:,} tokens ({reason}); lower max_tokens "
                "or take a smaller dtype"
            )
            return
        for one, before in zip(batch, state, strict=True):
            one.row.stream.setstate(before)
            one.row.ended = None
        half = len(batch) // 2
        self._most_tokens = half * max(one.length for one in batch)
        log.warning(
            "memory ran out with %d sequences; from here on batches have %d tokens", len(batch), self._most_tokens
        )
        self._run(batch[:half])
        self._run(batch[half:])

    def _write(self, batch: list[_Sample]) -> None:
        import torch
        from transformers import LogitsProcessorList, StoppingCriteriaList

        from reasonflux_prm.policy.prefill import shared_past
        from reasonflux_prm.policy.sampling import RowSampler, RowStops

        rows = [one.row for one in batch]
        start = max(len(row.prompt) for row in rows)
        fill = [start - len(row.prompt) for row in rows]
        pad = self._files.pad_token
        tokens = torch.tensor([[pad] * empty + row.prompt for empty, row in zip(fill, rows, strict=True)])
        mask = torch.tensor([[0] * empty + [1] * len(row.prompt) for empty, row in zip(fill, rows, strict=True)])
        tokens, mask = tokens.to(self._device), mask.to(self._device)
        sampler = RowSampler(rows, self._device)
        stops = RowStops(rows, start, self._files.text, self._device, lambda: self._gatherer.closed)
        with torch.inference_mode():
            written = self._model.generate(
                tokens,
                attention_mask=mask,
                past_key_values=shared_past(self._model, tokens, mask, _PREFILL_TOKENS),
                max_new_tokens=max(row.limit for row in rows),
                prefill_chunk_size=max(1, _PREFILL_TOKENS // len(rows))
                if start * len(rows) > _PREFILL_TOKENS
                else None,
                logits_processor=LogitsProcessorList([sampler]),
                stopping_criteria=StoppingCriteriaList([stops]),
            )
        if self._gatherer.closed:
            return  # cut off anywhere, and not where the model ended
        logprobs = sampler.logprobs(self._files.word)
        for index, (one, row) in enumerate(zip(batch, written[:, start:].tolist(), strict=True)):
            if sampler.broken[index]:
                one.outcome = PolicyError(
                    f"{self.name} gave scores that are no numbers in {self._dtype}; take another dtype"
                )
            else:
                one.outcome = self._completion(one, row, None if logprobs is None else logprobs[index])

    def _completion(self, sample: _Sample, written: list[int], logprobs: list[TokenLogprob] | None) -> Completion:
        """Read what a row holds, which may go on behind the sample's own end."""
        row = sample.row
        tokens = written[: row.limit if row.ended is None else row.ended]
        end = next((place for place, token in enumerate(tokens) if token in self._ends), None)
        request = sample.asked.request
        whole = self._behind(row.prompt, tokens[:end]) if request.prefix else self._files.text(tokens[:end])
        cut, met = min(((place, stop) for stop in row.stop if (place := whole.find(stop)) >= 0), default=(None, ""))
        text, thinking = (whole[:cut], "") if request.raw else split_thinking(whole[:cut], request.prefix)
        return Completion(
            text,
            thinking,
            "length" if end is None and cut is None else "stop",
            logprobs=None
            if logprobs is None or row.logprobs is None
            else tuple(replace(one, top=one.top[: row.logprobs]) for one in logprobs[: len(tokens[:end])]),
            prompt_tokens=len(row.prompt) if sample.index == 0 else 0,
            completion_tokens=len(tokens) if end is None else end + 1,
            stopped_at=met if row.stop else None,
        )

    def _behind(self, prompt: list[int], tokens: list[int]) -> str:
        """Return what tokens say behind a prefix: tokenizers drop the space in front of a text's first word."""
        before = self._files.text(prompt[-_CONTEXT:])
        whole = self._files.text(prompt[-_CONTEXT:] + tokens)
        return whole[len(before) :] if whole.startswith(before) else self._files.text(tokens)


def _joined(outcomes: Sequence[Completion | PolicyError | None]) -> Outcome:
    """Return a request's outcome from those of its samples."""
    completions = list(takewhile(lambda one: isinstance(one, Completion), outcomes))
    if len(completions) == len(outcomes):
        return [one for one in completions if isinstance(one, Completion)]
    error = outcomes[len(completions)]
    partly = PartlyAnswered(str(error))
    partly.completions = tuple(one for one in completions if isinstance(one, Completion))
    return partly


def _out_of_memory(error: Exception) -> bool:
    import torch

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "allocate memory" in str(error)


def _free_memory() -> None:
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
