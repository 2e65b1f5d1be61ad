"""A policy that runs in this process with `transformers`: requests that wait are sorted and run in batches.

A request with a seed gets the same text from the same batch, always. What it is batched with, and how much of its
prompt was read before, changes the shapes of the matrix products and with them the last bits of the model's numbers,
so across batches texts agree until two tokens are within rounding of each other: seldom in float32, after some
hundreds of tokens in bfloat16. Every sample draws from a random stream of its own, which depends on nothing but the
seed and the sample's index.

Prompts are read once: samples of one request share theirs, and a search that goes on from what was written before
reads only what is new (`policy.prefixes`). On a GPU a batch has up to 2,048 sequences, whose steps are captured as CUDA
graphs (`policy.graphs`). A training run hands over its weights as they change, and tokens instead of texts.
"""

from __future__ import annotations

import logging
import random
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reasonflux_prm.errors import PolicyError, UsageError
from reasonflux_prm.policy.base import Completion, Outcome, Request
from reasonflux_prm.policy.chat_prompt import ChatPrompt
from reasonflux_prm.policy.gathering import Asked, Gatherer
from reasonflux_prm.policy.local_reply import Replies, joined
from reasonflux_prm.policy.memory import free_memory, out_of_memory
from reasonflux_prm.policy.model_files import ModelFiles

if TYPE_CHECKING:
    import torch

    from reasonflux_prm.policy.graphs import Graphs
    from reasonflux_prm.policy.past import Past
    from reasonflux_prm.policy.prefill import PromptReader
    from reasonflux_prm.policy.sampling import Row

log = logging.getLogger(__name__)

_CPU_SEQUENCES, _GPU_SEQUENCES = 48, 2048
_CPU_TOKENS = 65_536
_CPU_PREFIX_BYTES = 2**30
_BATCH_SHARE, _PREFIX_SHARE = 0.6, 0.2
"""How much of a GPU's free memory the keys and values of a batch, and those of prefixes, may take, before any memory
was seen to run out."""
_PREFILL_TOKENS = 32_768
"""Tokens of the prompts that are read at once; more only costs memory."""


@dataclass(eq=False, slots=True)
class _Sample:
    """One sample of a request, or of a prompt in tokens, on its way."""

    asked: Asked | None
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
        batch_sequences: Most sequences of a batch; default 48 on a CPU, 2,048 on a GPU.
        batch_tokens: Most tokens of a batch, prompts and what may be written, padding included; default 65,536 on a
            CPU, and on a GPU as many as its free memory holds keys and values of. Halved where memory runs out.
        prefix_bytes: Most bytes of keys and values to keep of what was read and written, for requests that go on from
            it; default 1 GiB on a CPU, and a fifth of a GPU's free memory. 0 keeps none. Models whose layers do not
            all keep the same (sliding windows) keep none.

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
        prefix_bytes: int | None = None,
    ) -> None:
        given = {"batch_sequences": batch_sequences, "batch_tokens": batch_tokens, "prefix_bytes": prefix_bytes}
        for name, number in given.items():
            if number is not None and number < (least := 0 if name == "prefix_bytes" else 1):
                raise UsageError(f"{name} must be at least {least}, and is {number}")
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
        self._prefix_bytes = _CPU_PREFIX_BYTES if prefix_bytes is None and on_cpu else prefix_bytes
        self._model: Any = None
        self._reader: PromptReader | None = None
        self._graphs: Graphs | None = None
        self._taken: str | None = None
        self._prompt = ChatPrompt(self._files.tokenizer, self.name)
        self._replies = Replies(self._files)
        self._gatherer = Gatherer(self._answer)

    def identity(self) -> Mapping[str, Any]:
        """Return the model's name, the hash of its files or its commit on the hub, and the dtype."""
        taken = {} if self._taken is None else {"weights": self._taken}
        return {"backend": "transformers", **self._files.identity(), "dtype": self._dtype, **taken}

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

    def continue_tokens(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_tokens: int,
        temperature: float = 1.0,
        top_p: float = 1.0,
        seed: int | None = None,
    ) -> list[list[int]]:
        """Write what follows each prompt, tokens in and tokens out, for trainers.

        Args:
            prompts: Each with at least one token; the same prompt again gets a sample of its own.
            max_tokens: Of each, if the context has room for as many.
            temperature: 0 takes the likeliest token.
            top_p: Share of the probability that is drawn from, in (0, 1].
            seed: Of the first; those that follow have the following seeds.

        Returns:
            The written tokens, the end token included where the model ended by itself.

        Raises:
            PolicyError: A prompt is empty or fills the context, memory ran out, or scores were no numbers.
            PolicyStopped: The model cannot be loaded.
        """
        from reasonflux_prm.policy.sampling import Row

        limits = [min(max_tokens, self._files.context - len(prompt)) for prompt in prompts]
        bad = [number for number, prompt in enumerate(prompts) if not prompt or limits[number] < 1]
        if bad:
            length, most = len(prompts[bad[0]]), self._files.context - 1
            raise PolicyError(f"prompt {bad[0]} has {length:,} tokens, and must have 1 to {most:,}")
        samples = [
            _Sample(
                None,
                number,
                Row(list(prompt), limits[number], temperature, top_p, (), None, lambda: False, _stream(seed, number)),
            )
            for number, prompt in enumerate(prompts)
        ]
        self._gatherer.run(lambda: self._run_all(samples))
        for sample in samples:
            if isinstance(sample.outcome, PolicyError):
                raise sample.outcome
        return [sample.row.written for sample in samples]

    def take_weights(self, state: Mapping[str, torch.Tensor]) -> None:
        """Write on with the weights of a training run, copied in place and cast to the policy's dtype.

        Args:
            state: Every parameter of the model by its name in `transformers`; others are left alone.

        Raises:
            UsageError: A parameter is missing, or has another shape.
            PolicyStopped: The model cannot be loaded.
        """
        self._gatherer.run(lambda: self._take(state))

    def close(self) -> None:
        """Free the model's memory; requests under way are given up at their next token."""
        self._gatherer.close()
        if self._model is not None:
            self._model = self._reader = self._graphs = None
            if self._device.type == "cuda":
                import torch

                torch.cuda.empty_cache()

    # --- the rest runs on the gatherer's thread ---------------------------------------------------------------------

    def _answer(self, round_: list[Asked]) -> None:
        samples = {asked: self._samples(asked) for asked in round_}

        def ran(batch: list[_Sample]) -> None:
            for asked in {one.asked for one in batch if one.asked}:
                outcomes = [one.outcome for one in samples[asked]]
                if None not in outcomes:
                    asked.answer(joined(outcomes))

        self._run_all([one for own in samples.values() for one in own], ran)

    def _run_all(self, samples: list[_Sample], ran: Callable[[list[_Sample]], None] = lambda _: None) -> None:
        """Run samples in batches of like length, and tell of each batch that is over."""
        if self._model is None:
            self._load()
        waiting = sorted(samples, key=lambda one: one.length, reverse=True)
        while waiting and not self._gatherer.closed:
            batch = waiting[: self._batch_size(waiting[0])]
            del waiting[: len(batch)]
            self._run([one for one in batch if not (one.asked and one.asked.given_up)])
            ran(batch)

    def _take(self, state: Mapping[str, torch.Tensor]) -> None:
        from reasonflux_prm.policy.weights import take_weights

        if self._model is None:
            self._load()
        take_weights(self._model, state)
        if self._reader:
            self._reader.prefixes.clear()
        # What is cached by the model's identity was written by other weights.
        self._taken = secrets.token_hex(8)

    def _load(self) -> None:
        import torch

        from reasonflux_prm.policy.past import kept_shape
        from reasonflux_prm.policy.prefill import PromptReader

        self._model = self._files.load(self._dtype, self._device)
        self._replies.ends = self._files.end_tokens(self._model.generation_config.eos_token_id)
        free, _ = torch.cuda.mem_get_info(self._device) if self._device.type == "cuda" else (2**33, None)
        per_token = self._files.cache_values_per_token() * getattr(torch, self._dtype).itemsize
        self._most_tokens = self._most_tokens or max(1, int(_BATCH_SHARE * free / per_token))
        kept = int(_PREFIX_SHARE * free) if self._prefix_bytes is None else self._prefix_bytes
        if shape := kept_shape(self._model, self._device):
            self._reader = PromptReader(self._model, shape, self._files.pad_token, _PREFILL_TOKENS, kept, self._device)
            if self._device.type == "cuda":
                from reasonflux_prm.policy.graphs import Graphs

                graphs = Graphs(self._model, shape, self._device)
                self._graphs = graphs if graphs.works() else None

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
                _stream(request.seed, index),
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
            if not out_of_memory(error):
                raise
            reason = str(error).partition("\n")[0]
        # Not in the except clause, where the traceback keeps the batch's tensors alive.
        if self._reader:
            self._reader.prefixes.clear()
        if self._graphs:
            self._graphs.clear()
        free_memory()
        if len(batch) == 1:
            batch[0].outcome = PolicyError(
                f"there is not enough memory for a sequence of {batch[0].length:,} tokens ({reason}); lower max_tokens "
                "or take a smaller dtype"
            )
            return
        for one, before in zip(batch, state, strict=True):
            one.row.stream.setstate(before)
            one.row.reset()
        half = len(batch) // 2
        self._most_tokens = half * max(one.length for one in batch)
        log.warning(
            "memory ran out with %d sequences; from here on batches have %d tokens", len(batch), self._most_tokens
        )
        self._run(batch[:half])
        self._run(batch[half:])

    def _write(self, batch: list[_Sample]) -> None:
        import torch

        from reasonflux_prm.policy.decoding import write

        rows = [one.row for one in batch]
        with torch.inference_mode():
            write(
                self._past(rows),
                rows,
                self._replies.ends,
                self._files.text,
                self._device,
                closing=lambda: self._gatherer.closed,
                ended=self._keep,
            )
        if self._gatherer.closed:
            return  # cut off anywhere, and not where the model ended
        for one in batch:
            if one.row.broken:
                one.outcome = PolicyError(
                    f"{self.name} gave scores that are no numbers in {self._dtype}; take another dtype"
                )
            elif one.asked:
                one.outcome = self._replies.completion(one.row, one.asked.request, one.index == 0)

    def _past(self, rows: list[Row]) -> Past:
        """Return the past of a batch's prompts, all but their last tokens."""
        from reasonflux_prm.policy.past import KeptPast, ModelsPast

        prompts = [row.prompt[:-1] for row in rows]
        reader = self._reader
        if reader is None:
            return ModelsPast(self._model, prompts, self._files.pad_token, _PREFILL_TOKENS, self._device)
        known, room = reader.read(prompts), max(row.limit for row in rows)
        if self._graphs:
            from reasonflux_prm.policy.graphs import GraphedPast

            return GraphedPast(self._graphs, known, room)
        return KeptPast(self._model, reader.shape, known, room, self._device)

    def _keep(self, row: Row, past: torch.Tensor | None) -> None:
        """Keep what a row has read, if it may be gone on from: a step of a search, and not the end of a text."""
        if past is not None and self._reader and row.stop and row.written[-1] not in self._replies.ends:
            self._reader.prefixes.add(row.prompt + row.written[:-1], past)


def _stream(seed: int | None, index: int) -> random.Random:
    """Return the random numbers of a sample."""
    return random.Random(None if seed is None else seed + index)
