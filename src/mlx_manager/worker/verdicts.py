"""Verdicts of the load-time check, kept between loads: checked once per version of everything that decides."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import msgspec

from mlx_manager import __version__
from mlx_manager.worker.device import device_name, package_versions

_NAME_LENGTH = 32


class StoredVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """How a model is to be served, as it was found out once."""

    model: str
    """Its name at the time, for people."""
    is_paged: bool
    attention: str
    shares_prefixes: bool
    """Whether rows with one beginning attend faster when they read it together."""
    reason: str


class VerdictStore:
    """One small JSON file per verdict in `folder`. A file that cannot be read counts as none."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, key: str) -> StoredVerdict | None:
        """The verdict kept under `key`, if there is one."""
        try:
            return msgspec.json.decode((self._folder / f"{key}.json").read_bytes(), type=StoredVerdict)
        except (FileNotFoundError, msgspec.DecodeError):
            return None

    def put(self, key: str, verdict: StoredVerdict) -> None:
        """Keep a verdict; readers see the old file or the new one, never a part."""
        self._folder.mkdir(parents=True, exist_ok=True)
        partial = self._folder / f".{key}.{os.getpid()}"
        partial.write_bytes(msgspec.json.format(msgspec.json.encode(verdict)))
        partial.replace(self._folder / f"{key}.json")


def verdict_key(model_folder: Path, dtype: str) -> str:
    """A digest of what the verdict depends on: the model's files, the type it runs in, library versions and the device.

    Of the weights it takes names, sizes and times of change: hashing gigabytes would cost more than checking again.
    """
    digest = hashlib.blake2b(digest_size=_NAME_LENGTH // 2)
    parts = [__version__, dtype, device_name(), *(f"{k}={v}" for k, v in sorted(package_versions().items()))]
    for path in sorted(model_folder.glob("*.safetensors")):
        stat = path.stat()
        parts.append(f"{path.name}:{stat.st_size}:{stat.st_mtime_ns}")
    digest.update("\0".join(parts).encode())
    digest.update((model_folder / "config.json").read_bytes())
    return digest.hexdigest()
