"""Files below one folder that never take more than a number of bytes in all, whichever of several processes writes.

    folder/.lock            held while files come and go
    folder/.total           what all files take, and when each subfolder changed last, as of the last write
    folder/<name>/…         the files
    folder/<name>/.…partial one that is being written

Counting anew for every write would cost more than the write. So the total is kept in a file, which holds as long as no
subfolder has changed since: somebody who deletes files, or adds some, changes one, and then everything is counted.
While a file is being written there is no total, so that a crash there leaves none.
"""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec
from filelock import FileLock

_PARTIAL = ".partial"


class _Total(msgspec.Struct, frozen=True):
    num_bytes: int
    changed_ns: dict[str, int]
    """When each subfolder changed last."""


class _File(NamedTuple):
    used_ns: int
    path: str
    num_bytes: int


class BoundedFolder:
    """Writes files into subfolders of `folder`, and removes those unused for longest to make room.

    `on_remove` is told each file that had to go, in the thread that writes.
    """

    def __init__(self, folder: Path, max_bytes: int, on_remove: Callable[[Path], None] = lambda path: None) -> None:
        # What is in the files may tell of what people wrote.
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.max_bytes = max_bytes
        self.num_counts = 0
        """How often every file was looked at."""
        self._folder = folder
        self._total_file = folder / ".total"
        self._on_remove = on_remove
        self._lock = FileLock(folder / ".lock", thread_local=False)
        self._oldest: deque[_File] = deque()
        """From the last count on: files that were used later come behind all of these."""

    def tidy(self) -> None:
        """Count, clear away what a crash left, and remove what is too much, be it of a larger bound before."""
        with self._lock:
            self._note(self._freed(self._count(), 0))

    def write(self, path: Path, content: bytes) -> bool:
        """Write a file whole or not at all. False: it is larger than everything may be."""
        if len(content) > self.max_bytes:
            return False
        with self._lock:
            known = self._known_total()
            self._total_file.unlink(missing_ok=True)
            num_bytes = self._freed(self._count() if known is None else known, len(content))
            num_bytes -= path.stat().st_size if path.exists() else 0
            partial = path.with_name(f".{path.name}{_PARTIAL}")
            partial.write_bytes(content)
            partial.replace(path)
            self._note(num_bytes + len(content))
        return True

    def _known_total(self) -> int | None:
        """The total as it was noted, if it still holds."""
        try:
            total = msgspec.json.decode(self._total_file.read_bytes(), type=_Total)
        except (FileNotFoundError, msgspec.DecodeError):
            return None
        return total.num_bytes if total.changed_ns == self._changes() else None

    def _note(self, num_bytes: int) -> None:
        self._total_file.write_bytes(msgspec.json.encode(_Total(num_bytes, self._changes())))

    def _changes(self) -> dict[str, int]:
        with os.scandir(self._folder) as entries:
            return {entry.name: entry.stat().st_mtime_ns for entry in entries if entry.is_dir()}

    def _count(self) -> int:
        """What all files take; what a crash left in mid-write is removed. With the lock held nobody else writes."""
        self.num_counts += 1
        for partial in self._folder.glob(f"*/.*{_PARTIAL}"):
            partial.unlink(missing_ok=True)
        files = []
        for path in self._folder.glob("*/[!.]*"):
            try:
                status = path.stat()
            except FileNotFoundError:
                # who finds a file damaged removes it, and needs no lock for that
                continue
            if stat.S_ISREG(status.st_mode):
                files.append(_File(status.st_mtime_ns, str(path), status.st_size))
        self._oldest = deque(sorted(files))
        return sum(file.num_bytes for file in files)

    def _freed(self, num_bytes: int, num_more: int) -> int:
        """Remove files until `num_more` bytes fit beside the rest; what the rest takes."""
        while num_bytes + num_more > self.max_bytes:
            if not self._oldest:
                num_bytes = self._count()
                if not self._oldest:
                    break
                continue
            num_bytes -= self._removed(self._oldest.popleft())
        return num_bytes

    def _removed(self, file: _File) -> int:
        """Remove a file that was not used since the count; the bytes that this frees."""
        path = Path(file.path)
        try:
            if path.stat().st_mtime_ns != file.used_ns:
                return 0
        except FileNotFoundError:
            # another process made room with it, and counted that
            return 0
        path.unlink(missing_ok=True)
        self._on_remove(path)
        return file.num_bytes
