"""The typed bodies of requests and answers; the OpenAPI schema is made of them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from reasonflux_prm.records import Part
from reasonflux_prm.scoring.aggregate import AGGREGATIONS
from reasonflux_prm.scoring.windows import Overflow
from reasonflux_prm.steps.split import RULE_NAMES
from reasonflux_prm.traces.formats import FORMATS


def _one_of(*names: str) -> Any:
    return Field(json_schema_extra={"enum": list(names)}, pattern=f"^(?:{'|'.join(names)})$")


class _Request(BaseModel):
    """A body in which every field counts: unknown ones are refused, not ignored, and nothing is taken for a number."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, strict=True)


class ErrorBody(BaseModel):
    """What went wrong."""

    message: str = Field(description="One sentence: what was expected, what came, what to do.")
    type: str = Field(description="The class of `reasonflux_prm.errors` that the client raises.")
    code: int = Field(description="The status code.")


class ErrorAnswer(BaseModel):
    """The body of every answer with a status of 400 or more."""

    error: ErrorBody


# --- /score ----------------------------------------------------------------------------------------------------------


class ScoreRequest(_Request):
    """Traces, and how to score them where the service's own settings shall not stand."""

    traces: Annotated[
        list[dict[str, Any]] | dict[str, Any],
        Field(description="One record or several, in any format that `reasonflux-prm score` reads from a file."),
    ]
    format: Annotated[str, _one_of("auto", *FORMATS)] = "auto"
    alpha: Annotated[float | None, Field(description="Weight of the trajectory reward in a trace's reward.")] = None
    aggregation: Annotated[Annotated[str, _one_of(*AGGREGATIONS)] | None, Field()] = None
    steps: Annotated[Annotated[str, _one_of(*RULE_NAMES)] | None, Field(description="The step rule.")] = None
    overflow: Annotated[Overflow | None, Field(description="What to do with a trace longer than the context.")] = None
    overlap: Annotated[float | None, Field(ge=0, lt=1, description="Share of a window that the next repeats.")] = None
    echo: Annotated[bool, Field(description="Whether records repeat the traces' own columns.")] = True

    def rows(self) -> list[dict[str, Any]]:
        """Return the records as a list."""
        return [self.traces] if isinstance(self.traces, dict) else self.traces

    def options(self) -> dict[str, Any]:
        """Return what the request says of how to score."""
        names = ("alpha", "aggregation", "steps", "overflow", "overlap")
        return {name: getattr(self, name) for name in names}


class ScoredStep(BaseModel):
    """A step: characters of its part, and its reward."""

    part: Part
    start: int = Field(ge=0)
    stop: int = Field(ge=0)
    reward: float | None


class Identity(BaseModel):
    """Which PRM gave a score, and how its numbers were combined."""

    name: str
    revision: str
    family: str
    layout: str
    aggregation: str
    alpha: float


class ScoredRecord(BaseModel):
    """A scored trace as `reasonflux-prm score` writes it; the trace's own columns follow unless echo is off."""

    model_config = ConfigDict(extra="allow")
    id: str
    status: str = Field(description="`scored`, or the reason why there is no reward; `note` says more.")
    steps: list[ScoredStep]
    trajectory_reward: float | None
    reward: float | None
    prm: Identity
    tokens: int
    overflow: str | None
    note: str | None


class RejectedRecord(BaseModel):
    """A record that no trace could be read from."""

    index: int = Field(description="Its place among the request's traces, from 0.")
    reason: str


class ScoreUsage(BaseModel):
    """What the request took."""

    traces: int
    tokens: int


class ScoreAnswer(BaseModel):
    """The records, in the order of the request, and what was refused."""

    scored: list[ScoredRecord]
    rejects: list[RejectedRecord]
    usage: ScoreUsage


# --- /pooling, as vLLM has it ----------------------------------------------------------------------------------------


class _PoolingRequest(_Request):
    model: str | None = None
    task: Literal["token_classify"] | None = None
    use_activation: Annotated[Literal[True] | None, Field(description="Rewards are always activated.")] = None
    encoding_format: Literal["float", "base64"] = "float"
    request_id: Annotated[str | None, Field(description="Comes back as the end of the answer's id.")] = None


class PoolingTextRequest(_PoolingRequest):
    """Texts or token ids, each a whole input of the PRM."""

    input: (
        Annotated[str, Field(min_length=1)]
        | Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]
        | Annotated[list[int], Field(min_length=1)]
        | Annotated[list[Annotated[list[int], Field(min_length=1)]], Field(min_length=1)]
    )
    add_special_tokens: bool = True
    truncate_prompt_tokens: Annotated[
        int | None, Field(ge=-1, description="Keep so many tokens from the end; -1: as many as the context has.")
    ] = None

    def prompts(self) -> list[str | list[int]]:
        """Return the texts or token lists, one for each answer."""
        if isinstance(self.input, str):
            return [self.input]
        if isinstance(self.input[0], int):
            return [self.input]
        return list(self.input)


class PoolingMessagesRequest(_PoolingRequest):
    """A conversation whose last message is the assistant's."""

    messages: Annotated[list[dict[str, Any]], Field(min_length=1)]


class PoolingData(BaseModel):
    """The labels of one prompt: of every token, or of every step."""

    index: int
    object: Literal["pooling"] = "pooling"
    data: list[list[float]] | str


class PoolingUsage(BaseModel):
    """Tokens of the request."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: int


class PoolingAnswer(BaseModel):
    """What vLLM answers."""

    id: str
    object: Literal["list"] = "list"
    created: int
    model: str
    data: list[PoolingData]
    usage: PoolingUsage


# --- /get_reward, as OpenRLHF has it ---------------------------------------------------------------------------------


class RewardRequest(BaseModel):
    """What OpenRLHF sends; fields of later versions are let through, because a refusal would end its run."""

    model_config = ConfigDict(strict=True)
    query: list[str]
    prompts: list[str | None] | None = None
    labels: list[Any] | None = None


class RewardAnswer(BaseModel):
    """A number for each query, in every list."""

    rewards: list[float]
    scores: list[float]
    extra_logs: dict[str, list[float]]


# --- what it is and how it does --------------------------------------------------------------------------------------


class ModelCard(BaseModel):
    """The PRM that is served."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "reasonflux-prm"
    max_model_len: int = Field(description="Tokens of its context.")
    prm: Identity
    settings: dict[str, Any] = Field(description="What scores depend on besides the PRM.")
    score_range: tuple[float, float]
    meaning: str
    pooling: Literal["all", "step"] | None = Field(description="How /pooling reads; null where there is none.")


class ModelList(BaseModel):
    """The one PRM that is served."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class Health(BaseModel):
    """Whether the PRM answers, and whether the service takes requests."""

    live: bool
    ready: bool
    queue_traces: int
    queue_tokens: int
