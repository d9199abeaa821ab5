"""The HTTP side of one provider: one client with its connections, retries before the first byte, and its stream."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Protocol

import httpcore
import httpx
import msgspec

from mlx_manager import __version__
from mlx_manager.backends.addresses import GuardedNetwork
from mlx_manager.backends.authorities import make_tls_context
from mlx_manager.backends.connections import MOST_IN_POOL, Connections
from mlx_manager.backends.event_stream import read_messages
from mlx_manager.backends.refusals import backoff_s, refusal_of, wait_s_of
from mlx_manager.catalog import Provider
from mlx_manager.errors import MlxManagerError, ProviderFailed, TargetTimeout
from mlx_manager.ir import Event, current_call

_MOST_CONNECTIONS, _KEPT_S = 1_000, 60.0
_END_S = 2.0
_PORTS = {"http": 80, "https": 443}


class Decoder(Protocol):
    """Makes events of a provider's messages."""

    answer_id: str | None
    """What the provider calls its answer, once it has said so, and the next the model that it says has given it."""
    answer_model: str | None

    @property
    def is_done(self) -> bool:
        """Whether the last message that counts was among them."""
        ...

    def decode(self, data: bytes) -> Iterable[Event]:
        """The events of one message. Raises `ProviderFailed`."""
        ...

    def end(self) -> Iterable[Event]:
        """What is left to say. Raises `ProviderFailed` for an answer that broke off."""
        ...


class Upstream:
    """One provider over HTTP/2 or HTTP/1.1. Redirects are not followed: they could lead anywhere.

    Requests go to httpx's transport itself: what its client adds (cookies, redirects, a line in the log) is not wanted
    here, and takes a sixth of all that the gateway does for a request.
    """

    def __init__(self, provider: Provider, headers: dict[str, str]) -> None:
        self.provider = provider
        timeouts = provider.timeouts
        # the gateway tells the first token from the next ones; here one limit holds for every read
        silence_s = max(timeouts.first_token_s, timeouts.between_tokens_s)
        timeout = httpx.Timeout(silence_s, connect=timeouts.connect_s, pool=timeouts.connect_s)
        self._extensions = {"timeout": timeout.as_dict()}
        self._headers = {"user-agent": f"mlx-manager/{__version__}", "accept-encoding": "identity"}
        self._headers |= {name.lower(): value for name, value in headers.items()}
        self._transport = _GuardedTransport(allows_private=provider.allows_private_address)
        self._urls: dict[str, httpx.URL] = {}
        """By path, of which there are a few."""
        self._ending: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Close all connections."""
        for task in self._ending:
            task.cancel()
        await asyncio.gather(*self._ending, return_exceptions=True)
        await self._transport.aclose()

    async def get(self, path: str) -> Any:
        """The JSON at `path`. Raises `ProviderFailed`."""
        async with self._sent("GET", path, None) as response:
            body = await response.aread()
        return _parse(body, self.provider.name)

    async def post(self, path: str, body: dict[str, Any]) -> Any:
        """The JSON that answers `body`. Raises `ProviderFailed`, and `InvalidRequest` where the request is at fault."""
        async with self._sent("POST", path, body) as response:
            answer = await response.aread()
        return _parse(answer, self.provider.name)

    async def events(
        self, path: str, body: dict[str, Any], decoder: Decoder, headers: Mapping[str, str] | None = None
    ) -> AsyncGenerator[Event, None]:
        """What `decoder` makes of the stream that answers `body`. Raises as `post` does.

        `headers` go along with this request; what the provider's own say by the same name stands before them.
        """
        call, messages = current_call(), self._stream(path, body, headers or {})
        try:
            async for data in messages:
                for event in decoder.decode(data):
                    yield event
                if decoder.is_done:
                    break
        finally:
            call.answer_id, call.answer_model = decoder.answer_id, decoder.answer_model
            if decoder.is_done:
                self._read_on(messages)
            else:
                await messages.aclose()
        for event in decoder.end():
            yield event

    async def _stream(self, path: str, body: dict[str, Any], headers: Mapping[str, str]) -> AsyncGenerator[bytes, None]:
        """The data of each message of the stream that answers `body`."""
        added = {
            name: f"{self._headers[name]},{value}" if name in self._headers else value
            for name, value in headers.items()
        }
        async with self._sent("POST", path, body, added | {"accept": "text/event-stream"}) as response:
            content_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
            if content_type != "text/event-stream":
                raise ProviderFailed(
                    f"{self.provider.name} answered with {content_type[:80] or 'no content type'}, not with a stream."
                )
            try:
                async for data in read_messages(response.aiter_bytes()):
                    yield data
            except httpx.TimeoutException:
                raise TargetTimeout(f"{self.provider.name} went silent in the middle of its answer.") from None
            except httpx.HTTPError as error:
                raise ProviderFailed(f"The connection to {self.provider.name} broke: {_describe(error)}.") from None

    @asynccontextmanager
    async def _sent(
        self, method: str, path: str, body: dict[str, Any] | None, own: Mapping[str, str] | None = None
    ) -> AsyncIterator[httpx.Response]:
        """The answer of the provider, whose body is not read yet; asked again as often as it is allowed."""
        content = None if body is None else _encode(body)
        call, url = current_call(), self._url(path)
        call.address, call.port = url.host, url.port or _PORTS[url.scheme]
        traced = {} if call.traceparent is None else {"traceparent": call.traceparent}
        headers = traced | self._headers | {"accept": "application/json"} | dict(own or {})
        if content is not None:
            headers["content-type"] = "application/json"
        for num_tries in range(self.provider.max_retries + 1):
            is_last = num_tries == self.provider.max_retries
            call.num_retries, call.status = num_tries, None
            request = httpx.Request(method, url, headers=headers, content=content, extensions=self._extensions)
            try:
                response = await self._transport.handle_async_request(request)
            except (httpx.ConnectError, httpx.ConnectTimeout, httpx.RemoteProtocolError, httpx.ReadError) as error:
                if is_last:
                    raise ProviderFailed(f"{self.provider.name} cannot be reached: {_describe(error)}.") from None
                await asyncio.sleep(backoff_s(num_tries))
                continue
            except httpx.TimeoutException:
                raise TargetTimeout(f"{self.provider.name} did not answer in time.") from None
            except httpx.HTTPError as error:
                raise ProviderFailed(f"{self.provider.name} failed: {_describe(error)}.") from None
            call.status, call.headers_s = response.status_code, time.monotonic()
            try:
                if response.status_code == 200:
                    yield response
                    return
                wait_s = wait_s_of(response, num_tries)
                if is_last or wait_s is None:
                    model = None if body is None else str(body.get("model"))
                    raise await refusal_of(response, self.provider.name, model=model)
            finally:
                await response.aclose()
            await asyncio.sleep(wait_s)

    def _read_on(self, messages: AsyncGenerator[bytes, None]) -> None:
        """Nothing follows that counts, but a connection whose answer is not read to its end cannot be used again."""
        task = asyncio.create_task(_read_to_end(messages))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def _url(self, path: str) -> httpx.URL:
        url = self._urls.get(path)
        if url is None:
            url = self._urls[path] = httpx.URL(f"{self.provider.base_url.rstrip('/')}/{path.lstrip('/')}")
        return url


async def _read_to_end(messages: AsyncGenerator[bytes, None]) -> None:
    with suppress(TimeoutError, MlxManagerError):
        async with asyncio.timeout(_END_S):
            async for _ in messages:
                pass
    await messages.aclose()


class _GuardedTransport(httpx.AsyncHTTPTransport):
    """httpx's own, with connections that are checked where they lead to."""

    def __init__(self, *, allows_private: bool) -> None:
        # reads the authorities once, not once per connection
        context = make_tls_context()
        super().__init__(verify=context, http2=True)
        network = GuardedNetwork(allows_private=allows_private)

        def make_pool() -> httpcore.AsyncConnectionPool:
            return httpcore.AsyncConnectionPool(
                ssl_context=context,
                max_connections=MOST_IN_POOL,
                max_keepalive_connections=MOST_IN_POOL,
                keepalive_expiry=_KEPT_S,
                http1=True,
                http2=True,
                network_backend=network,
            )

        # asked like one pool
        self._pool = Connections(make_pool, most_pools=_MOST_CONNECTIONS // MOST_IN_POOL)  # type: ignore[assignment]

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request. An address that is refused is the operator's to mend, whoever asks."""
        try:
            return await super().handle_async_request(request)
        except MlxManagerError as error:
            raise ProviderFailed(error.message) from None


def _encode(body: dict[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(body)
    except OverflowError:
        # a number of the client's that has more than 64 bits
        return json.dumps(body).encode()


def _parse(body: bytes, name: str) -> Any:
    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError:
        raise ProviderFailed(f"{name} answered what is no JSON.") from None


def _describe(error: httpx.HTTPError) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
