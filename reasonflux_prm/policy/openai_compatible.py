"""A policy behind any endpoint that speaks the OpenAI chat protocol (`POST {base_url}/chat/completions`).

The `openai` SDK carries the requests: it retries refused connections, timeouts and the statuses 408, 409, 429 and 5xx
with growing pauses, and waits as long as a `Retry-After` header asks (a minute or two at most, by version of the SDK).
The answers are read here, from the JSON itself, because servers disagree about what the SDK takes for granted: some
ignore `n`, many have no logprobs, some put the thinking in a field of its own and others leave it in the text.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from reasonflux_prm.errors import MissingExtra, PolicyError, UsageError
from reasonflux_prm.policy.base import Completion, Outcome, Request, TokenLogprob

_MESSAGE_CHARS = 300
"""How much of a server's own error message is repeated in ours."""


class OpenAICompatiblePolicy:
    """A model served at `base_url`.

    Args:
        model: the name that the server knows the model by.
        base_url: the address up to and including the version, such as `http://127.0.0.1:8000/v1`.
        api_key: the key; by default the environment's `OPENAI_API_KEY`, or none (most local servers want none).
        concurrency: most requests under way at a time.
        timeout_s: seconds without a sign of the server after which an attempt is given up.
        retries: attempts after the first.

    Raises:
        MissingExtra: the `openai` SDK is not installed.
        UsageError: a setting outside its range.
    """

    def __init__(
        self,
        model: str,
        base_url: str,
        *,
        api_key: str | None = None,
        concurrency: int = 8,
        timeout_s: float = 600.0,
        retries: int = 4,
    ) -> None:
        if concurrency < 1 or timeout_s <= 0 or retries < 0:
            raise UsageError(
                "an endpoint needs concurrency >= 1, timeout_s > 0 and retries >= 0, and got "
                f"concurrency={concurrency}, timeout_s={timeout_s}, retries={retries}"
            )
        if not base_url.startswith(("http://", "https://")):
            raise UsageError(f"base_url must start with http:// or https://, and is {base_url!r}")
        try:
            import openai
        except ImportError as error:
            raise MissingExtra(
                'an OpenAI-compatible endpoint needs the openai SDK: pip install "reasonflux-prm[policy]"'
            ) from error
        self.name = model
        self._base_url = base_url
        self._concurrency = concurrency
        self._attempts = retries + 1
        self._timeout_s = timeout_s
        # The SDK refuses an empty key, which local servers do not ask for.
        key = api_key or os.environ.get("OPENAI_API_KEY") or "no-key"
        self._client = openai.OpenAI(api_key=key, base_url=base_url, timeout=timeout_s, max_retries=retries)

    def generate(self, requests: Sequence[Request]) -> list[Outcome]:
        """Answer in order, `concurrency` requests at a time; a request that fails is a `PolicyError` in its place."""
        if not requests:
            return []
        pool = ThreadPoolExecutor(min(self._concurrency, len(requests)), thread_name_prefix="policy")
        try:
            return list(pool.map(self._answer, requests))
        finally:
            # On Ctrl-C: do not start what is still queued.
            pool.shutdown(wait=False, cancel_futures=True)

    def _answer(self, request: Request) -> Outcome:
        """Ask until there are `n` completions: servers that ignore `n` give one at a time."""
        completions: list[Completion] = []
        try:
            while (have := len(completions)) < request.n:
                text = self._post(_body(self.name, request, request.n - have, have))
                completions += _completions(text, request.top_logprobs is not None)
        except PolicyError as error:
            return error
        except Exception as error:  # whatever one request runs into must not stop its neighbours
            return self._explain(error)
        return completions[: request.n]

    def _post(self, body: dict[str, Any]) -> str:
        response = self._client.chat.completions.with_raw_response.create(**body)
        return response.http_response.text

    def _explain(self, error: Exception) -> PolicyError:
        """Turn what the SDK raises into one sentence: what happened, where, and what to do."""
        import openai

        where = f"the server at {self._base_url}"
        tries = f"{self._attempts} attempt{'s' if self._attempts > 1 else ''}"
        if isinstance(error, openai.APITimeoutError):
            reason = (
                f"{where} gave no answer within {self._timeout_s:g} s ({tries}); raise timeout_s or lower max_tokens"
            )
        elif isinstance(error, openai.APIConnectionError):
            cause = error.__cause__ or error
            reason = f"{where} could not be reached ({cause}; {tries}); check that it runs at this address"
        elif isinstance(error, openai.APIStatusError):
            reason = self._explain_status(error.status_code, _server_message(error.body), where, tries)
        else:
            reason = f"a request to {where} failed with {type(error).__name__}: {_short(str(error))}"
        return PolicyError(reason)

    def _explain_status(self, status: int, message: str, where: str, tries: str) -> str:
        said = f"HTTP {status}: {message}" if message else f"HTTP {status}"
        if status in (401, 403):
            return f"{where} refused the API key ({said}); pass the right one as api_key or in OPENAI_API_KEY"
        if status == 404:
            return (
                f"{where} knows no model '{self.name}' or no chat completions ({said}); "
                "check the model's name and that the address ends in the version, usually /v1"
            )
        if status == 429:
            return f"{where} is asked too often, {tries} ({said}); lower the concurrency or wait"
        if status >= 500:
            return f"{where} failed on its side, {tries} ({said}); see the server's log"
        return f"{where} refused the request ({said})"


def _body(model: str, request: Request, n: int, have: int) -> dict[str, Any]:
    """Build the JSON to send, with nothing in it that the request leaves open: strict servers refuse fields they lack.

    The seed moves on by the number of completions at hand, or a server that ignores `n` would give the same one again.
    """
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": message.role, "content": message.content} for message in request.messages],
        "temperature": request.temperature,
        "top_p": request.top_p,
        "max_tokens": request.max_tokens,
    }
    if n > 1:
        body["n"] = n
    if request.stop:
        body["stop"] = list(request.stop)
    if request.seed is not None:
        body["seed"] = request.seed + have
    if request.top_logprobs is not None:
        body["logprobs"] = True
        if request.top_logprobs:
            body["top_logprobs"] = request.top_logprobs
    return body


def _completions(text: str, with_logprobs: bool) -> list[Completion]:
    """Read an answer's JSON.

    Raises:
        PolicyError: it is not JSON, reports an error, or has no choices with messages.
    """
    try:
        answer = json.loads(text)
    except ValueError as error:
        raise PolicyError(f"the server's answer is not JSON ({error}): {_short(text)!r}") from error
    if isinstance(answer, Mapping) and answer.get("error"):
        raise PolicyError(f"the server reported an error: {_server_message(answer)}")
    choices = answer.get("choices") if isinstance(answer, Mapping) else None
    if not isinstance(choices, list) or not choices:
        raise PolicyError(f"the server's answer has no choices: {_short(text)!r}")
    usage = answer.get("usage")
    counts = usage if isinstance(usage, Mapping) else {}
    completions = []
    for index, choice in enumerate(choices):
        message = choice.get("message") if isinstance(choice, Mapping) else None
        content = message.get("content") if isinstance(message, Mapping) else 0
        if not isinstance(message, Mapping) or not (content is None or isinstance(content, str)):
            raise PolicyError(f"choice {index} of the server's answer has no message with text: {_short(text)!r}")
        # vLLM and DeepSeek say reasoning_content, newer vLLM and OpenRouter say reasoning.
        reasoning = message.get("reasoning_content") or message.get("reasoning")
        said, thinking = (content or "", reasoning) if isinstance(reasoning, str) else _split_thinking(content or "")
        finish = choice.get("finish_reason")
        completions.append(
            Completion(
                text=said,
                thinking=thinking,
                finish_reason=finish if isinstance(finish, str) else "unknown",
                logprobs=_logprobs(choice.get("logprobs")) if with_logprobs else None,
                prompt_tokens=_count(counts.get("prompt_tokens"), index),
                completion_tokens=_count(counts.get("completion_tokens"), index),
            )
        )
    return completions


def _split_thinking(content: str) -> tuple[str, str]:
    """Split (text, thinking) where the server left the thinking in the text.

    The opening mark may be missing, as chat templates put it into the prompt; the closing one, if the thinking was cut.
    """
    before, closed, after = content.partition("</think>")
    opened = before.lstrip().startswith("<think>")
    if not opened and (not closed or "<think>" in before):
        return content, ""
    thinking = before.lstrip().removeprefix("<think>") if opened else before
    return after.lstrip("\n"), thinking.strip("\n")


def _logprobs(reported: Any) -> tuple[TokenLogprob, ...] | None:
    """Read the logprobs of a choice; None unless every token has one."""
    entries = reported.get("content") if isinstance(reported, Mapping) else None
    if not isinstance(entries, list) or not entries:
        return None
    tokens = []
    for entry in entries:
        pair = _pair(entry)
        if pair is None:
            return None
        pairs = [_pair(other) for other in entry.get("top_logprobs") or []]
        top = sorted((other for other in pairs if other is not None), key=lambda other: -other[1])
        tokens.append(TokenLogprob(pair[0], pair[1], tuple(top)))
    return tuple(tokens)


def _pair(entry: Any) -> tuple[str, float] | None:
    token, logprob = (entry.get("token"), entry.get("logprob")) if isinstance(entry, Mapping) else (None, None)
    if not isinstance(token, str) or not isinstance(logprob, int | float) or math.isnan(logprob):
        return None
    return token, float(logprob)


def _count(tokens: Any, index: int) -> int | None:
    """Attribute the whole answer's count to its first completion."""
    if not isinstance(tokens, int):
        return None
    return tokens if index == 0 else 0


def _server_message(body: Any) -> str:
    """Find a server's own words in the shapes that servers use: error.message, error, message, detail."""
    for key in ("error", "message", "detail"):
        if isinstance(body, Mapping) and body.get(key):
            return _server_message(body[key])
    return _short(body if isinstance(body, str) else json.dumps(body, default=str)) if body else ""


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _MESSAGE_CHARS else line[:_MESSAGE_CHARS] + "..."
