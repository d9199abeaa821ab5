"""Fetches pictures, videos and documents that requests name by address: https, public hosts, bounded size and time.

A server that fetches what strangers name is asked to fetch what only it can reach. So a name is resolved here, every
address of it has to be public, and the connection goes to the very address that was checked; redirects too.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from urllib.parse import urljoin

import httpx
from msgspec.structs import replace

from mlx_manager.backends.authorities import make_tls_context
from mlx_manager.backends.documents import DocumentLimits
from mlx_manager.catalog import LoadOptions
from mlx_manager.errors import InvalidRequest, PayloadTooLarge
from mlx_manager.ir import ChatPrompt, Content, DocumentContent, ImageContent, Prompt, TextContent, VideoContent

_MAX_REDIRECTS = 3
_MAX_AT_ONCE = 4
_ACCEPTED = {"video": "video/*", "document": "application/pdf"}
_NOUNS = MappingProxyType(
    {
        ImageContent: ("image", "max_image_bytes"),
        VideoContent: ("video", "max_video_bytes"),
        DocumentContent: ("document", "max_document_bytes"),
    }
)
"""What each kind is called, and which limit it has."""
_HEADERS = {"User-Agent": "mlx-manager", "Accept-Encoding": "identity"}


@dataclass(frozen=True)
class FetchLimits:
    """What a fetch may take. `hosts` may lie in private networks; everything else has to be public."""

    max_image_bytes: int = LoadOptions().max_image_bytes
    max_images: int = LoadOptions().max_images
    max_video_bytes: int = LoadOptions().max_video_bytes
    max_video_frames: int = LoadOptions().max_video_frames
    """Also of those that are named one by one."""
    max_document_bytes: int = DocumentLimits().max_bytes
    max_documents: int = DocumentLimits().max_documents
    timeout_s: float = 10.0
    """For one file, redirects included."""
    hosts: frozenset[str] = frozenset()


@dataclass(frozen=True)
class _Wanted:
    """One file that is to be fetched."""

    place: tuple[int, int, int | None]
    """Message, piece of its content, and frame where the piece is a list of them."""
    url: str
    noun: str
    max_bytes: int

    @property
    def at(self) -> str:
        """The place, as the dialects write it."""
        message, piece, frame = self.place
        return f"messages[{message}].content[{piece}]" + ("" if frame is None else f".video[{frame}]")

    def refusal(self, url: str, reason: str) -> InvalidRequest:
        """Why `url`, to which this led, is not fetched."""
        shown = url if len(url) <= 120 else f"{url[:117]}..."
        return InvalidRequest(f"The {self.noun} of {self.at} cannot be fetched from {shown}: {reason}.", param=self.at)


class PictureFetcher:
    """Puts the files into a request that names them by address. `ssl_context` decides who is trusted."""

    def __init__(self, limits: FetchLimits, ssl_context: ssl.SSLContext | None = None) -> None:
        self._limits = limits
        self._ssl_context = ssl_context

    async def fetched(self, prompt: Prompt, *kinds: type[Content]) -> Prompt:
        """`prompt` with every file of `kinds` in it. Raises `InvalidRequest` that names the one that cannot be had."""
        if not isinstance(prompt, ChatPrompt):
            return prompt
        wanted = [
            each
            for index, said in enumerate(prompt.messages)
            for at, piece in enumerate(said.content)
            if isinstance(piece, kinds)
            for each in self._wanted(piece, index, at)
        ]
        if not wanted:
            return prompt
        self._check_numbers(wanted)
        files = await self._fetch_all(wanted)
        messages = []
        for index, said in enumerate(prompt.messages):
            content = tuple(_put_in(piece, files, index, at) for at, piece in enumerate(said.content))
            messages.append(replace(said, content=content))
        return replace(prompt, messages=tuple(messages))

    def _wanted(self, piece: Content, message: int, at: int) -> Iterator[_Wanted]:
        """What of one piece is named by address."""
        if isinstance(piece, TextContent):
            return
        if piece.url:
            noun, most = _NOUNS[type(piece)]
            yield _Wanted((message, at, None), piece.url, noun, getattr(self._limits, most))
        for index, frame in enumerate(piece.frames if isinstance(piece, VideoContent) else ()):
            if frame.url:
                yield _Wanted((message, at, index), frame.url, "frame", self._limits.max_image_bytes)

    def _check_numbers(self, wanted: list[_Wanted]) -> None:
        bounds = {
            "image": (self._limits.max_images, "max_images"),
            "video": (self._limits.max_video_frames, "max_video_frames"),
            "frame": (self._limits.max_video_frames, "max_video_frames"),
            "document": (self._limits.max_documents, ""),
        }
        for noun, (most, setting) in bounds.items():
            num_wanted = sum(each.noun == noun for each in wanted)
            if num_wanted > most:
                told = f" (setting {setting})" if setting else ""
                raise InvalidRequest(
                    f"The request names {num_wanted} {noun}s, and {most} are taken{told}: send fewer.",
                    param="messages",
                )

    async def _fetch_all(self, wanted: list[_Wanted]) -> dict[tuple[int, int, int | None], bytes]:
        turn = asyncio.Semaphore(_MAX_AT_ONCE)
        # made for the few requests that need it: loading the trusted certificates takes a moment
        context = self._ssl_context
        if context is None:
            context = await asyncio.to_thread(make_tls_context)

        async def fetch(each: _Wanted) -> bytes:
            async with turn:
                return await self._fetch(each, context)

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(fetch(each)) for each in wanted]
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return {each.place: task.result() for each, task in zip(wanted, tasks, strict=True)}

    async def _fetch(self, wanted: _Wanted, context: ssl.SSLContext) -> bytes:
        url = wanted.url
        try:
            async with (
                asyncio.timeout(self._limits.timeout_s),
                httpx.AsyncClient(verify=context, trust_env=False, timeout=None) as client,
            ):
                for _ in range(_MAX_REDIRECTS + 1):
                    found = await self._follow(client, url, wanted)
                    if isinstance(found, bytes):
                        return found
                    url = found
        except TimeoutError:
            raise wanted.refusal(url, f"it did not arrive within {self._limits.timeout_s:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, OSError) as error:
            raise wanted.refusal(url, str(error) or type(error).__name__) from None
        raise wanted.refusal(url, f"it was redirected more than {_MAX_REDIRECTS} times")

    async def _follow(self, client: httpx.AsyncClient, url: str, wanted: _Wanted) -> bytes | str:
        """The file at `url`, or the address that it has moved to."""
        target = httpx.URL(url)
        if target.scheme != "https" or not target.host:
            raise wanted.refusal(url, "only https addresses are fetched")
        address = await self._public_address(target, wanted)
        # The name stays in the header and in the check of the certificate; the connection goes to the checked address.
        headers = {"Host": target.netloc.decode("ascii"), "Accept": _ACCEPTED.get(wanted.noun, "image/*"), **_HEADERS}
        extensions = {"sni_hostname": target.raw_host.decode("ascii")}
        where = target.copy_with(host=address, username=None, password=None)
        async with client.stream("GET", where, headers=headers, extensions=extensions) as answer:
            if answer.has_redirect_location:
                return urljoin(url, answer.headers["location"])
            if answer.status_code != httpx.codes.OK:
                raise wanted.refusal(url, f"its server answered {answer.status_code}")
            return await self._read(answer, wanted)

    async def _read(self, answer: httpx.Response, wanted: _Wanted) -> bytes:
        settings = {"video": " (setting max_video_bytes)", "document": ""}
        setting = settings.get(wanted.noun, " (setting max_image_bytes)")
        chunks, num_bytes = [], 0
        async for chunk in answer.aiter_raw():
            chunks.append(chunk)
            num_bytes += len(chunk)
            if num_bytes > wanted.max_bytes:
                raise PayloadTooLarge(
                    f"The {wanted.noun} of {wanted.at} is larger than the {wanted.max_bytes} bytes accepted{setting}.",
                    param=wanted.at,
                )
        return b"".join(chunks)

    async def _public_address(self, target: httpx.URL, wanted: _Wanted) -> str:
        """An address of the host. Raises `InvalidRequest` unless all that it has are public."""
        host, port = target.raw_host.decode("ascii"), target.port or 443
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = [str(entry[4][0]) for entry in found]
        if host not in self._limits.hosts and not all(_is_public(address) for address in addresses):
            raise wanted.refusal(str(target), "its host is not a public one (setting image_hosts)")
        return addresses[0]


def _is_public(address: str) -> bool:
    parsed = ipaddress.ip_address(address.partition("%")[0])
    inner = getattr(parsed, "ipv4_mapped", None) or getattr(parsed, "sixtofour", None)
    if inner is None and parsed in ipaddress.ip_network("64:ff9b::/96"):
        inner = ipaddress.IPv4Address(int(parsed) & 0xFFFF_FFFF)
    parsed = inner or parsed
    return parsed.is_global and not parsed.is_multicast


def _put_in(piece: Content, files: Mapping[tuple[int, int, int | None], bytes], message: int, at: int) -> Content:
    """`piece` with its files in the place of their addresses."""
    if isinstance(piece, VideoContent) and piece.frames:
        frames = enumerate(piece.frames)
        filled = (
            replace(frame, data=files[message, at, index], url="") if (message, at, index) in files else frame
            for index, frame in frames
        )
        return replace(piece, frames=tuple(filled))
    if isinstance(piece, TextContent) or (message, at, None) not in files:
        return piece
    return replace(piece, data=files[message, at, None], url="")
