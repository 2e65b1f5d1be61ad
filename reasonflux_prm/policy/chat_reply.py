"""The JSON of the OpenAI chat protocol: the body of a request, and the completions in an answer.

Servers disagree about what the SDK takes for granted: some ignore `n`, many have no logprobs, some put the thinking in
a field of its own and others leave it in the text. So answers are read here, from the JSON itself.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from reasonflux_prm.errors import PolicyError
from reasonflux_prm.policy.base import Completion, Request, TokenLogprob
from reasonflux_prm.policy.thinking import is_thinking, split_thinking

CANNOT_CONTINUE = (
    "the request goes on from what the assistant has written, which takes a server that knows continue_final_message "
    "(vLLM, SGLang) and a chat template that keeps what an assistant's last message says"
)
_MESSAGE_CHARS = 300
"""How much of a server's own words is repeated in ours."""
_STOPPED_AT = ("stop_reason", "matched_stop")
"""Where vLLM and SGLang tell the stop text that was met; null or a token's number if there was none."""


class MalformedReply(PolicyError):
    """An answer that came with status 200 and cannot be read."""


def request_body(model: str, request: Request, n: int, have: int, limit_field: str) -> dict[str, Any]:
    """Build the JSON to send, with nothing in it that the request leaves open: strict servers refuse fields they lack.

    Args:
        model: The model's name.
        request: What is asked.
        n: How many completions are still missing.
        have: How many are at hand. The seed moves on by it, or a server that ignores `n` gives the same one again.
        limit_field: What the server calls `max_tokens`.
    """
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": message.role, "content": message.content} for message in request.messages],
        "temperature": request.temperature,
        "top_p": request.top_p,
        limit_field: request.max_tokens,
    }
    if request.prefix:
        body["messages"].append({"role": "assistant", "content": request.prefix})
        body |= {"continue_final_message": True, "add_generation_prompt": False}
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


def request_bytes(body: Mapping[str, Any]) -> bytes:
    """Serialise a request.

    Raises:
        ValueError: It holds halves of characters, or a number that JSON does not have.
    """
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def read_reply(content: bytes, request: Request) -> list[Completion]:
    """Read an answer's JSON.

    Args:
        content: What came.
        request: What was asked.

    Raises:
        MalformedReply: It is not JSON, reports an error, or has no choices with messages.
    """
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise MalformedReply(f"the server's answer is not JSON ({error}): {_start_of(content)!r}") from error
    if isinstance(answer, Mapping) and answer.get("error"):
        raise MalformedReply(f"the server reported an error: {server_message(answer)}")
    choices = answer.get("choices") if isinstance(answer, Mapping) else None
    if not isinstance(choices, list) or not choices:
        raise MalformedReply(f"the server's answer has no choices: {_start_of(content)!r}")
    usage = answer.get("usage")
    counts = usage if isinstance(usage, Mapping) else {}
    completions = []
    for index, choice in enumerate(choices):
        message = choice.get("message") if isinstance(choice, Mapping) else None
        said = message.get("content") if isinstance(message, Mapping) else 0
        if not isinstance(message, Mapping) or not (said is None or isinstance(said, str)):
            raise MalformedReply(
                f"choice {index} of the server's answer has no message with text: {_start_of(content)!r}"
            )
        # vLLM and DeepSeek say reasoning_content, newer vLLM and OpenRouter say reasoning.
        reasoning = message.get("reasoning_content") or message.get("reasoning")
        text, thinking = _parts(said or "", reasoning if isinstance(reasoning, str) else "", request)
        finish = choice.get("finish_reason")
        completions.append(
            Completion(
                text=text,
                thinking=thinking,
                finish_reason=finish if isinstance(finish, str) else "unknown",
                logprobs=_logprobs(choice.get("logprobs")) if request.top_logprobs is not None else None,
                prompt_tokens=_count(counts.get("prompt_tokens"), index),
                completion_tokens=_count(counts.get("completion_tokens"), index),
                stopped_at=_stopped_at(choice) if request.stop else None,
            )
        )
    return completions


def _parts(said: str, reasoning: str, request: Request) -> tuple[str, str]:
    """Return (text, thinking) of what a server may have split by itself."""
    inside = is_thinking(request.prefix)
    behind = bool(request.prefix.strip()) and not inside
    if not reasoning:
        return (said, "") if request.raw else split_thinking(said, request.prefix)
    if behind:  # a server that looks for thinking in what cannot be any
        return reasoning + said, ""
    if not request.raw:
        return said, reasoning
    return ("" if inside else "<think>\n") + reasoning + (f"</think>\n\n{said}" if said else ""), ""


def _stopped_at(choice: Mapping[str, Any]) -> str | None:
    """Return the stop text that was met, empty if none was, None if the server does not tell."""
    told = [choice[name] for name in _STOPPED_AT if name in choice]
    return None if not told else next((one for one in told if isinstance(one, str)), "")


def json_or_text(content: bytes) -> Any:
    """Return what a refusal says: JSON where it is any, or else text."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return content.decode(errors="replace").strip()


def server_message(body: Any) -> str:
    """Find a server's own words in the shapes that servers use: error.message, error, message, detail."""
    for key in ("error", "message", "detail"):
        if isinstance(body, Mapping) and body.get(key):
            return server_message(body[key])
    return short(body if isinstance(body, str) else json.dumps(body, default=str)) if body else ""


def short(text: str) -> str:
    """Write a text as one line of bounded length."""
    line = " ".join(text.split())
    return line if len(line) <= _MESSAGE_CHARS else line[:_MESSAGE_CHARS] + "..."


def _start_of(content: bytes) -> str:
    return short(content[: 4 * _MESSAGE_CHARS].decode(errors="replace"))


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
        others = entry.get("top_logprobs")
        pairs = [_pair(other) for other in others] if isinstance(others, list) else []
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
    if not isinstance(tokens, int) or tokens < 0:
        return None
    return tokens if index == 0 else 0
