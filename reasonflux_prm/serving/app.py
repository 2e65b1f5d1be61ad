"""The endpoints: what each takes, what it answers, and every error as one sentence."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import asdict
from typing import Any, TypeVar
from uuid import uuid4

from fastapi import APIRouter, FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException as StarletteHTTPException

from reasonflux_prm.errors import ContextError, InputError, ReasonFluxError, UsageError
from reasonflux_prm.records import ScoredTrace, Status, Trace
from reasonflux_prm.serving import messages as m
from reasonflux_prm.serving.gate import HUNG_UP, App, Gate, HungUp
from reasonflux_prm.serving.limits import Refusal
from reasonflux_prm.serving.metrics import CONTENT_TYPE
from reasonflux_prm.serving.openrlhf import reference_answer, rewards_of, trace_of
from reasonflux_prm.serving.pooling import Pooler, Prompt, PromptWork, base64_of
from reasonflux_prm.serving.service import Answer, Service
from reasonflux_prm.traces.jsonl import json_object
from reasonflux_prm.traces.native import SCORE_COLUMNS
from reasonflux_prm.traces.write import scored_row

T = TypeVar("T")

_SAYS = {
    400: "The body is not JSON, or holds a prompt that the PRM cannot read.",
    401: "The token is missing or wrong.",
    404: "Another model is served.",
    408: "The body did not come in time.",
    413: "The body, or the request as a whole, is larger than the service takes.",
    415: "The body does not say that it is JSON.",
    422: "The body is JSON, but not what the endpoint takes.",
    429: "The queue is full; Retry-After says when to ask again.",
    500: "The PRM failed.",
    503: "The service is stopping, or its PRM does not answer.",
}
_MACHINE_FAULTS = (Status.NOT_FINITE, Status.OUT_OF_MEMORY)
"""Statuses that say nothing of the trace: a trainer must not learn from them."""


def _errors(*codes: int) -> dict[int | str, dict[str, Any]]:
    return {code: {"model": m.ErrorAnswer, "description": _SAYS[code]} for code in codes}


_BODY = _errors(400, 401, 408, 413, 415, 422, 429, 500, 503)


class _StrictRequest(Request):
    """Its JSON is read as strictly as a line of a file."""

    async def json(self) -> Any:
        try:
            return json_object(await self.body())
        except InputError as error:
            raise HTTPException(400, str(error)) from error


class _StrictRoute(APIRoute):
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def strict(request: Request) -> Response:
            return await handle(_StrictRequest(request.scope, request.receive))

        return strict


def create_app(service: Service, pooler: Pooler | None = None, token: str | None = None) -> App:
    """Return the ASGI application of a service.

    Args:
        service: What scores.
        pooler: How `/pooling` reads; None leaves the endpoint out, for PRMs that are no token classifiers.
        token: What requests must bear, except for `/health`; None lets everyone in.
    """
    app = FastAPI(
        title="reasonflux-prm",
        summary="One process reward model: rewards for every step of a reasoning trace, and for the trace.",
        # The pages that show a schema fetch their scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        separate_input_output_schemas=False,
    )
    router = APIRouter(route_class=_StrictRoute)
    _add_state(router, service, pooler)
    _add_score(router, service)
    _add_get_reward(router, service)
    if pooler is not None:
        _add_pooling(router, service, pooler)
    app.include_router(router)
    _add_errors(app)
    paths = frozenset(route.path for route in router.routes if isinstance(route, APIRoute)) | {"/openapi.json"}
    return Gate(app, service, token, paths)


# --- endpoints -------------------------------------------------------------------------------------------------------


def _add_score(router: APIRouter, service: Service) -> None:
    @router.post("/score", response_model=m.ScoreAnswer, responses=_BODY)
    async def score(body: m.ScoreRequest, request: Request) -> Response:
        """Score traces: a reward for every step, for the trajectory, and for the trace as a whole."""

        def render(answer: Answer) -> bytes:
            scored = [_row(record, echo=body.echo) for record in answer.scored]
            usage = {"traces": len(scored), "tokens": sum(record.tokens for record in answer.scored)}
            return _json({"scored": scored, "rejects": [asdict(one) for one in answer.rejects], "usage": usage})

        return _json_response(
            await _unless_gone(request, service.score_rows(body.rows(), body.format, body.options(), render))
        )


def _add_get_reward(router: APIRouter, service: Service) -> None:
    @router.post("/get_reward", response_model=m.RewardAnswer, responses=_BODY)
    async def get_reward(body: m.RewardRequest, request: Request) -> Response:
        """Reward decoded texts, as OpenRLHF's `--reward.remote_url` asks; waits where the queue is full."""
        for name, given in (("prompts", body.prompts), ("labels", body.labels)):
            if given is not None and len(given) != len(body.query):
                raise UsageError(f"expected one of {name} for each query, got {len(given)} for {len(body.query)}")
        prompts = body.prompts or [None] * len(body.query)
        labels = body.labels or [None] * len(body.query)

        def make(index: int) -> Trace:
            return trace_of(
                body.query[index], prompts[index], id=f"query:{index}", answer=reference_answer(labels[index])
            )

        def render(answer: Answer) -> bytes:
            for record in answer.scored:
                if record.status in _MACHINE_FAULTS:
                    raise ReasonFluxError(f"{record.trace.id} has no reward: {record.status.value}: {record.note}")
            return _json(asdict(rewards_of(answer.scored, service.prm.spec.score_range)))

        return _json_response(await _unless_gone(request, service.score_traces(make, len(body.query), render)))


def _add_pooling(router: APIRouter, service: Service, pooler: Pooler) -> None:
    @router.post("/pooling", response_model=m.PoolingAnswer, responses=_BODY | _errors(404))
    async def pooling(body: m.PoolingTextRequest | m.PoolingMessagesRequest, request: Request) -> Response:
        """Rewards of every token, or of every step, as vLLM's `/pooling` gives those of a token classifier."""
        name = service.prm.spec.name
        if body.model not in (None, name):
            raise Refusal(
                404, f"expected the model {name}, which is the one served here, got {body.model}", "UsageError"
            )
        parts = body.prompts() if isinstance(body, m.PoolingTextRequest) else [body.messages]

        def make(index: int) -> PromptWork:
            return pooler.work(_prompt(pooler, parts[index], body))

        def render(works: list[PromptWork]) -> bytes:
            tokens = sum(len(work.prompt.tokens) for work in works)
            rows = [pooler.data(work) for work in works]
            encode = base64_of if body.encoding_format == "base64" else list
            data = [{"index": index, "object": "pooling", "data": encode(row)} for index, row in enumerate(rows)]
            usage = {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0}
            head = {"id": f"pool-{body.request_id or uuid4().hex}", "object": "list", "created": int(time.time())}
            return _json({**head, "model": name, "data": data, "usage": usage})

        return _json_response(await _unless_gone(request, service.read(make, len(parts), render)))


def _prompt(pooler: Pooler, part: Any, body: m.PoolingTextRequest | m.PoolingMessagesRequest) -> Prompt:
    if isinstance(body, m.PoolingMessagesRequest):
        return pooler.of_messages(part)
    if isinstance(part, str):
        return pooler.of_text(part, body.truncate_prompt_tokens, body.add_special_tokens)
    return pooler.of_tokens(part, body.truncate_prompt_tokens)


def _add_state(router: APIRouter, service: Service, pooler: Pooler | None) -> None:
    created = int(time.time())

    def health(ok: bool, response: Response) -> m.Health:
        response.status_code = 200 if ok else 503
        room = service.room
        return m.Health(live=service.alive, ready=service.ready, queue_traces=room.traces, queue_tokens=room.tokens)

    unwell: dict[int | str, dict[str, Any]] = {503: {"model": m.Health, "description": "It does not."}}

    @router.get("/health", responses=unwell)
    async def is_ready(response: Response) -> m.Health:
        """Whether the service takes requests."""
        return health(service.ready, response)

    @router.get("/health/ready", responses=unwell)
    async def is_ready_too(response: Response) -> m.Health:
        """Whether the service takes requests."""
        return health(service.ready, response)

    @router.get("/health/live", responses=unwell)
    async def is_live(response: Response) -> m.Health:
        """Whether the PRM answers; a service that is stopping still does."""
        return health(service.alive, response)

    @router.get("/v1/models", responses=_errors(401))
    async def models() -> m.ModelList:
        """The PRM that is served, and what its numbers mean."""
        spec = service.prm.spec
        card = m.ModelCard(
            id=spec.name,
            created=created,
            max_model_len=spec.context_length,
            prm=m.Identity(**asdict(service.engine.identity)),
            settings=service.engine.settings_for_manifest(),
            score_range=spec.score_range,
            meaning=spec.meaning,
            pooling=pooler.pooling if pooler is not None else None,
        )
        return m.ModelList(data=[card])

    @router.get("/metrics", responses={200: {"content": {"text/plain": {}}}, **_errors(401)}, response_class=Response)
    async def metrics() -> Response:
        """Counts for Prometheus."""
        return Response(service.metrics.text(), media_type=CONTENT_TYPE)


# --- how -------------------------------------------------------------------------------------------------------------


async def _unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Wait for work, and give it up when the client hangs up.

    Raises:
        HungUp: It did.
    """

    async def hung_up() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(hung_up())
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise HungUp
        return await task
    finally:
        gone.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait((task,))


def _row(record: ScoredTrace, *, echo: bool) -> dict[str, Any]:
    row = scored_row(record)
    return row if echo else {name: row[name] for name in ("id", *SCORE_COLUMNS)}


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _json_response(body: bytes) -> Response:
    """Return bytes that are JSON already; the tests hold them to the schema."""
    return Response(body, media_type="application/json")


# --- errors ----------------------------------------------------------------------------------------------------------


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(Refusal)
    async def refused(_: Request, refusal: Refusal) -> Response:
        return Response(_json(refusal.body()), refusal.status, refusal.headers(), "application/json")

    @app.exception_handler(HungUp)
    async def gone(_: Request, error: HungUp) -> Response:
        return Response(status_code=HUNG_UP)

    @app.exception_handler(ReasonFluxError)
    async def ours(request: Request, error: ReasonFluxError) -> Response:
        # vLLM gives 400 to a prompt that is too long or empty, and its clients look for that.
        status = 422 if isinstance(error, UsageError) else 400 if isinstance(error, InputError | ContextError) else 500
        return await refused(request, Refusal(status, str(error), type(error).__name__))

    @app.exception_handler(Exception)
    async def fault(request: Request, error: Exception) -> Response:
        message = f"the service failed with {type(error).__name__}; its log has more"
        return await refused(request, Refusal(500, message, "ServiceError"))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        return await refused(request, Refusal(422, sentence(error.errors()), "InputError"))

    @app.exception_handler(StarletteHTTPException)
    async def plain(request: Request, error: StarletteHTTPException) -> Response:
        message = str(error.detail)
        if error.status_code in (404, 405):
            message = f"there is no {request.method} {request.url.path} here; GET /openapi.json lists what there is"
        kind = "InputError" if error.status_code < 500 else "ServiceError"
        response = await refused(request, Refusal(error.status_code, message, kind))
        response.headers.update(error.headers or {})
        return response


def sentence(errors: Sequence[Any]) -> str:
    """Return what is wrong with a body in one sentence: its first fault, and how many more there are.

    Where a field may be of several kinds there are faults for each; those that lie deepest are of the kind that was
    meant.
    """
    deepest = max(len(error["loc"]) for error in errors)
    meant = [error for error in errors if len(error["loc"]) == deepest]
    place = ".".join(str(part) for part in meant[0]["loc"][1:]) or "the body"
    more = f" ({len(meant) - 1} more like it)" if len(meant) > 1 else ""
    message = meant[0]["msg"]
    return f"{place}: {message[0].lower()}{message[1:]}{more}; GET /openapi.json says what is expected"
