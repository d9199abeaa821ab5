"""The prefix cache on disk: blocks and states that left the memory, or are about to, in files that survive a restart.

    folder/<model>/<key>.safetensors        one block: what every layer keeps of its 32 tokens, as bytes
    folder/<model>/<key>.state.safetensors  the state of the recurrent layers behind it, as bytes

`<model>` is a digest of all that decides what a file holds (see `worker.verdicts`), `<key>` the block's key in the
prefix index, which stands for all tokens before it too. A file is used only when its digest is right. How the files of
all models together stay within a bound is the business of `bounded_folder`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from mlx_manager.engine.block_store import StoredBlock, StoredState
from mlx_manager.engine.bounded_folder import BoundedFolder

_log = logging.getLogger(__name__)

_MAX_PENDING_BYTES = 64 * 1024**2
_NUM_AT_ONCE = 64
_SMOOTHING = 0.2
_SUFFIX = ".safetensors"
_STATE = ".state"

Content = tuple[bytes, ...]


@dataclass(frozen=True)
class DeviceReader:
    """Brings to the host what the device holds."""

    blocks: Callable[[Sequence[int]], list[StoredBlock]] | None
    """None where a block is nothing but its tokens, because no layer keeps anything per token."""
    state: Callable[[int], StoredState | None] = lambda checkpoint: None
    """A kept copy of a state; None where it is not made yet, or gone."""


class DiskCache:
    """Blocks and states of one model in `folder`, which several workers share.

    Asked from one thread; writes in one of its own.
    """

    def __init__(self, folder: Path, model: str, max_bytes: int, reader: DeviceReader) -> None:
        self._files = BoundedFolder(folder, max_bytes, self._on_remove)
        self._reader = reader
        self._model = model
        self._own = folder / model
        self._own.mkdir(exist_ok=True)
        self._names: set[str] = set()
        self._files.tidy()
        self._names |= {path.name.removesuffix(_SUFFIX) for path in self._own.glob(f"*{_SUFFIX}") if _is_name(path)}
        self._offered: set[str] = set()
        """What this process has written, or tried to: what had to go is not written again before it is used again."""
        self._writer = ThreadPoolExecutor(1, "disk-cache")
        self._pending_bytes = 0
        self._guard = threading.Lock()
        self._fetch_s: float | None = None if reader.blocks is not None else 0.0
        self._state_fetch_s: float | None = None

    @property
    def num_at_once(self) -> int:
        """Blocks to fetch in one step."""
        return _NUM_AT_ONCE

    @property
    def fetch_s(self) -> float | None:
        """Seconds that fetching a block takes, over the last ones; None before the first."""
        return self._fetch_s

    @property
    def state_fetch_s(self) -> float | None:
        """Seconds that fetching a state takes, over the last ones; None before the first."""
        return self._state_fetch_s

    def __contains__(self, key: bytes) -> bool:
        return self._reader.blocks is None or key.hex() in self._names

    def __len__(self) -> int:
        """Blocks and states."""
        return len(self._names)

    def has_state(self, key: bytes) -> bool:
        """Whether the state behind a block is here, or about to be."""
        return key.hex() + _STATE in self._names

    def wants(self, key: bytes) -> bool:
        """Whether a block has never been here, as far as is known."""
        return key not in self and key.hex() not in self._offered

    def wants_state(self, key: bytes) -> bool:
        """Whether the state behind a block has never been here, as far as is known."""
        return not self.has_state(key) and key.hex() + _STATE not in self._offered

    def spill(self, blocks: Sequence[tuple[int, bytes]], states: Sequence[tuple[int, bytes]] = ()) -> None:
        """Read (block, key)s and (checkpoint, key)s from the device and write them in the background.

        As far as the disk keeps up: what it does not is left out.
        """
        if self._reader.blocks is not None and blocks and self._has_place(0):
            contents = self._reader.blocks([block for block, _ in blocks])
            for (_, key), content in zip(blocks, contents, strict=True):
                self.put(key, content)
        for checkpoint, key in states:
            # A state can be large: where it would not be taken, it is not read either.
            state = self._reader.state(checkpoint) if self._has_place(0) else None
            if state is not None:
                self.put_state(key, state)

    def put(self, key: bytes, block: StoredBlock) -> bool:
        """Write a block in the background. False where too much waits to be written already: try again later."""
        return self._put(key.hex(), block)

    def put_state(self, key: bytes, state: StoredState) -> bool:
        """Write the state behind a block, as `put` does."""
        return self._put(key.hex() + _STATE, state)

    def fetch(self, key: bytes) -> StoredBlock | None:
        """Read a block. What is missing or damaged is forgotten, and removed."""
        if self._reader.blocks is None:
            return ()
        started_s = time.perf_counter()
        block = self._read(key.hex())
        if block is not None:
            self._fetch_s = _blend(self._fetch_s, time.perf_counter() - started_s)
        return block

    def fetch_state(self, key: bytes) -> StoredState | None:
        """Read the state behind a block, as `fetch` does."""
        started_s = time.perf_counter()
        state = self._read(key.hex() + _STATE)
        if state is not None:
            self._state_fetch_s = _blend(self._state_fetch_s, time.perf_counter() - started_s)
        return state

    def touch(self, keys: Sequence[bytes], state: bytes | None) -> None:
        """What was fetched was used. The end of a prefix counts as used before its beginning, which it needs."""
        names = [] if state is None else [state.hex() + _STATE]
        if self._reader.blocks is not None:
            names += [key.hex() for key in reversed(keys)]
        for name in names:
            try:
                os.utime(self._path(name))
            except OSError:
                self._names.discard(name)

    def forget(self, keys: Sequence[bytes]) -> None:
        """Remove what is not to be trusted, wherever it is on its way to the disk."""
        names = [name for key in keys for name in (key.hex(), key.hex() + _STATE) if name in self._names]
        if names:
            self._names.difference_update(names)
            self._writer.submit(self._remove, names)

    def flush(self) -> None:
        """Wait until what was put is written."""
        self._writer.submit(lambda: None).result()

    def _path(self, name: str) -> Path:
        return self._own / f"{name}{_SUFFIX}"

    def _on_remove(self, path: Path) -> None:
        if path.parent == self._own:
            self._names.discard(path.name.removesuffix(_SUFFIX))

    def _remove(self, names: Sequence[str]) -> None:
        for name in names:
            self._names.discard(name)
            self._path(name).unlink(missing_ok=True)

    def _has_place(self, num_bytes: int) -> bool:
        """Whether so much more may wait to be written; anything may where nothing waits."""
        return not self._pending_bytes or self._pending_bytes + num_bytes <= _MAX_PENDING_BYTES

    def _put(self, name: str, content: Content) -> bool:
        num_bytes = sum(map(len, content))
        with self._guard:
            if not self._has_place(num_bytes):
                return False
            self._pending_bytes += num_bytes
        self._offered.add(name)
        self._names.add(name)
        self._writer.submit(self._write, name, content, num_bytes)
        return True

    def _write(self, name: str, content: Content, num_bytes: int) -> None:
        try:
            tensors = {f"{index:04}": np.frombuffer(part, dtype=np.uint8) for index, part in enumerate(content)}
            encoded = save_tensors(tensors, {"model": self._model, "key": name, "digest": _digest(content)})
            if self._files.write(self._path(name), encoded):
                self._names.add(name)
            else:
                self._names.discard(name)
        except OSError as error:
            self._names.discard(name)
            _log.warning("the prefix cache on disk could not be written: %s", error)
        finally:
            with self._guard:
                self._pending_bytes -= num_bytes

    def _read(self, name: str) -> Content | None:
        path = self._path(name)
        try:
            return self._checked(name, path.read_bytes())
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            # also while it is still being written: then it is computed anew, and no harm done
            self._names.discard(name)
            self._offered.discard(name)
            if not isinstance(error, FileNotFoundError):
                _log.warning("a file of the prefix cache on disk is not used: %s", error)
                path.unlink(missing_ok=True)
            return None

    def _checked(self, name: str, encoded: bytes) -> Content:
        """What is in a file's bytes. Raises `ValueError`, `KeyError` or `SafetensorError` where it is not whole."""
        header: dict[str, Any] = json.loads(encoded[8 : 8 + int.from_bytes(encoded[:8], "little")])
        metadata = header["__metadata__"]
        if (metadata["model"], metadata["key"]) != (self._model, name):
            raise ValueError(f"{name} is the file of something else")
        content = tuple(tensor.tobytes() for _, tensor in sorted(load_tensors(encoded).items()))
        if _digest(content) != metadata["digest"]:
            raise ValueError(f"{name} is damaged")
        return content


def cache_name(model: str, layout: object) -> str:
    """The name of a model's folder: a digest of `model`, itself a digest, and of how the device lays a block out."""
    return hashlib.blake2b(f"{model}\0{layout}".encode(), digest_size=16).hexdigest()


def _digest(content: Content) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in content:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def _blend(old: float | None, new: float) -> float:
    return new if old is None else (1 - _SMOOTHING) * old + _SMOOTHING * new


def _is_name(path: Path) -> bool:
    """Whether a file is called as ours are."""
    try:
        bytes.fromhex(path.name.removesuffix(_SUFFIX).removesuffix(_STATE))
    except ValueError:
        return False
    return True
