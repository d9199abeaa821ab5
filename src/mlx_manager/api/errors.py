"""Errors as HTTP answers, in the form of the dialect that was spoken."""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from mlx_manager.api.dialect import speaks_anthropic
from mlx_manager.api.problem import MEDIA_TYPE, encode_problem, wants_problem
from mlx_manager.errors import InvalidRequest, MlxManagerError, NotAuthenticated, ShuttingDown
from mlx_manager.ir import current_origin
from mlx_manager.protocols import anthropic, openai


class HostNotAllowed(MlxManagerError):
    """The request names a host that this server does not answer to."""

    status = 403
    code = "host_not_allowed"


class CrossSite(MlxManagerError):
    """The request was sent by a web page of another site."""

    status = 403
    code = "cross_site"


class NoSuchPath(InvalidRequest):
    """Nothing is served under the path."""

    status = 404
    code = "not_found"


class MethodNotAllowed(InvalidRequest):
    """The path is served, but not for this method."""

    status = 405
    code = "method_not_allowed"


def error_response(error: MlxManagerError, scope: Scope) -> Response:
    """The answer to the request of `scope`, which failed before anything of its answer was sent."""
    current_origin().error_code = error.code
    headers = {}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(max(math.ceil(error.retry_after_s), 1))
    elif error.status in _STATUSES_TO_RETRY:
        headers["retry-after"] = "1"
    if error.status == NotAuthenticated.status:
        headers["www-authenticate"] = "Bearer"
    status, body, media_type = error.status, openai.encode_error(error), "application/json"
    if wants_problem(scope):
        body, media_type = encode_problem(error, current_origin().request_id), MEDIA_TYPE
    elif speaks_anthropic(scope):
        status = anthropic.error_status(error)
        body = anthropic.encode_json(anthropic.error_body(error, current_origin().request_id))
    return Response(body, status, headers=headers, media_type=media_type)


def internal_error(request_id: str) -> MlxManagerError:
    """What the client is told about an exception that nobody expected: nothing of its text."""
    return MlxManagerError(f"Something went wrong inside the server. Its log says more under request id {request_id}.")


def stopping_error() -> ShuttingDown:
    """What the client is told about an answer that the server's end cut short."""
    return ShuttingDown("The server stopped before the answer was complete. Send the request again.", retry_after_s=5)


_STATUSES_TO_RETRY = (429, 503)


async def _handle_our_error(request: Request, error: MlxManagerError) -> Response:
    return error_response(error, request.scope)


async def _handle_wrong_parameter(request: Request, error: RequestValidationError) -> Response:
    """A parameter in the path or the query that FastAPI refused."""
    first = error.errors()[0]
    name = str(first["loc"][-1])
    return error_response(InvalidRequest(f"{name}: {first['msg']}.", param=name), request.scope)


async def _handle_http_exception(request: Request, error: HTTPException) -> Response:
    """The router's own refusals."""
    if error.status_code == 404:
        return error_response(_no_such_path(request), request.scope)
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        response = error_response(
            MethodNotAllowed(f"{request.method} is not allowed on {request.url.path}. Allowed: {allowed}."),
            request.scope,
        )
        response.headers["allow"] = allowed
        return response
    raise error


def _no_such_path(request: Request) -> NoSuchPath:
    path = request.url.path
    hint = ""
    if not path.startswith("/v1/"):
        hint = " If this came from an OpenAI client, its base URL has to end with /v1."
    elif path.startswith("/v1/v1/"):
        hint = " The base URL already has the /v1 that the client adds: leave it out."
    return NoSuchPath(f"There is nothing at {request.method} {path}.{hint}")


EXCEPTION_HANDLERS: dict[int | type[Exception], Callable[[Request, Any], Coroutine[Any, Any, Response]]] = {
    MlxManagerError: _handle_our_error,
    HTTPException: _handle_http_exception,
    RequestValidationError: _handle_wrong_parameter,
}
"""For the app; whatever else is raised is the edge's."""
