"""Errors of the admin routes as problem details: RFC 9457. The member `error` is there for clients of OpenAI's form."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import msgspec
from starlette.types import Scope

from mlx_manager.errors import MlxManagerError
from mlx_manager.protocols import openai

MEDIA_TYPE = "application/problem+json"


def wants_problem(scope: Scope) -> bool:
    """Whether errors of this HTTP request are told in this form."""
    return str(scope["path"]).startswith("/admin/")


def encode_problem(error: MlxManagerError, request_id: str) -> bytes:
    """The whole body."""
    problem: dict[str, Any] = {
        "type": f"urn:mlx-manager:error:{error.code}",
        "title": HTTPStatus(error.status).phrase,
        "status": error.status,
        "detail": error.message,
        "instance": f"urn:mlx-manager:request:{request_id}",
        "code": error.code,
        "request_id": request_id,
    }
    if error.param is not None:
        problem["param"] = error.param
    if error.retry_after_s is not None:
        problem["retry_after_s"] = round(error.retry_after_s, 3)
    return msgspec.json.encode(problem | msgspec.json.decode(openai.encode_error(error)))
