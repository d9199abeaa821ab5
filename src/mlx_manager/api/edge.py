"""The outermost layer of the app, pure ASGI: request ids, the Host check, and what nobody else caught."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mlx_manager.api.dialect import speaks_anthropic
from mlx_manager.api.errors import HostNotAllowed, error_response, internal_error, stopping_error
from mlx_manager.api.origin import is_accountable, origin_of
from mlx_manager.api.state import REQUEST_ID_KEY
from mlx_manager.api.who import ANSWER_HEADERS_KEY
from mlx_manager.gateway import CLIENT_CLOSED_STATUS
from mlx_manager.ir import enter_origin

_logger = logging.getLogger("mlx_manager.api")
_MLX_LM_CHAT = "/chat/completions"
"""mlx_lm's server takes this path with and without /v1, and so have its clients learnt to ask."""
_SANE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class RequestEdge:
    """Gives every request an id and every answer its `x-request-id`; turns stray exceptions into a plain 500.

    `allowed_hosts` are the names and addresses, without port, by which this server may be asked; None allows all.
    A server on loopback that answered to any name could be reached by web pages (DNS rebinding).
    """

    def __init__(self, app: ASGIApp, *, allowed_hosts: Collection[str] | None = None) -> None:
        self._app = app
        self._allowed_hosts = None if allowed_hosts is None else frozenset(allowed_hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope = _at_its_path(scope)
        headers = Headers(scope=scope)
        request_id = _own_or_new_id(headers.get("x-request-id"))
        scope[REQUEST_ID_KEY] = request_id
        answer_headers: dict[str, str] = {}
        scope[ANSWER_HEADERS_KEY] = answer_headers
        origin = origin_of(scope, request_id)
        enter_origin(origin)
        status = 0
        notes = _Notes(answer_headers)

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                sent = MutableHeaders(scope=message)
                sent["x-request-id"] = request_id
                if speaks_anthropic(scope):
                    sent["request-id"] = request_id
                sent.update(answer_headers)
                notes.are_sent(is_stream="event-stream" in sent.get("content-type", ""))
            else:
                message = notes.with_late_ones(message)
            await send(message)

        try:
            if not self._is_allowed(headers.get("host", "")):
                await error_response(_refuse_host(headers.get("host", "")), scope)(scope, receive, send_with_id)
                return
            await self._app(scope, receive, send_with_id)
        except asyncio.CancelledError:
            # the server stops and has waited long enough; the task ends here either way
            if not status:
                await error_response(stopping_error(), scope)(scope, receive, send_with_id)
        except ClientDisconnect:
            # in the middle of its body: nobody is there to be answered
            return
        except Exception:
            _logger.exception("request %s (%s %s) failed", request_id, scope["method"], scope["path"])
            if status:
                raise
            await error_response(internal_error(request_id), scope)(scope, receive, send_with_id)
        finally:
            gateway = scope.get("state", {}).get("gateway")
            if is_accountable(scope) and gateway is not None:
                gateway.close_exchange(origin, status or CLIENT_CLOSED_STATUS)

    def _is_allowed(self, host: str) -> bool:
        return self._allowed_hosts is None or _without_port(host) in self._allowed_hosts


class _Notes:
    """The answer's headers that are noted while it is made: those of a stream that come too late become comments."""

    def __init__(self, notes: dict[str, str]) -> None:
        self._notes = notes
        self._sent: dict[str, str] | None = None

    def are_sent(self, *, is_stream: bool) -> None:
        """The headers go out with what has been noted so far."""
        self._sent = dict(self._notes) if is_stream else None

    def with_late_ones(self, message: Message) -> Message:
        """A piece of the body, behind comments, which clients pass over, on what was noted since."""
        if self._sent is None or self._sent == self._notes:
            return message
        late = [f": {name}: {value}\n\n" for name, value in self._notes.items() if self._sent.get(name) != value]
        self._sent = dict(self._notes)
        return {**message, "body": "".join(late).encode() + message.get("body", b"")}


def _at_its_path(scope: Scope) -> Scope:
    if scope["path"] != _MLX_LM_CHAT:
        return scope
    return {**scope, "path": f"/v1{_MLX_LM_CHAT}", "raw_path": f"/v1{_MLX_LM_CHAT}".encode()}


def _own_or_new_id(sent: str | None) -> str:
    if sent is not None and _SANE_ID.fullmatch(sent):
        return sent
    return f"req_{secrets.token_hex(12)}"


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0].lower() + "]"
    return host.partition(":")[0].lower()


def _refuse_host(host: str) -> HostNotAllowed:
    return HostNotAllowed(
        f"This server does not answer to the host {host[:80]!r}: it listens on this machine only. "
        "Ask it as 127.0.0.1 or localhost."
    )
