"""Fetches the pictures that requests name by address: https only, from public hosts, bounded in size and time.

A server that fetches what strangers name is asked to fetch what only it can reach. So a name is resolved here, every
address of it has to be public, and the connection goes to the very address that was checked; redirects too.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from dataclasses import dataclass
from urllib.parse import urljoin

import httpx
from msgspec.structs import replace

from mlx_manager.catalog import LoadOptions
from mlx_manager.errors import InvalidRequest, PayloadTooLarge
from mlx_manager.ir import ChatPrompt, Content, ImageContent, Message, Prompt

_MAX_REDIRECTS = 3
_MAX_AT_ONCE = 4
_HEADERS = {"User-Agent": "mlx-manager", "Accept": "image/*", "Accept-Encoding": "identity"}


@dataclass(frozen=True)
class FetchLimits:
    """What a fetch may take. `hosts` may lie in private networks; everything else has to be public."""

    max_image_bytes: int = LoadOptions().max_image_bytes
    max_images: int = LoadOptions().max_images
    timeout_s: float = 10.0
    """For one picture, redirects included."""
    hosts: frozenset[str] = frozenset()


class PictureFetcher:
    """Puts the files into a request whose pictures are named by address. `ssl_context` decides who is trusted."""

    def __init__(self, limits: FetchLimits, ssl_context: ssl.SSLContext | None = None) -> None:
        self._limits = limits
        self._ssl_context = ssl_context

    async def fetched(self, prompt: Prompt) -> Prompt:
        """`prompt` with every picture in it. Raises `InvalidRequest` that names the one that cannot be had."""
        if not isinstance(prompt, ChatPrompt):
            return prompt
        places = [
            (message, piece)
            for message, said in enumerate(prompt.messages)
            for piece, content in enumerate(said.content)
            if isinstance(content, ImageContent) and content.url
        ]
        if not places:
            return prompt
        if len(places) > self._limits.max_images:
            raise InvalidRequest(
                f"The request names {len(places)} images, and {self._limits.max_images} are taken (setting "
                "max_images): send fewer.",
                param="messages",
            )
        files = await self._fetch_all(prompt.messages, places)
        messages = []
        for index, said in enumerate(prompt.messages):
            content = tuple(_put_in(piece, files.get((index, at))) for at, piece in enumerate(said.content))
            messages.append(replace(said, content=content))
        return replace(prompt, messages=tuple(messages))

    async def _fetch_all(
        self, messages: tuple[Message, ...], places: list[tuple[int, int]]
    ) -> dict[tuple[int, int], bytes]:
        turn = asyncio.Semaphore(_MAX_AT_ONCE)
        # made for the few requests that need it: loading the trusted certificates takes a moment
        context = self._ssl_context
        if context is None:
            context = await asyncio.to_thread(ssl.create_default_context)

        async def fetch(place: tuple[int, int]) -> bytes:
            content = messages[place[0]].content[place[1]]
            assert isinstance(content, ImageContent)
            async with turn:
                return await self._fetch(content.url, f"messages[{place[0]}].content[{place[1]}]", context)

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(fetch(place)) for place in places]
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return {place: task.result() for place, task in zip(places, tasks, strict=True)}

    async def _fetch(self, url: str, at: str, context: ssl.SSLContext) -> bytes:
        try:
            async with (
                asyncio.timeout(self._limits.timeout_s),
                httpx.AsyncClient(verify=context, trust_env=False, timeout=None) as client,
            ):
                for _ in range(_MAX_REDIRECTS + 1):
                    found = await self._follow(client, url, at)
                    if isinstance(found, bytes):
                        return found
                    url = found
        except TimeoutError:
            raise _refusal(at, url, f"it did not arrive within {self._limits.timeout_s:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, OSError) as error:
            raise _refusal(at, url, str(error) or type(error).__name__) from None
        raise _refusal(at, url, f"it was redirected more than {_MAX_REDIRECTS} times")

    async def _follow(self, client: httpx.AsyncClient, url: str, at: str) -> bytes | str:
        """The file at `url`, or the address that it has moved to."""
        target = httpx.URL(url)
        if target.scheme != "https" or not target.host:
            raise _refusal(at, url, "only https addresses are fetched")
        address = await self._public_address(target, at)
        # The name stays in the header and in the check of the certificate; the connection goes to the checked address.
        headers = {"Host": target.netloc.decode("ascii"), **_HEADERS}
        extensions = {"sni_hostname": target.raw_host.decode("ascii")}
        where = target.copy_with(host=address, username=None, password=None)
        async with client.stream("GET", where, headers=headers, extensions=extensions) as answer:
            if answer.has_redirect_location:
                return urljoin(url, answer.headers["location"])
            if answer.status_code != httpx.codes.OK:
                raise _refusal(at, url, f"its server answered {answer.status_code}")
            return await self._read(answer, at)

    async def _read(self, answer: httpx.Response, at: str) -> bytes:
        most = self._limits.max_image_bytes
        chunks, num_bytes = [], 0
        async for chunk in answer.aiter_raw():
            chunks.append(chunk)
            num_bytes += len(chunk)
            if num_bytes > most:
                raise PayloadTooLarge(
                    f"The image of {at} is larger than the {most} bytes accepted (setting max_image_bytes).", param=at
                )
        return b"".join(chunks)

    async def _public_address(self, target: httpx.URL, at: str) -> str:
        """An address of the host. Raises `InvalidRequest` unless all that it has are public."""
        host, port = target.raw_host.decode("ascii"), target.port or 443
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = [str(entry[4][0]) for entry in found]
        if host not in self._limits.hosts and not all(_is_public(address) for address in addresses):
            raise _refusal(at, str(target), "its host is not a public one (setting image_hosts)")
        return addresses[0]


def _is_public(address: str) -> bool:
    parsed = ipaddress.ip_address(address.partition("%")[0])
    inner = getattr(parsed, "ipv4_mapped", None) or getattr(parsed, "sixtofour", None)
    if inner is None and parsed in ipaddress.ip_network("64:ff9b::/96"):
        inner = ipaddress.IPv4Address(int(parsed) & 0xFFFF_FFFF)
    parsed = inner or parsed
    return parsed.is_global and not parsed.is_multicast


def _put_in(content: Content, file: bytes | None) -> Content:
    return content if file is None or not isinstance(content, ImageContent) else replace(content, data=file, url="")


def _refusal(at: str, url: str, reason: str) -> InvalidRequest:
    shown = url if len(url) <= 120 else f"{url[:117]}..."
    return InvalidRequest(f"The image of {at} cannot be fetched from {shown}: {reason}.", param=at)
