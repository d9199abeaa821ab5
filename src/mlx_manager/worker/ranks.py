"""One model split over several processes, on one machine or several: who they are, and what they tell each other.

Rank 0 is a worker of ours; each other rank is a follower. All of them hold a part of every layer, and what the parts
come to is summed by MLX's ring after each, which works only if all ranks make the same calls of the model in the same
order. So rank 0 tells the followers of each call before it makes it, over a connection of its own to each of them.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import msgspec

from mlx_manager.catalog import LoadOptions
from mlx_manager.errors import ModelLoadFailed

_HEAD = struct.Struct("!I")
_MAX_FRAME_BYTES = 64 * 1024**2


class Begin(msgspec.Struct, frozen=True, tag="begin"):
    """Join the ring, and load the model with these options."""

    options: LoadOptions


class Call(msgspec.Struct, frozen=True, tag="call"):
    """Call the model on `token_ids` with cache number `cache`; a new number is a new cache."""

    cache: int
    token_ids: list[list[int]]


class Fork(msgspec.Struct, frozen=True, tag="fork"):
    """Cache number `copy` is a copy of `cache` as it is now."""

    cache: int
    copy: int


class Drop(msgspec.Struct, frozen=True, tag="drop"):
    """Forget a cache."""

    cache: int


ToFollower = Begin | Call | Fork | Drop
_decoder: msgspec.msgpack.Decoder[ToFollower] = msgspec.msgpack.Decoder(ToFollower)


@dataclass(frozen=True)
class Ranks:
    """The ranks of one model, as MLX's host file for the ring names them: `[["host:port"], ["host:port"]]`."""

    file: Path
    addresses: tuple[tuple[str, int], ...]
    """Of each rank, for the ring. A follower listens to rank 0 on the port behind its own."""

    @staticmethod
    def read(file: Path) -> Ranks:
        """Raises `ModelLoadFailed` for a file that does not name at least two ranks."""
        try:
            hosts = json.loads(file.read_text(encoding="utf-8"))
            firsts = [str(host[0]).rpartition(":") for host in hosts]
            addresses = tuple((host.strip("[]"), int(port)) for host, _, port in firsts)
        except (OSError, ValueError, TypeError, LookupError) as error:
            raise ModelLoadFailed(f"The host file {file} cannot be read: {error}") from None
        if len(addresses) < 2:
            raise ModelLoadFailed(
                f"The host file {file} names {len(addresses)} ranks; a model is split over two or more."
            )
        return Ranks(file, addresses)

    def control_address(self, rank: int) -> tuple[str, int]:
        """Where the follower `rank` listens to rank 0. Raises `ModelLoadFailed` where there is no such rank."""
        if rank >= len(self.addresses):
            raise ModelLoadFailed(f"There is no rank {rank}: {self.file} names {len(self.addresses)}, counted from 0.")
        host, port = self.addresses[rank]
        return host, port + 1

    def join(self, rank: int) -> mx.distributed.Group:
        """Join the ring as `rank`; waits for all others. Raises `RuntimeError` where they do not come."""
        os.environ.update(MLX_RANK=str(rank), MLX_HOSTFILE=str(self.file))
        return mx.distributed.init(strict=True, backend="ring")


def send(connection: socket.socket, message: ToFollower) -> None:
    """Send one message. Raises `OSError`."""
    frame = msgspec.msgpack.encode(message)
    connection.sendall(_HEAD.pack(len(frame)) + frame)


def receive(connection: socket.socket) -> ToFollower | None:
    """The next message; None where the other side has closed. Raises `OSError` and `msgspec.DecodeError`."""
    head = _read(connection, _HEAD.size)
    if head is None:
        return None
    (length,) = _HEAD.unpack(head)
    if length > _MAX_FRAME_BYTES:
        raise msgspec.DecodeError(f"a message of {length} bytes")
    frame = _read(connection, length)
    return None if frame is None else _decoder.decode(frame)


def _read(connection: socket.socket, length: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < length:
        part = connection.recv(length - len(parts))
        if not part:
            return None
        parts += part
    return bytes(parts)
