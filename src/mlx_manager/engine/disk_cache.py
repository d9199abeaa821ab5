"""The prefix cache on disk: full blocks that left the arena, or are about to, kept in files that survive a restart.

    folder/.lock                          held while files come and go, by whichever worker does it
    folder/<model>/<key>.safetensors      one block: what every layer keeps of its 32 tokens, as bytes
    folder/<model>/.<key>.partial         one that is being written

`<model>` is a digest of all that decides what a block holds (see `worker.verdicts`), `<key>` the block's key in the
prefix index, which stands for all tokens before it too. A file is used only when its digest is right. All models
together never take more than `max_bytes`: those not read for longest are removed before another is written.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from mlx_manager.engine.block_store import StoredBlock

_log = logging.getLogger(__name__)

_MAX_PENDING_BYTES = 64 * 1024**2
_SMOOTHING = 0.2

ReadBlocks = Callable[[Sequence[int]], list[StoredBlock]]
"""Brings what is in blocks of the arena to the host."""


class DiskCache:
    """Blocks of one model in `folder`, which several workers share. Asked from one thread; writes in one of its own."""

    def __init__(self, folder: Path, model: str, max_bytes: int, read_blocks: ReadBlocks) -> None:
        self._folder = folder
        self._read_blocks = read_blocks
        self._model = model
        self._own = folder / model
        # What is in a block tells of the prompt that it was computed from.
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._own.mkdir(exist_ok=True)
        self._max_bytes = max_bytes
        self._lock = FileLock(folder / ".lock", thread_local=False)
        self._keys = {bytes.fromhex(path.stem) for path in self._own.glob("*.safetensors") if _is_hex(path.stem)}
        self._writer = ThreadPoolExecutor(1, "disk-cache")
        self._pending_bytes = 0
        self._guard = threading.Lock()
        self._fetch_s: float | None = None
        with self._lock:
            self._make_room(0)

    @property
    def fetch_s(self) -> float | None:
        """Seconds that fetching a block takes, over the last ones; None before the first."""
        return self._fetch_s

    def __contains__(self, key: bytes) -> bool:
        return key in self._keys

    def __len__(self) -> int:
        return len(self._keys)

    def spill(self, blocks: Sequence[tuple[int, bytes]]) -> None:
        """Read (block, key)s from the arena and write them in the background, as far as the disk keeps up."""
        contents = self._read_blocks([block for block, _ in blocks])
        for (_, key), content in zip(blocks, contents, strict=True):
            self.put(key, content)

    def put(self, key: bytes, block: StoredBlock) -> bool:
        """Write a block in the background. False where too much waits to be written already: try again later."""
        num_bytes = sum(map(len, block))
        with self._guard:
            if self._pending_bytes and self._pending_bytes + num_bytes > _MAX_PENDING_BYTES:
                return False
            self._pending_bytes += num_bytes
        self._keys.add(key)
        self._writer.submit(self._write, key, block, num_bytes)
        return True

    def fetch(self, key: bytes) -> StoredBlock | None:
        """Read a block. What is missing or damaged is forgotten, and removed."""
        started_s = time.perf_counter()
        path = self._path(key)
        try:
            block = self._checked(key, path.read_bytes())
            path.touch()
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            # also while it is still being written: then it is computed anew, and no harm done
            self._keys.discard(key)
            if not isinstance(error, FileNotFoundError):
                _log.warning("a block of the prefix cache on disk is not used: %s", error)
                path.unlink(missing_ok=True)
            return None
        took_s = time.perf_counter() - started_s
        self._fetch_s = took_s if self._fetch_s is None else (1 - _SMOOTHING) * self._fetch_s + _SMOOTHING * took_s
        return block

    def flush(self) -> None:
        """Wait until what was put is written."""
        self._writer.submit(lambda: None).result()

    def _path(self, key: bytes) -> Path:
        return self._own / f"{key.hex()}.safetensors"

    def _write(self, key: bytes, block: StoredBlock, num_bytes: int) -> None:
        try:
            tensors = {f"{index:04}": np.frombuffer(part, dtype=np.uint8) for index, part in enumerate(block)}
            data = save_tensors(tensors, {"model": self._model, "key": key.hex(), "digest": _digest(block)})
            with self._lock:
                if not self._make_room(len(data)):
                    self._keys.discard(key)
                    return
                partial = self._own / f".{key.hex()}.partial"
                partial.write_bytes(data)
                partial.replace(self._path(key))
        except OSError as error:
            self._keys.discard(key)
            _log.warning("a block could not be written to the prefix cache on disk: %s", error)
        finally:
            with self._guard:
                self._pending_bytes -= num_bytes

    def _make_room(self, num_bytes: int) -> bool:
        """Remove the files read longest ago until `num_bytes` more fit, and what a crash left. False: they never do.

        With the lock held: nobody writes meanwhile.
        """
        for partial in self._folder.glob("*/.*.partial"):
            partial.unlink(missing_ok=True)
        files = [(path, path.stat()) for path in self._folder.glob("*/*.safetensors")]
        total = sum(stat.st_size for _, stat in files)
        for path, stat in sorted(files, key=lambda file: file[1].st_mtime_ns):
            if total + num_bytes <= self._max_bytes:
                break
            path.unlink(missing_ok=True)
            total -= stat.st_size
            if path.parent == self._own and _is_hex(path.stem):
                self._keys.discard(bytes.fromhex(path.stem))
        return total + num_bytes <= self._max_bytes

    def _checked(self, key: bytes, data: bytes) -> StoredBlock:
        """The block in a file's bytes. Raises `ValueError`, `KeyError` or `SafetensorError` where it is not whole."""
        header: dict[str, Any] = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        metadata = header["__metadata__"]
        if (metadata["model"], metadata["key"]) != (self._model, key.hex()):
            raise ValueError(f"{key.hex()} is another block's file")
        block = tuple(tensor.tobytes() for _, tensor in sorted(load_tensors(data).items()))
        if _digest(block) != metadata["digest"]:
            raise ValueError(f"{key.hex()} is damaged")
        return block


def cache_name(model: str, layout: object) -> str:
    """The name of a model's folder: a digest of `model`, itself a digest, and of how the arena lays a block out."""
    return hashlib.blake2b(f"{model}\0{layout}".encode(), digest_size=16).hexdigest()


def _digest(block: StoredBlock) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in block:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def _is_hex(text: str) -> bool:
    try:
        bytes.fromhex(text)
    except ValueError:
        return False
    return True
