"""Compressed bodies, decompressed as they come and never to more than is asked for at once."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Protocol

from mlx_manager.errors import InvalidRequest, UnsupportedMediaType

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_MOST_WINDOW_LOG = 23
"""8 MiB of memory for each body: what RFC 9659 allows a sender of zstd to ask for."""


class _Stream(Protocol):
    """What decompresses one stream, in the words of the standard library."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


_STREAMS: Mapping[str, Callable[[], _Stream]] = MappingProxyType(
    {
        "gzip": lambda: zlib.decompressobj(zlib.MAX_WBITS + 16),
        "deflate": zlib.decompressobj,
        "zstd": lambda: zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _MOST_WINDOW_LOG}),
    }
)


class Unpacker:
    """Decompresses one body. Raises `UnsupportedMediaType` for encodings that are not known here."""

    def __init__(self, encoding: str) -> None:
        make_stream = _STREAMS.get(encoding.removeprefix("x-"))
        if make_stream is None:
            raise UnsupportedMediaType(
                f"Bodies compressed with {encoding[:40]} are not accepted: send {', '.join(_STREAMS)}, or it "
                "uncompressed.",
                param="Content-Encoding",
            )
        self._encoding = encoding
        self._stream = make_stream()

    def unpack(self, chunk: bytes, most: int) -> bytes:
        """At most `most` bytes of what `chunk` adds; the rest is not kept, because the body is too large then.

        Raises `InvalidRequest`.
        """
        if not chunk:
            return b""
        try:
            return self._stream.decompress(chunk, most)
        except (zlib.error, zstd.ZstdError, EOFError):
            raise self._broken() from None

    def check_end(self) -> None:
        """Raises `InvalidRequest` where the body ended before its compressed form did, or goes on behind it."""
        if not self._stream.eof or self._stream.unused_data:
            raise self._broken()

    def _broken(self) -> InvalidRequest:
        return InvalidRequest(
            f"The body is not what {self._encoding} makes: send it whole, or uncompressed.", param="Content-Encoding"
        )
