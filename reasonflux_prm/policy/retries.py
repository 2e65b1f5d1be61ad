"""What went wrong with one attempt to reach a server, whether to try again, and after how long.

Source of the pauses: exponential backoff with full jitter (M. Brooker, AWS Architecture Blog, 2015), on top of what
the server asks for in `Retry-After` (RFC 9110, section 10.2.3).
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import TYPE_CHECKING

from reasonflux_prm.policy.chat_reply import MalformedReply, json_or_text, server_message, short

if TYPE_CHECKING:
    import httpx2

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0
_LONGEST_WAIT_S = 300.0
"""A server that asks for more patience than this has shut the door, as with a spent daily quota."""


class Concerns(Enum):
    """How far a failure reaches."""

    REQUEST = "this request only"
    SERVER = "the server as it is now"
    CONNECTION = "the server, which cannot even be connected to"
    MODEL = "the model or the address, unless others were answered"
    ALL = "every request from here on"


@dataclass(frozen=True, slots=True)
class Failure:
    """An attempt that failed."""

    reason: str
    """A sentence without its stop."""
    kind: str
    """A word or two to count it under, such as `HTTP 429`."""
    concerns: Concerns
    again: bool
    """Whether another attempt may succeed."""
    after_s: float = 0.0
    """Seconds that the server asks to wait before it."""
    status: int | None = None
    said: str = ""
    """The server's own words."""


def pause_s(attempts: int, asked_s: float) -> float:
    """Return seconds to wait after the given number of attempts (at least 1): random, and at least what was asked."""
    return asked_s + random.uniform(0, min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** (attempts - 1)))


def retry_after_s(headers: Mapping[str, str]) -> float:
    """Return the seconds that a response asks to wait, given in them or as a date; 0 where it does not ask."""
    try:
        return max(0.0, float(headers["retry-after-ms"]) / 1000)
    except (KeyError, ValueError):
        pass
    value = headers.get("retry-after", "")
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return 0.0
    return max(0.0, seconds) if seconds == seconds else 0.0


def failure_of(error: Exception, where: str, model: str, timeout_s: float) -> Failure:
    """Say what an exception of an attempt means.

    Args:
        error: What the sending or the reading of the answer raised; `TimeoutError` is our own limit.
        where: The server, as sentences call it.
        model: The model that was asked for.
        timeout_s: The limit of an attempt.
    """
    import httpx2

    if isinstance(error, MalformedReply):
        return Failure(str(error), "malformed answer", Concerns.SERVER, again=True)
    if isinstance(error, TimeoutError | httpx2.TimeoutException) and not (_is_connecting(error) or _is_cut(error)):
        reason = f"{where} gave no answer within {timeout_s:g} s; raise the timeout or lower max_tokens"
        return Failure(reason, "timeout", Concerns.SERVER, again=True)
    if isinstance(error, httpx2.RequestError):
        cause = short(str(error)) or type(error).__name__
        if _is_connecting(error):
            reason = f"{where} could not be reached ({cause}); check that it runs at this address"
            return Failure(reason, "no connection", Concerns.CONNECTION, again=True)
        return Failure(f"{where} broke off ({cause}); see its log", "broken off", Concerns.SERVER, again=True)
    if isinstance(error, httpx2.HTTPStatusError):
        return _refusal(error.response, where, model)
    reason = f"a request to {where} failed with {type(error).__name__}: {short(str(error))}"
    return Failure(reason, type(error).__name__, Concerns.REQUEST, again=False)


def _is_connecting(error: Exception) -> bool:
    """Whether the attempt ended before there was a connection."""
    return type(error).__name__ in ("ConnectError", "ConnectTimeout") and not _is_cut(error)


def _is_cut(error: Exception) -> bool:
    """Whether the server ended the connection; over aiohttp the SDK says that there was none, or a time limit."""
    return type(error.__cause__).__name__ in ("ServerDisconnectedError", "ClientOSError")


def _refusal(response: httpx2.Response, where: str, model: str) -> Failure:
    """Say what an answer with a status other than 200 or its like means."""
    body = json_or_text(response.content)
    status, message = response.status_code, server_message(body)
    said = f"HTTP {status}: {message}" if message else f"HTTP {status}"
    after_s = retry_after_s(response.headers)
    again, concerns = status in (408, 409, 429) or status >= 500, Concerns.SERVER
    if status == 401:
        reason = f"{where} refused the API key ({said}); pass the right one as api_key or in OPENAI_API_KEY"
        concerns = Concerns.ALL
    elif status == 402 or (status == 429 and "insufficient_quota" in str(body)):
        reason, again, concerns = f"{where} wants to be paid first ({said})", False, Concerns.ALL
    elif status == 403:
        reason = f"{where} does not allow this ({said}); check the API key and what it may use"
        concerns = Concerns.MODEL
    elif status == 404:
        reason = (
            f"{where} knows no model '{model}' or no chat completions ({said}); "
            "check the model's name and that the address ends in the version, usually /v1"
        )
        concerns = Concerns.MODEL
    elif again and after_s > _LONGEST_WAIT_S:
        reason = f"{where} asks to wait {after_s:,.0f} s ({said}); run the same command again after that"
        again, concerns = False, Concerns.ALL
    elif status == 429:
        reason = f"{where} is asked too often ({said}); lower the concurrency or set a limit on the rate"
    elif again:
        reason = f"{where} failed on its side ({said}); see its log"
    else:
        reason, concerns = f"{where} refused the request ({said})", Concerns.REQUEST
    return Failure(reason, f"HTTP {status}", concerns, again, after_s, status, message)
