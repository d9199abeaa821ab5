"""The process that downloads one model: `python -m mlx_manager.hub.fetch`, told what by a line on standard input.

It is a process so that a pause or a cancel stops it at once, whatever it is doing, and so that nothing of it stays in
the server's memory. It ends when its standard input does, and so never outlives whoever started it.
"""

from __future__ import annotations

import fcntl
import glob
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path

import msgspec
from huggingface_hub import HfApi, hf_hub_url, snapshot_download
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

from mlx_manager.catalog import render_size
from mlx_manager.errors import Conflict, DownloadFailed, HubUnavailable, MlxManagerError, NotEnoughDisk
from mlx_manager.hub.access import HubAccess
from mlx_manager.hub.download import DownloadRequest, FetchLine, FetchOrder
from mlx_manager.hub.hub_cache import PARTIAL_SUFFIX
from mlx_manager.hub.refusals import CLIENT_ERRORS, translate
from mlx_manager.hub.repository import RepositoryFile, choose_files, repository_files
from mlx_manager.hub.transfer import fetch_blob

_NUM_FILES_AT_ONCE = 4
_REPORT_S = 0.2
_API_TIMEOUT_S = 30.0
_KEPT_FREE_BYTES = 256 * 1024**2
"""A download leaves this much of the disk free."""
_MAX_ATTEMPTS = 5
_MAX_WAIT_S = 300.0
"""A hub that wants to be left alone for longer is not waited for."""


class Stopped(Exception):
    """Another file of the same model has failed."""


class Progress:
    """Bytes that are there, counted by several threads, printed by one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = FetchLine()
        self._is_stopped = False
        self.stage = "asking the hub"
        self.done_bytes = 0
        self.total_bytes = 0

    def count(self, num_bytes: int) -> None:
        """So many more bytes are there. Raises `Stopped` once nobody wants them any more."""
        with self._lock:
            self.done_bytes += num_bytes
        if self._is_stopped:
            raise Stopped

    def stop(self) -> None:
        """End the transfers that still run."""
        self._is_stopped = True

    def report(self) -> None:
        """Print a line, where anything changed."""
        line = FetchLine(stage=self.stage, done_bytes=self.done_bytes, total_bytes=self.total_bytes)
        if line != self._last:
            self._last = line
            say(line)


def main() -> int:
    """Fetch the model, printing a line of JSON whenever something changed. The exit code is 0 when it is there."""
    order = msgspec.json.decode(sys.stdin.buffer.readline(), type=FetchOrder)
    threading.Thread(target=_end_with_input, daemon=True).start()
    try:
        with sole_fetcher(order.access, order.request.model):
            folder = fetch(order.request, order.access, Progress())
    except MlxManagerError as error:
        say(FetchLine(error=error.as_info()))
        return 1
    say(FetchLine(path=str(folder)))
    return 0


def fetch(request: DownloadRequest, access: HubAccess, progress: Progress) -> Path:
    """Bring the model into the cache and return its folder. Raises `MlxManagerError`.

    A hub that is busy is waited for, as long as it says; a model that changes meanwhile is fetched anew.
    """
    for _ in range(_MAX_ATTEMPTS):
        try:
            folder = _bring(request, access, progress)
        except CLIENT_ERRORS as error:
            refusal = translate(error, request.model, access)
            if refusal.retry_after_s is None or refusal.retry_after_s > _MAX_WAIT_S:
                raise refusal from error
            progress.stage = f"the hub is busy: waiting {refusal.retry_after_s:.0f} s"
            progress.report()
            time.sleep(refusal.retry_after_s)
        else:
            if folder is not None:
                return folder
            progress.stage = "the model has changed meanwhile"
    raise HubUnavailable(f"{access.endpoint} was busy, or {request.model} changed, {_MAX_ATTEMPTS} times. Try later.")


def _bring(request: DownloadRequest, access: HubAccess, progress: Progress) -> Path | None:
    """One attempt: the model's folder, or None where it was committed to in the middle of it."""
    progress.report()
    api = HfApi(endpoint=access.endpoint, token=access.token)
    found = api.model_info(request.model, revision=request.revision, files_metadata=True, timeout=_API_TIMEOUT_S)
    files = choose_files(request.model, repository_files(found), request.include)
    blobs = access.repository_folder(request.model) / "blobs"
    progress.done_bytes = 0
    progress.total_bytes = sum(file.size_bytes for file in {file.etag: file for file in files}.values())
    check_disk(files, blobs, progress.total_bytes)
    progress.stage = "downloading"
    _fetch_blobs(request.model, str(found.sha), files, access, progress)
    progress.stage = "finishing"
    progress.report()
    # every blob is there by now: this links them as the cache wants it, and downloads nothing
    folder = Path(
        snapshot_download(
            request.model,
            revision=request.revision,
            cache_dir=access.cache,
            endpoint=access.endpoint,
            token=access.token,
            allow_patterns=[glob.escape(file.path) for file in files],
        )
    )
    if folder.name != found.sha:
        return None
    missing = [file.path for file in files if not (folder / file.path).exists()]
    if missing:
        raise DownloadFailed(f"{request.model} is incomplete: {', '.join(missing)} did not arrive. Try again.")
    return folder


def check_disk(files: Sequence[RepositoryFile], blobs: Path, total_bytes: int) -> None:
    """Raises `NotEnoughDisk` unless what is missing of `files` fits beside what is to stay free."""
    existing = next(folder for folder in (blobs, *blobs.parents) if folder.exists())
    free_bytes = shutil.disk_usage(existing).free
    there = {file.etag: max(_size(blobs / file.etag), _size(blobs / (file.etag + PARTIAL_SUFFIX))) for file in files}
    needed_bytes = max(0, total_bytes - sum(there.values()))
    if needed_bytes + _KEPT_FREE_BYTES > free_bytes:
        raise NotEnoughDisk(
            f"The download needs {render_size(needed_bytes)} more, and {render_size(free_bytes)} are free in {existing}"
            f" ({render_size(_KEPT_FREE_BYTES)} of them stay free). Free some, or set HF_HOME to a larger disk."
        )


def say(line: FetchLine) -> None:
    """Print one line for whoever started this process."""
    sys.stdout.write(msgspec.json.encode(line).decode() + "\n")
    sys.stdout.flush()


@contextmanager
def sole_fetcher(access: HubAccess, model_id: str) -> Iterator[None]:
    """Hold the lock of the model's unfinished files. Raises `Conflict` where another process has it."""
    folder = access.cache_folder / ".locks" / access.repository_folder(model_id).name
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "mlx-manager.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(f"{model_id} is being downloaded by another process already.") from None
        yield


def _fetch_blobs(
    model_id: str, commit: str, files: Sequence[RepositoryFile], access: HubAccess, progress: Progress
) -> None:
    """Several files side by side, the largest first. The first error stops what has not begun, and is raised."""
    blobs = access.repository_folder(model_id) / "blobs"
    headers = build_hf_headers(token=access.token)
    distinct = {file.etag: file for file in files}
    with ThreadPoolExecutor(_NUM_FILES_AT_ONCE) as pool:
        waiting: set[Future[None]] = {
            pool.submit(
                fetch_blob,
                file,
                hf_hub_url(model_id, file.path, revision=commit, endpoint=access.endpoint),
                headers,
                blobs,
                progress.count,
            )
            for file in sorted(distinct.values(), key=lambda file: -file.size_bytes)
        }
        while waiting:
            done, waiting = wait(waiting, timeout=_REPORT_S, return_when=FIRST_EXCEPTION)
            progress.report()
            failed = next((future for future in done if future.exception() is not None), None)
            if failed is not None:
                pool.shutdown(wait=False, cancel_futures=True)
                progress.stop()
                failed.result()


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _end_with_input() -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    # with other threads in the middle of a transfer: what they have written is kept
    os._exit(130)


if __name__ == "__main__":
    sys.exit(main())
