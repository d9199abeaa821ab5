"""A stream of Server-Sent Events as an HTTP answer, which fills silence and ends when the client goes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from mlx_manager.api.disconnect import UntilDisconnect
from mlx_manager.api.errors import stopping_error

_PROGRESS_PERIOD_S = 0.5


@dataclass(frozen=True)
class Silence:
    """What a stream does while there is nothing to send."""

    keepalive_s: float
    start_wait_s: float
    frame: bytes = b": keep-alive\n\n"
    """A comment, or an event for clients that wait for one."""


class EventStream(Response):
    """Sends `frames` as they come; empty ones are not sent.

    The headers wait for the first frame, at most `start_wait_s`: an error raised before is raised on, for the exception
    handlers to answer with its own status. Once the headers are out, an error becomes `error_frame(error)` and ends the
    stream; so does the server's end. After `keepalive_s` of silence its frame goes out. A `client` that goes has
    `frames` cancelled at once. `late_headers` are asked for when the headers go out; one that comes up only afterwards
    is said in a comment before the next frame. Until the first frame, `waiting_for` is asked what it is waited for, and
    what it says goes out in a comment whenever it has changed.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        frames: AsyncGenerator[bytes, None],
        *,
        client: UntilDisconnect,
        error_frame: Callable[[Exception], bytes],
        silence: Silence,
        headers: Mapping[str, str] | None = None,
        late_headers: Callable[[], Mapping[str, str]] = dict,
        waiting_for: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._waiting_for = waiting_for
        self.status_code = 200
        self.background = None
        self.init_headers({"cache-control": "no-cache", "x-accel-buffering": "no", **(headers or {})})
        self._frames = frames
        self._client = client
        self._late_headers = late_headers
        self._error_frame = error_frame
        self._silence_frame = silence.frame
        self._keepalive_s = silence.keepalive_s
        self._start_wait_s = min(silence.start_wait_s, silence.keepalive_s)

    def init_headers(self, headers: Mapping[str, str] | None = None) -> None:
        """As every answer's, but without a content-length: the stream's is not known."""
        super().init_headers(headers)
        self.raw_headers = [(name, value) for name, value in self.raw_headers if name != b"content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer."""
        wire = _Wire(send, self.raw_headers, self._late_headers)
        async with self._client as client, aclosing(self._frames) as frames:
            keeper = asyncio.create_task(self._keep_alive(wire))
            try:
                async for frame in frames:
                    if frame:
                        await wire.write(frame)
            except Exception as error:
                if not wire.has_started:
                    raise
                await wire.write(self._error_frame(error))
            except asyncio.CancelledError:
                if wire.has_started and not client.is_gone:
                    await wire.write(self._error_frame(stopping_error()))
                    await wire.end()
                raise
            finally:
                keeper.cancel()
            await wire.end()

    async def _keep_alive(self, wire: _Wire) -> None:
        """Send the headers when the first frame is long in coming, then fill every silence.

        One timer for the whole stream, not one per frame.
        """
        await asyncio.sleep(self._start_wait_s)
        await wire.start()
        await self._tell_progress(wire)
        while True:
            silence_s = wire.silence_s()
            if silence_s >= self._keepalive_s:
                await wire.fill(self._silence_frame)
                silence_s = 0.0
            await asyncio.sleep(self._keepalive_s - silence_s)

    async def _tell_progress(self, wire: _Wire) -> None:
        """Comment on what the first frame waits for, until there is one or nobody knows."""
        told = None
        while not wire.has_frames and (waiting_for := self._waiting_for()) is not None:
            if waiting_for != told:
                await wire.comment(waiting_for)
                told = waiting_for
            elif wire.silence_s() >= self._keepalive_s:
                await wire.fill(self._silence_frame)
            await asyncio.sleep(min(_PROGRESS_PERIOD_S, self._keepalive_s))


class _Wire:
    """The sending side of one answer; two tasks write to it."""

    def __init__(
        self, send: Send, raw_headers: list[tuple[bytes, bytes]], late_headers: Callable[[], Mapping[str, str]]
    ) -> None:
        self._send = send
        self._raw_headers = raw_headers
        self._late_headers = late_headers
        self._sent_late: Mapping[str, str] = {}
        self._loop = asyncio.get_running_loop()
        # the server waits inside `send` when the client reads slowly: nobody may overtake there
        self._turn = asyncio.Lock()
        self._last_write_s = self._loop.time()
        self.has_started = False
        self.has_frames = False

    async def start(self) -> None:
        """Send the headers, unless they are out."""
        async with self._turn:
            await self._start()

    async def write(self, chunk: bytes) -> None:
        """Send `chunk`, after the headers."""
        async with self._turn:
            await self._start()
            self.has_frames = True
            await self._send({"type": "http.response.body", "body": self._missed_headers() + chunk, "more_body": True})
            self._last_write_s = self._loop.time()

    async def fill(self, silence_frame: bytes) -> None:
        """Send `silence_frame`, which is no part of the answer."""
        async with self._turn:
            await self._start()
            await self._send({"type": "http.response.body", "body": silence_frame, "more_body": True})
            self._last_write_s = self._loop.time()

    async def comment(self, text: str) -> None:
        """Send `text` as a comment, which clients pass over; nothing once there are frames."""
        async with self._turn:
            if not self.has_frames:
                line = " ".join(text.split())
                await self._send({"type": "http.response.body", "body": f": {line}\n\n".encode(), "more_body": True})
                self._last_write_s = self._loop.time()

    async def end(self) -> None:
        """Send the end of the answer."""
        async with self._turn:
            await self._start()
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    def silence_s(self) -> float:
        """How long nothing has been sent."""
        return self._loop.time() - self._last_write_s

    async def _start(self) -> None:
        if not self.has_started:
            self._sent_late = self._late_headers()
            late = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in self._sent_late.items()]
            headers = [*self._raw_headers, *late]
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})
            self.has_started = True

    def _missed_headers(self) -> bytes:
        """What would have been a header, had it been known when the headers went out: as a comment, once."""
        late = self._late_headers()
        missed = [f": {name}: {value}\n\n" for name, value in late.items() if self._sent_late.get(name) != value]
        self._sent_late = late
        return "".join(missed).encode()
