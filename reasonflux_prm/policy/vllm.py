"""A policy that runs vLLM in this process: requests that wait are handed to its engine together.

vLLM schedules by itself; what is done here is to keep the same contract as the other policies: prompts written and
measured by the same rules, one request's fault kept from its neighbours, thinking told apart, tokens counted. Written
for the offline `LLM` class of vLLM 0.30 to 0.32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from reasonflux_prm.errors import MissingExtra, PolicyError, PolicyStopped, UsageError
from reasonflux_prm.policy.base import Completion, Outcome, Request, TokenLogprob
from reasonflux_prm.policy.chat_prompt import ChatPrompt
from reasonflux_prm.policy.gathering import Asked, Gatherer
from reasonflux_prm.policy.model_files import ModelFiles
from reasonflux_prm.policy.thinking import split_thinking

_CONCURRENCY = 512
"""Twice the sequences that vLLM runs at once by default, so that a round that ends finds the next one waiting."""


class VLLMPolicy:
    """A causal language model from a folder or the hub, generating with vLLM.

    The engine is started with the first request, which takes a minute or more.

    Args:
        model: A folder, or an id on the hub. Code that comes with a model is not run.
        dtype: `float32`, `bfloat16` or `float16`; default what the checkpoint says.
        context: Most tokens of prompt and completion; default the model's own limit, which may not fit the memory.
        gpus: Over how many GPUs the model is spread (tensor parallelism).
        memory: The share of a GPU's memory to use, in (0, 1].

    Raises:
        MissingExtra: `vllm` or `transformers` is not installed.
        PolicyStopped: There is no such model, or it cannot be read.
        UsageError: A setting is outside its range.
    """

    concurrency = _CONCURRENCY

    def __init__(
        self, model: str, *, dtype: str | None = None, context: int | None = None, gpus: int = 1, memory: float = 0.9
    ) -> None:
        if (context is not None and context < 1) or gpus < 1 or not 0 < memory <= 1:
            raise UsageError(
                "vLLM needs context >= 1, gpus >= 1 and memory in (0, 1], and got "
                f"context={context}, gpus={gpus}, memory={memory}"
            )
        try:
            self._vllm = import_module("vllm")
        except ImportError as error:
            raise MissingExtra(
                "vllm: models need vLLM, which has a build for every platform: see its installation page, "
                'or pip install "vllm>=0.30,<0.33"'
            ) from error
        self._files = ModelFiles(model)
        self.name = self._files.name
        self._dtype = dtype or "auto"
        self._context = min(context or self._files.context, self._files.context)
        self._gpus, self._memory = gpus, memory
        self._engine: Any = None
        self._prompt = ChatPrompt(self._files.tokenizer, self.name)
        self._gatherer = Gatherer(self._answer)

    def identity(self) -> Mapping[str, Any]:
        """Return the model's name, the hash of its files or its commit on the hub, and the dtype."""
        return {"backend": "vllm", **self._files.identity(), "dtype": self._dtype}

    def generate(self, requests: Sequence[Request]) -> list[Outcome]:
        """Answer every request, in order.

        Raises:
            PolicyStopped: The engine cannot be started.
        """
        return self._gatherer.generate(requests)

    async def ask(self, request: Request) -> Outcome:
        """Answer one request, together with others that are asked at the same time.

        Raises:
            PolicyStopped: The engine cannot be started.
        """
        return await self._gatherer.ask(request)

    def close(self) -> None:
        """Let go of the engine; what it is writing comes to its end first."""
        self._gatherer.close()
        self._engine = None

    # --- the rest runs on the gatherer's thread ---------------------------------------------------------------------

    def _answer(self, round_: list[Asked]) -> None:
        if self._engine is None:
            self._start()
        ready: list[tuple[Asked, list[int]]] = []
        for asked in round_:
            try:
                ready.append((asked, self._fitting(asked.request)))
            except PolicyError as error:
                asked.answer(error)
        # Neighbours in the queue then finish at about the same time.
        ready.sort(key=lambda one: len(one[1]), reverse=True)
        self._run(ready)

    def _start(self) -> None:
        try:
            self._engine = self._vllm.LLM(
                model=self._files.source,
                dtype=self._dtype,
                max_model_len=self._context,
                tensor_parallel_size=self._gpus,
                gpu_memory_utilization=self._memory,
                trust_remote_code=False,
                # What a model's authors recommend must not mix with what is asked.
                generation_config="vllm",
                disable_log_stats=True,
            )
        except Exception as error:  # no memory, no GPU, an unknown architecture: all end the run
            raise PolicyStopped(
                f"vLLM could not be started with {self.name} ({type(error).__name__}: {error})"
            ) from error

    def _fitting(self, request: Request) -> list[int]:
        prompt = self._prompt.tokens(request.messages, request.prefix)
        if len(prompt) >= self._context:
            raise PolicyError(
                f"the prompt has {len(prompt):,} tokens, and the context of {self.name} is {self._context:,}; shorten "
                "it or take a model with a longer context"
            )
        return prompt

    def _run(self, ready: list[tuple[Asked, list[int]]]) -> None:
        if self._gatherer.closed or not ready:
            return
        prompts = [{"prompt_token_ids": prompt} for _, prompt in ready]
        settings = [self._settings(asked.request, len(prompt)) for asked, prompt in ready]
        try:
            outputs = self._engine.generate(prompts, settings, use_tqdm=False)
        except Exception as error:  # vLLM's own classes, which have changed their places and bases
            if type(error).__name__ == "EngineDeadError":
                self._engine = None
                raise PolicyStopped(f"vLLM's engine has ended; see its log ({error})") from error
            if len(ready) == 1:
                ready[0][0].answer(PolicyError(f"vLLM refused the request ({type(error).__name__}: {error})"))
                return
            # It refuses all where it refuses one, so each is asked alone to find out which.
            for one in ready:
                self._run([one])
            return
        for (asked, prompt), output in zip(ready, outputs, strict=True):
            asked.answer(self._outcome(asked.request, len(prompt), output))

    def _settings(self, request: Request, prompt_tokens: int) -> Any:
        return self._vllm.SamplingParams(
            n=request.n,
            temperature=request.temperature,
            top_p=request.top_p,
            max_tokens=min(request.max_tokens, self._context - prompt_tokens),
            stop=list(request.stop),
            seed=request.seed,
            logprobs=request.top_logprobs,
        )

    def _outcome(self, request: Request, prompt_tokens: int, output: Any) -> Outcome:
        if len(output.outputs) != request.n:
            return PolicyError(f"vLLM gave {len(output.outputs)} completions, and n is {request.n}")
        completions = []
        for index, one in enumerate(output.outputs):
            text, thinking = (one.text, "") if request.raw else split_thinking(one.text, request.prefix)
            # A token's number where one of the model's own ended it.
            told, reason = bool(request.stop) and hasattr(one, "stop_reason"), getattr(one, "stop_reason", None)
            completions.append(
                Completion(
                    text,
                    thinking,
                    one.finish_reason or "unknown",
                    logprobs=None if request.top_logprobs is None else self._logprobs(request.top_logprobs, one),
                    prompt_tokens=prompt_tokens if index == 0 else 0,
                    completion_tokens=len(one.token_ids),
                    stopped_at=(reason if isinstance(reason, str) else "") if told else None,
                )
            )
        return completions

    def _logprobs(self, alternatives: int, one: Any) -> tuple[TokenLogprob, ...] | None:
        """Read what vLLM reports: one mapping a token, from tokens to logprobs, the chosen one among them."""
        if one.logprobs is None:
            return None
        found = []
        for token, reported in zip(one.token_ids, one.logprobs, strict=True):
            best = sorted(reported.items(), key=lambda pair: -pair[1].logprob)[:alternatives]
            top = tuple((self._files.word(other), float(value.logprob)) for other, value in best)
            found.append(TokenLogprob(self._files.word(token), float(reported[token].logprob), top))
        return tuple(found)
