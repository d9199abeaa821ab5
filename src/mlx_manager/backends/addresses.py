"""Which addresses a provider may have. Checked when a connection is made, so that a name cannot change its mind."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

import httpcore

from mlx_manager.errors import InvalidRequest

_METADATA = tuple(map(ipaddress.ip_network, ("169.254.0.0/16", "fe80::/10", "fd00:ec2::254/128", "100.100.100.200/32")))
"""Link-local addresses, and those where clouds keep what only a machine itself is to know."""
_SHARED = ipaddress.ip_network("100.64.0.0/10")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Stream = TypeVar("_Stream")


class AddressRefused(InvalidRequest):
    """A provider's name leads to an address that it may not have."""

    code = "address_refused"


def check_address(text: str, host: str, *, allows_private: bool) -> None:
    """Raises `AddressRefused` for an address that `host` may not lead to."""
    address: _Address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        address = address.ipv4_mapped or address.sixtofour or _translated(address) or address
    is_never = address.is_multicast or address.is_unspecified or (address.is_reserved and not address.is_private)
    if is_never or any(address.version == network.version and address in network for network in _METADATA):
        raise AddressRefused(f"{host} leads to {address}, where no provider may be.", param="base_url")
    is_private = not address.is_global or (address.version == 4 and address in _SHARED)
    if is_private and not allows_private:
        raise AddressRefused(
            f"{host} leads to {address}, an address of this machine or of a private network: allow it for this "
            "provider with allows_private_address.",
            param="base_url",
        )


def _translated(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The address behind one that a network without IPv4 gives it (NAT64)."""
    return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF) if address in _NAT64 else None


async def resolve(host: str, port: int, *, allows_private: bool) -> list[str]:
    """The addresses of `host`, all of them allowed. Raises `AddressRefused`, and `OSError` where there is none."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(row[4][0]) for row in found))
    for address in addresses:
        check_address(address, host, allows_private=allows_private)
    return addresses


async def connect_to_any(
    host: str,
    port: int,
    connect: Callable[[str], Awaitable[_Stream]],
    *,
    allows_private: bool,
    failures: tuple[type[Exception], ...],
) -> _Stream:
    """What `connect` makes of the first address of `host` that takes a connection.

    `failures` are what an address that takes none raises; of the last address they are raised. Raises
    `AddressRefused`, and `OSError` where there is no address.
    """
    addresses = await resolve(host, port, allows_private=allows_private)
    for address in addresses[:-1]:
        try:
            return await connect(address)
        except failures:
            continue
    return await connect(addresses[-1])


class GuardedNetwork(httpcore.AsyncNetworkBackend):
    """Connects to allowed addresses only."""

    def __init__(self, *, allows_private: bool) -> None:
        self._allows_private = allows_private
        self._network = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 — httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """A connection to the first address of `host` that takes one."""
        try:
            return await connect_to_any(
                host,
                port,
                lambda address: self._network.connect_tcp(address, port, timeout, local_address, socket_options),
                allows_private=self._allows_private,
                failures=(httpcore.ConnectError, httpcore.ConnectTimeout),
            )
        except OSError as error:
            raise httpcore.ConnectError(f"{host} has no address: {error}") from error
