"""Answers of a provider that are none: whose fault they are, and when it makes sense to ask again."""

from __future__ import annotations

import math
import random
import re
import time
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import msgspec

from mlx_manager.errors import (
    InvalidRequest,
    MlxManagerError,
    ModelNotFound,
    PayloadTooLarge,
    ProviderBusy,
    ProviderFailed,
)

_WORTH_WAITING_S = 5.0
"""Longer than this nobody waits for a provider that is busy: another target may answer meanwhile."""
_LONGEST_SAID_S = 86_400.0
"""A client is told to wait for no longer than this."""
_FIRST_BACKOFF_S, _LONGEST_BACKOFF_S = 0.25, 4.0
_MOST_ERROR_BYTES = 64 * 1024
_RETRIED = (500, 502, 503, 504, 529)


async def refusal_of(response: httpx.Response, name: str, *, model: str | None) -> MlxManagerError:
    """The error that an answer of the provider `name` means: the caller's 4xx are the caller's, all else is its own.

    `model` is the one that it was asked for, if it was for one: a 404 that names it is about the model.
    """
    status = response.status_code
    try:
        body = _parsed(await _read_some(response))
        said = _said(body)
    except httpx.HTTPError:
        body, said = None, "no reason given"
    match status:
        case 400 | 422:
            return InvalidRequest(f"{name} refuses the request: {said}")
        case 404 if model is not None and (_names(said, model) or _code_of(body) == "model_not_found"):
            return ModelNotFound(f"{name} has no model {model!r}: {said}", param="model")
        case 413:
            return PayloadTooLarge(f"{name} refuses the request: {said}")
        case 429 | 503 | 529:
            retry_after_s = _retry_after_s(response)
            return ProviderBusy(f"{name} takes no more for now ({status}): {said}", retry_after_s=retry_after_s)
        case 401 | 403:
            return ProviderFailed(f"{name} refuses the key that is kept of it ({status}). An admin can enter another.")
        case _:
            return ProviderFailed(f"{name} failed ({status}): {said}")


def wait_s_of(response: httpx.Response, num_tries: int) -> float | None:
    """How long to wait before the provider is asked again; None where that makes no sense."""
    if response.status_code == 429 or response.status_code in _RETRIED:
        asked_s = _retry_after_s(response)
        if asked_s is None:
            return backoff_s(num_tries)
        return asked_s + random.uniform(0, _FIRST_BACKOFF_S) if asked_s <= _WORTH_WAITING_S else None
    return None


def backoff_s(num_tries: int) -> float:
    """How long to wait before the next try."""
    return float(random.uniform(0.5, 1.0) * min(_FIRST_BACKOFF_S * 2**num_tries, _LONGEST_BACKOFF_S))


def _retry_after_s(response: httpx.Response) -> float | None:
    said = response.headers.get("retry-after", "").strip()
    try:
        wanted_s = float(said)
    except ValueError:
        try:
            wanted_s = parsedate_to_datetime(said).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    # float() also reads inf and nan
    return min(max(wanted_s, 0.0), _LONGEST_SAID_S) if math.isfinite(wanted_s) else None


async def _read_some(response: httpx.Response) -> bytes:
    read = b""
    async for chunk in response.aiter_bytes():
        read += chunk
        if len(read) > _MOST_ERROR_BYTES:
            break
    return read


def _parsed(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return body.decode("utf-8", "replace")


def _said(parsed: Any) -> str:
    """What an error's body says, in whichever of the usual forms."""
    if isinstance(parsed, dict):
        parsed = parsed.get("error", parsed.get("message", parsed.get("detail", parsed)))
    if isinstance(parsed, dict):
        parsed = parsed.get("message", parsed)
    return " ".join(str(parsed).split())[:300] or "no reason given"


def _names(said: str, model: str) -> bool:
    return re.search(rf"(?<![\w.-]){re.escape(model)}(?![\w-])", said) is not None


def _code_of(body: Any) -> Any:
    error = body.get("error") if isinstance(body, dict) else None
    return error.get("code") if isinstance(error, dict) else None
