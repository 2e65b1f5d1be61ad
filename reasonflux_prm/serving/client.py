"""A client of the service: traces in, scored traces out, in order, however busy the service is.

    with Client("http://127.0.0.1:8000") as client:
        for scored in client.score(read_traces("traces.jsonl")):
            print(scored.trace.id, scored.reward)

Traces go out in batches, several at once; a busy service is waited for as it asks. It needs httpx, and no torch.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from reasonflux_prm.errors import InputError, ServiceError, UsageError
from reasonflux_prm.policy.loop import LoopThread
from reasonflux_prm.records import PRMIdentity, ScoredTrace, Status, Trace
from reasonflux_prm.serving.calls import Caller, Patience, TooLarge
from reasonflux_prm.traces.native import read_steps, trace_row
from reasonflux_prm.traces.write import json_line

T = TypeVar("T")

TOKEN_VARIABLE: Final = "REASONFLUX_PRM_TOKEN"
BATCH_CHARACTERS: Final = 1 << 20
"""A batch is closed once it has so many."""


class AsyncClient:
    """Asks a service, from one event loop.

    Args:
        url: The service's address, such as `http://127.0.0.1:8000`.
        token: What the service was given as `--token`; None takes the environment variable `REASONFLUX_PRM_TOKEN`.
        patience: When to give up.
        batch: Traces of a request, at most.
        concurrency: Requests at a time.

    Raises:
        MissingExtra: httpx is not installed.
        UsageError: `batch` or `concurrency` is below 1.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        patience: Patience | None = None,
        batch: int = 32,
        concurrency: int = 8,
    ) -> None:
        if batch < 1 or concurrency < 1:
            raise UsageError(f"batch and concurrency must be at least 1, got {batch} and {concurrency}")
        token = os.environ.get(TOKEN_VARIABLE) if token is None else token
        self._calls = Caller(url, token, patience or Patience(), concurrency)
        self._batch, self._concurrency = batch, concurrency
        self._places = asyncio.Semaphore(concurrency)

    async def score(
        self,
        traces: Iterable[Trace],
        *,
        alpha: float | None = None,
        aggregation: str | None = None,
        steps: str | None = None,
        overflow: str | None = None,
        overlap: float | None = None,
    ) -> list[ScoredTrace]:
        """Score traces.

        Args:
            traces: What to score. They are not sent whole: columns that no reward depends on stay here.
            alpha: Weight of the trajectory reward; like the others, None leaves it to the service.
            aggregation: From step rewards to one number.
            steps: The step rule; `given` takes `Trace.steps`.
            overflow: What to do with a trace longer than the PRM's context.
            overlap: Share of a window that the next one repeats, in [0, 1).

        Returns:
            One record a trace, in order. A trace that could not be scored is a record with a reason.

        Raises:
            ServiceError: The service cannot be reached, stays busy, refuses the token, or failed.
            UsageError: A setting is not one that the service takes.
        """
        options = {"alpha": alpha, "aggregation": aggregation, "steps": steps}
        options |= {"overflow": overflow, "overlap": overlap}
        batches = list(_batches(traces, self._batch))
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_outcome(self._score(batch, options))) for batch in batches]
        scored: list[ScoredTrace] = []
        for task in tasks:
            outcome = task.result()
            if isinstance(outcome, Exception):
                raise outcome
            scored += outcome
        return scored

    async def pooling(self, inputs: Sequence[str | Sequence[int]]) -> list[list[list[float]]]:
        """Return the labels of prompts by `/pooling`, each prompt a text or token ids: (tokens or steps, labels).

        Raises:
            ServiceError: The service cannot be reached, stays busy, refuses the token, or has no `/pooling`.
            InputError: A prompt is empty or too long.
        """
        labels: list[list[list[float]]] = []
        for prompt in inputs:
            value = prompt if isinstance(prompt, str) else [list(prompt)]
            answer = await self._calls.post("/pooling", json.dumps({"input": value}).encode())
            labels += [row["data"] for row in answer["data"]]
        return labels

    async def model(self) -> Mapping[str, Any]:
        """Return what the service says of its PRM: identity, settings, range and meaning of its rewards.

        Raises:
            ServiceError: The service cannot be reached or refuses the token.
        """
        answer = await self._calls.get("/v1/models")
        try:
            card: Mapping[str, Any] = answer["data"][0]
            PRMIdentity(**card["prm"])
        except (KeyError, IndexError, TypeError) as error:
            raise ServiceError(
                f"{self._calls.url} is no service of reasonflux-prm: its /v1/models says {answer}"
            ) from error
        return card

    async def healthy(self) -> bool:
        """Return whether the service takes requests; one that cannot be reached or is stopping does not."""
        try:
            return bool((await self._calls.get("/health"))["ready"])
        except (ServiceError, KeyError):
            return False

    async def close(self) -> None:
        """Close the connections."""
        await self._calls.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # --- one batch ---------------------------------------------------------------------------------------------------

    async def _score(self, traces: Sequence[Trace], options: Mapping[str, Any]) -> list[ScoredTrace]:
        rows: list[bytes] = []
        faults: dict[int, str] = {}
        for index, trace in enumerate(traces):
            try:
                rows.append(json_line(_sent(trace)))
            except InputError as error:
                faults[index] = str(error)
        head = json.dumps({"format": "native", "echo": False, **{k: v for k, v in options.items() if v is not None}})
        body = b'%s,"traces":[%s]}' % (head[:-1].encode(), b",".join(rows))
        sent = [trace for index, trace in enumerate(traces) if index not in faults]
        try:
            async with self._places:
                answer = await self._calls.post("/score", body)
        except TooLarge as error:
            return await self._halves(traces, options, error)
        try:
            given = iter(self._records(sent, answer))
        except (KeyError, TypeError, ValueError, InputError) as error:
            raise ServiceError(f"{self._calls.url} answered in a form that is not ours ({error!r})") from error
        return [
            await self._unscored(trace, options, faults[index]) if index in faults else next(given)
            for index, trace in enumerate(traces)
        ]

    def _records(self, traces: Sequence[Trace], answer: Mapping[str, Any]) -> list[ScoredTrace]:
        if len(answer["scored"]) != len(traces) or answer["rejects"]:
            raise ValueError(f"{len(traces)} traces, {len(answer['scored'])} scored, rejects {answer['rejects']}")
        return [_scored(trace, row) for trace, row in zip(traces, answer["scored"], strict=True)]

    async def _halves(self, traces: Sequence[Trace], options: Mapping[str, Any], error: TooLarge) -> list[ScoredTrace]:
        """Score what does not fit into one request as two, down to the one trace that does not fit into any."""
        if len(traces) == 1:
            return [await self._unscored(traces[0], options, str(error), Status.TOO_LONG)]
        middle = len(traces) // 2
        return [*await self._score(traces[:middle], options), *await self._score(traces[middle:], options)]

    async def _unscored(
        self, trace: Trace, options: Mapping[str, Any], reason: str, status: Status = Status.FAILED
    ) -> ScoredTrace:
        identity = identity_of(await self.model(), options.get("aggregation"), options.get("alpha"))
        return ScoredTrace(trace, status, (), (), None, None, identity, 0, note=reason)


class Client:
    """Asks a service from plain code; see `AsyncClient`, whose arguments and methods it has."""

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        patience: Patience | None = None,
        batch: int = 32,
        concurrency: int = 8,
    ) -> None:
        self._asks = AsyncClient(url, token=token, patience=patience, batch=batch, concurrency=concurrency)
        self._loop = LoopThread("reasonflux-prm-client", self._asks.close)
        self._closed = False

    def score(
        self,
        traces: Iterable[Trace],
        *,
        alpha: float | None = None,
        aggregation: str | None = None,
        steps: str | None = None,
        overflow: str | None = None,
        overlap: float | None = None,
    ) -> list[ScoredTrace]:
        """Score traces; see `AsyncClient.score`."""
        return self._run(
            self._asks.score(
                traces, alpha=alpha, aggregation=aggregation, steps=steps, overflow=overflow, overlap=overlap
            )
        )

    def pooling(self, inputs: Sequence[str | Sequence[int]]) -> list[list[list[float]]]:
        """Return the labels of prompts; see `AsyncClient.pooling`."""
        return self._run(self._asks.pooling(inputs))

    def model(self) -> Mapping[str, Any]:
        """Return what the service says of its PRM; see `AsyncClient.model`."""
        return self._run(self._asks.model())

    def healthy(self) -> bool:
        """Return whether the service takes requests."""
        return self._run(self._asks.healthy())

    def close(self) -> None:
        """Close the connections."""
        self._closed = True
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        if self._closed:
            work.close()
            raise UsageError("this client is closed; make another one")
        return self._loop.run(work)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def identity_of(card: Mapping[str, Any], aggregation: str | None, alpha: float | None) -> PRMIdentity:
    """Return how records name a service's PRM when a request brings settings of its own.

    Args:
        card: From `AsyncClient.model`.
        aggregation: The request's own, or None.
        alpha: The request's own, or None.
    """
    own = {name: value for name, value in (("aggregation", aggregation), ("alpha", alpha)) if value is not None}
    return replace(PRMIdentity(**card["prm"]), **own)  # type: ignore[arg-type]


def _batches(traces: Iterable[Trace], most: int) -> Iterator[list[Trace]]:
    batch: list[Trace] = []
    characters = 0
    for trace in traces:
        batch.append(trace)
        characters += len(trace.problem) + len(trace.thinking) + len(trace.response)
        if len(batch) >= most or characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


async def _outcome(work: Awaitable[list[ScoredTrace]]) -> list[ScoredTrace] | Exception:
    """Return an error instead of raising it, so that a group of tasks raises it as it is."""
    try:
        return await work
    except Exception as error:
        return error


def _sent(trace: Trace) -> dict[str, Any]:
    """Return what rewards depend on."""
    return trace_row(Trace(trace.id, trace.problem, trace.thinking, trace.response, steps=trace.steps))


def _scored(trace: Trace, row: Mapping[str, Any]) -> ScoredTrace:
    return ScoredTrace(
        trace=trace,
        status=Status(row["status"]),
        steps=read_steps(row["steps"], {"thinking": trace.thinking, "response": trace.response}, "steps"),
        step_rewards=tuple(step["reward"] for step in row["steps"]),
        trajectory_reward=row["trajectory_reward"],
        reward=row["reward"],
        prm=PRMIdentity(**row["prm"]),
        tokens=row["tokens"],
        overflow=row["overflow"],
        note=row["note"],
    )
