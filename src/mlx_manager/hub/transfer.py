"""One file of a repository, fetched into the blobs of the cache: resumed, retried, checked.

The hub's client keeps nothing of a file that was cut short, and checks no hash: that much is done here. How the cache
is laid out stays its business.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import httpx2
from huggingface_hub.utils import hf_raise_for_status, http_stream_backoff  # type: ignore[attr-defined]

from mlx_manager.errors import DownloadFailed
from mlx_manager.hub.hub_cache import PARTIAL_SUFFIX
from mlx_manager.hub.repository import RepositoryFile

_CHUNK_BYTES = 1024**2
_TIMEOUT_S = 30.0
"""Silence of the hub that counts as a broken connection."""
_PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0, 8.0)
"""Before each new attempt after one that brought nothing; any byte begins the row anew."""
_MAX_COPIES = 2
"""How often a whole file is fetched whose content turns out wrong."""


class WrongContent(Exception):
    """What was fetched is not what the repository declares. The message says how."""


def fetch_blob(
    file: RepositoryFile, url: str, headers: Mapping[str, str], blobs: Path, count: Callable[[int], None]
) -> None:
    """Make `file` a checked blob in the folder `blobs`; whatever was fetched of it before is kept.

    `count` is told of bytes that are there now, negative ones when they had to be thrown away. Raises `DownloadFailed`
    when the content is wrong twice, else what the client raises.
    """
    blob = blobs / file.etag
    if blob.exists() and blob.stat().st_size == file.size_bytes:
        count(file.size_bytes)
        return
    blobs.mkdir(parents=True, exist_ok=True)
    partial = blobs / (file.etag + PARTIAL_SUFFIX)
    partial.touch()
    count(partial.stat().st_size)
    for num_copies in range(1, _MAX_COPIES + 1):
        try:
            _complete(partial, file, url, headers, count)
            _check(partial, file)
        except WrongContent as error:
            count(-partial.stat().st_size)
            partial.unlink()
            if num_copies == _MAX_COPIES:
                raise DownloadFailed(
                    f"{file.path} arrived wrong {_MAX_COPIES} times: {error}. The copy on the hub may be damaged; try "
                    "again later."
                ) from None
            partial.touch()
        else:
            os.replace(partial, blob)
            return


def _complete(
    partial: Path, file: RepositoryFile, url: str, headers: Mapping[str, str], count: Callable[[int], None]
) -> None:
    """Fetch what `partial` lacks, through broken connections. Raises `WrongContent` and what the client raises."""
    num_failures = 0
    while (had_bytes := partial.stat().st_size) < file.size_bytes:
        try:
            _append(partial, file, url, headers, count)
        except httpx2.TransportError:
            num_failures = num_failures + 1 if partial.stat().st_size <= had_bytes else 1
            if num_failures > len(_PAUSES_S):
                raise
            time.sleep(_PAUSES_S[num_failures - 1])
    if had_bytes > file.size_bytes:
        raise WrongContent(f"it has {had_bytes} bytes instead of {file.size_bytes}")


def _append(
    partial: Path, file: RepositoryFile, url: str, headers: Mapping[str, str], count: Callable[[int], None]
) -> None:
    """One request for the rest of the file."""
    num_bytes = partial.stat().st_size
    asked = {**headers, "Accept-Encoding": "identity", **({"Range": f"bytes={num_bytes}-"} if num_bytes else {})}
    # the client waits as a 429's Retry-After says, and retries what the hub's own troubles are
    with http_stream_backoff(
        "GET", url, headers=asked, timeout=_TIMEOUT_S, retry_on_exceptions=(), max_retries=4
    ) as response:
        if response.status_code == 416:
            raise WrongContent(f"the hub has nothing after its first {num_bytes} bytes")
        hf_raise_for_status(response)
        with partial.open("ab") as stream:
            if num_bytes and response.status_code != 206:
                count(-num_bytes)
                stream.truncate(0)
                num_bytes = 0
            # in whatever pieces arrive: a full chunk that is waited for would be lost with its connection
            for chunk in response.iter_bytes():
                stream.write(chunk)
                stream.flush()
                count(len(chunk))
                num_bytes += len(chunk)
                if num_bytes > file.size_bytes:
                    raise WrongContent(f"it has more than its {file.size_bytes} bytes")
    if num_bytes < file.size_bytes:
        raise WrongContent(f"it ends after {num_bytes} of its {file.size_bytes} bytes")


def _check(partial: Path, file: RepositoryFile) -> None:
    """Compare what is on the disk with the hash that the repository declares."""
    with partial.open("rb") as stream:
        if file.sha256 is not None:
            found, declared = hashlib.file_digest(stream, "sha256").hexdigest(), file.sha256
        else:
            git_object = hashlib.sha1(b"blob %d\0" % file.size_bytes, usedforsecurity=False)
            while chunk := stream.read(_CHUNK_BYTES):
                git_object.update(chunk)
            found, declared = git_object.hexdigest(), file.blob_id
    if found != declared:
        raise WrongContent(f"its checksum is {found[:12]}… instead of {declared[:12]}…")
