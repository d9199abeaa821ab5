"""HTTP for tool servers: connections are checked where they lead to, as those of providers are."""

from __future__ import annotations

from collections.abc import Iterable

import httpcore2
import httpx2

from mlx_manager.backends.addresses import connect_to_any
from mlx_manager.backends.authorities import make_tls_context
from mlx_manager.catalog import ToolServer, ToolServerSecret

_CONNECT_S = 10.0


def guarded_client(server: ToolServer, secret: ToolServerSecret) -> httpx2.AsyncClient:
    """A client for the address of `server` alone, which follows no redirect to elsewhere."""
    timeout = httpx2.Timeout(max(server.timeout_s, _CONNECT_S), connect=_CONNECT_S)
    transport = _GuardedTransport(allows_private=server.allows_private_address)
    return httpx2.AsyncClient(headers=secret.headers, timeout=timeout, transport=transport, follow_redirects=False)


class _GuardedTransport(httpx2.AsyncHTTPTransport):
    def __init__(self, *, allows_private: bool) -> None:
        context = make_tls_context()
        super().__init__(verify=context)
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=context, network_backend=_GuardedNetwork(allows_private=allows_private)
        )


class _GuardedNetwork(httpcore2.AsyncNetworkBackend):
    """`backends.addresses.GuardedNetwork` for the library that clients of tool servers speak HTTP with."""

    def __init__(self, *, allows_private: bool) -> None:
        self._allows_private = allows_private
        self._network = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 — httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """A connection to the first address of `host` that takes one."""
        try:
            return await connect_to_any(
                host,
                port,
                lambda address: self._network.connect_tcp(address, port, timeout, local_address, socket_options),
                allows_private=self._allows_private,
                failures=(httpcore2.ConnectError, httpcore2.ConnectTimeout),
            )
        except OSError as error:
            raise httpcore2.ConnectError(f"{host} has no address: {error}") from error
