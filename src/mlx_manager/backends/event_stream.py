"""Reads a stream of Server-Sent Events. What writes one is `api.sse`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator

from mlx_manager.errors import ProviderFailed

_MOST_MESSAGE_BYTES = 4 * 1024 * 1024


async def read_messages(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """The data of each message of a stream of Server-Sent Events; comments and other fields are passed over.

    Lines end with a line feed, a carriage return, or both. Raises `ProviderFailed` for a line without end.
    """
    rest, data, ends_in_cr = b"", [], False
    async for chunk in chunks:
        more = chunk.removeprefix(b"\n") if ends_in_cr else chunk
        ends_in_cr = more.endswith(b"\r")
        if b"\r" in more:
            more = more.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, rest = (rest + more).split(b"\n")
        if len(rest) > _MOST_MESSAGE_BYTES:
            raise ProviderFailed("The provider sent a message without end.")
        for line in lines:
            if line.startswith(b"data:"):
                data.append(line[5:].removeprefix(b" "))
            elif not line and data:
                yield b"\n".join(data)
                data = []
    if data:
        yield b"\n".join(data)
