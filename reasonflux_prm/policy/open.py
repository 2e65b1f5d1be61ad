"""Policies by name, as the command line and files of settings give them."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from reasonflux_prm.errors import UsageError
from reasonflux_prm.policy.base import Policy

SPECS = "MODEL@URL (an OpenAI-compatible server), local:FOLDER_OR_ID (transformers) or vllm:FOLDER_OR_ID"
"""What a policy can be called."""


@dataclass(frozen=True, slots=True)
class PolicySettings:
    """How a policy runs; None takes the backend's default. What a backend does not know is refused, not ignored."""

    api_key: str | None = field(default=None, repr=False)
    concurrency: int | None = None
    timeout_s: float | None = None
    retries: int | None = None
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    device: str | None = None
    dtype: str | None = None
    batch_sequences: int | None = None
    batch_tokens: int | None = None
    context: int | None = None
    gpus: int | None = None
    memory: float | None = None


_ENDPOINT = ("api_key", "concurrency", "timeout_s", "retries", "requests_per_minute", "tokens_per_minute")
_LOCAL = ("device", "dtype", "batch_sequences", "batch_tokens")
_VLLM = ("dtype", "context", "gpus", "memory")


def open_policy(spec: str, settings: PolicySettings | None = None) -> Policy:
    """Return the policy that a name stands for, without cache or budget.

    Args:
        spec: `MODEL@URL` with the URL up to and including the version, such as `gpt-4o@https://host/v1`;
            `local:FOLDER_OR_ID`; or `vllm:FOLDER_OR_ID`.
        settings: How it runs.

    Raises:
        UsageError: The name is none of these, or a setting does not go with it.
        MissingExtra: What the backend needs is not installed.
        PolicyStopped: There is no such local model.
    """
    settings = settings or PolicySettings()
    kind, _, model = spec.partition(":")
    if kind == "local" and model:
        from reasonflux_prm.policy.local import LocalPolicy

        return LocalPolicy(model, **_given(settings, spec, _LOCAL))
    if kind == "vllm" and model:
        from reasonflux_prm.policy.vllm import VLLMPolicy

        return VLLMPolicy(model, **_given(settings, spec, _VLLM))
    # From the right, as names of models may hold the sign too.
    model, _, url = spec.rpartition("@")
    if model and url.startswith(("http://", "https://")):
        from reasonflux_prm.policy.openai_compatible import OpenAICompatiblePolicy

        return OpenAICompatiblePolicy(model, url, **_given(settings, spec, _ENDPOINT))
    raise UsageError(f"a policy is named as {SPECS}, and not {spec!r}")


def _given(settings: PolicySettings, spec: str, known: tuple[str, ...]) -> dict[str, Any]:
    given = {one.name: getattr(settings, one.name) for one in fields(settings)}
    given = {name: value for name, value in given.items() if value is not None}
    if unknown := [name for name in given if name not in known]:
        raise UsageError(f"{', '.join(unknown)} does not go with the policy {spec}; it takes {', '.join(known)}")
    return given
