"""The downloads of one server: queued, run in processes of their own, paused, resumed, remembered between starts."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from mlx_manager.errors import Conflict, DownloadFailed, ErrorInfo, InvalidRequest, ModelNotFound
from mlx_manager.hub.access import HubAccess
from mlx_manager.hub.download import DownloadRequest, DownloadState, DownloadStatus, FetchLine, FetchOrder
from mlx_manager.hub.hub_cache import discard_unfinished

_logger = logging.getLogger("mlx_manager.hub")
_SPEED_WINDOW_S = 5.0
_RUNNING = (DownloadState.QUEUED, DownloadState.DOWNLOADING)
_RESUMABLE = (DownloadState.PAUSED, DownloadState.FAILED, DownloadState.CANCELLED)
_ENVIRONMENT = {
    # Xet writes each file anew under a name of its own and removes it when it is interrupted, so that a pause would
    # lose what is there; plain HTTP gives every file from any byte on.
    "HF_HUB_DISABLE_XET": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}


class _Record(msgspec.Struct, kw_only=True):
    """What is remembered of one download."""

    id: str
    request: DownloadRequest
    state: DownloadState
    added_unix_s: int
    done_bytes: int = 0
    total_bytes: int = 0
    path: str | None = None
    error: ErrorInfo | None = None


@dataclass
class _Run:
    """The process of a download that is running."""

    process: asyncio.subprocess.Process | None = None
    task: asyncio.Task[None] | None = None
    stage: str = "starting"
    samples: deque[tuple[float, int]] = field(default_factory=deque)
    """(monotonic seconds, bytes that were there) of the last seconds."""

    def note(self, line: FetchLine) -> None:
        """Take in how far the process is."""
        now_s = time.monotonic()
        self.stage = line.stage
        self.samples.append((now_s, line.done_bytes))
        while now_s - self.samples[0][0] > _SPEED_WINDOW_S:
            self.samples.popleft()

    @property
    def bytes_per_s(self) -> float:
        """Over the last seconds."""
        if len(self.samples) < 2:
            return 0.0
        (began_s, began_bytes), (_, last_bytes) = self.samples[0], self.samples[-1]
        return max(0.0, (last_bytes - began_bytes) / max(time.monotonic() - began_s, 0.001))


class Downloads:
    """Make it, `start` and `close` it inside one running event loop; all calls come from there.

    `state_file` keeps the list between starts; None keeps it nowhere. Bytes that have arrived are kept either way, in
    the cache, where every later download of the model finds them. `on_done` is told the folder of each finished model.
    """

    def __init__(
        self,
        access: HubAccess,
        *,
        state_file: Path | None,
        max_at_once: int = 2,
        on_done: Callable[[str], None] = lambda folder: None,
    ) -> None:
        self._access = access
        self._state_file = state_file
        self._max_at_once = max_at_once
        self._on_done = on_done
        self._records: dict[str, _Record] = {}
        self._runs: dict[str, _Run] = {}
        self._is_closing = False

    async def start(self) -> None:
        """Go on with what the last server was interrupted in. A download that was paused stays so."""
        for record in await asyncio.to_thread(self._read):
            if record.state is DownloadState.DOWNLOADING:
                record.state = DownloadState.QUEUED
            self._records[record.id] = record
        self._begin_next()

    async def close(self) -> None:
        """Stop all processes; the list remembers what was running, for the next start."""
        self._is_closing = True
        for id_ in list(self._runs):
            await self._stop(id_)
        self._save()

    def statuses(self) -> list[DownloadStatus]:
        """All downloads that are remembered, the latest first."""
        return [self._status(record) for record in reversed(self._records.values())]

    def status(self, id_: str) -> DownloadStatus:
        """One download. Raises `ModelNotFound` for an unknown id."""
        return self._status(self._find(id_))

    def add(self, request: DownloadRequest) -> DownloadStatus:
        """Queue a download. One of the same model that is not done is resumed instead. Raises `InvalidRequest`."""
        _check_name(request.model)
        for record in self._records.values():
            if record.request == request and record.state is not DownloadState.DONE:
                return self._status(record) if record.state in _RUNNING else self.resume(record.id)
        record = _Record(
            id=secrets.token_hex(6), request=request, state=DownloadState.QUEUED, added_unix_s=int(time.time())
        )
        self._records[record.id] = record
        self._begin_next()
        return self._status(record)

    async def pause(self, id_: str) -> DownloadStatus:
        """Stop a download, keep what is there, let the next one begin. Raises `ModelNotFound`, `Conflict`."""
        record = self._find(id_)
        if record.state not in _RUNNING:
            raise Conflict(
                f"The download of {record.request.model} is {record.state.value}: only a running one pauses."
            )
        record.state = DownloadState.PAUSED
        await self._stop(id_)
        self._begin_next()
        return self._status(record)

    def resume(self, id_: str) -> DownloadStatus:
        """Queue a paused, failed or cancelled download again. Raises `ModelNotFound`, `Conflict`."""
        record = self._find(id_)
        if record.state not in _RESUMABLE:
            raise Conflict(f"The download of {record.request.model} is {record.state.value} already.")
        record.state = DownloadState.QUEUED
        record.error = None
        self._begin_next()
        return self._status(record)

    async def cancel(self, id_: str) -> DownloadStatus:
        """Stop a download and remove its unfinished files. Raises `ModelNotFound`, `Conflict`."""
        record = self._find(id_)
        if record.state is DownloadState.DONE:
            raise Conflict(f"{record.request.model} is complete. Delete the model instead.")
        record.state = DownloadState.CANCELLED
        record.error = None
        record.done_bytes = 0
        await self._stop(id_)
        await asyncio.to_thread(discard_unfinished, self._access, record.request.model)
        self._begin_next()
        return self._status(record)

    def forget(self, id_: str) -> None:
        """Take a download that is over, or paused, off the list. Raises `ModelNotFound`, `Conflict`."""
        record = self._find(id_)
        if record.state in _RUNNING:
            raise Conflict(f"The download of {record.request.model} is {record.state.value}: cancel it first.")
        del self._records[id_]
        self._save()

    async def wait(self, id_: str) -> None:
        """Until the download's process is over, however it ended; at once where none runs."""
        run = self._runs.get(id_)
        if run is not None and run.task is not None:
            await asyncio.wait([run.task])

    def _begin_next(self) -> None:
        """Start queued downloads, oldest first, as many as may run, and remember how everything stands."""
        for record in self._records.values():
            if len(self._runs) >= self._max_at_once or self._is_closing:
                break
            if record.state is DownloadState.QUEUED and record.id not in self._runs:
                record.state = DownloadState.DOWNLOADING
                run = self._runs[record.id] = _Run()
                run.task = asyncio.create_task(self._run(record, run))
        self._save()

    async def _run(self, record: _Record, run: _Run) -> None:
        """One process from its start to its end. The state is taken from its last line, unless someone stopped it."""
        last = FetchLine()
        complaint = ""
        try:
            process = run.process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "mlx_manager.hub.fetch"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=os.environ | _ENVIRONMENT,
                # Ctrl-C in a terminal is for whoever started this: it decides what becomes of the download
                start_new_session=True,
            )
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stderr is not None
            if record.state is not DownloadState.DOWNLOADING or self._is_closing:
                process.kill()
            order = FetchOrder(request=record.request, access=self._access)
            process.stdin.write(msgspec.json.encode(order) + b"\n")
            errors = asyncio.create_task(process.stderr.read())
            async for raw in process.stdout:
                last = msgspec.json.decode(raw, type=FetchLine)
                if last.path is None and last.error is None:
                    run.note(last)
                if last.total_bytes:
                    record.done_bytes, record.total_bytes = last.done_bytes, last.total_bytes
            complaint = (await errors).decode(errors="replace")
            await process.wait()
            process.stdin.close()
        finally:
            del self._runs[record.id]
        if record.state is DownloadState.DOWNLOADING and not self._is_closing:
            self._conclude(record, last, complaint)
            self._begin_next()

    def _conclude(self, record: _Record, last: FetchLine, complaint: str) -> None:
        """What the process's last line says has come of the download."""
        name = record.request.model
        if last.path is not None:
            record.state, record.path, record.done_bytes = DownloadState.DONE, last.path, record.total_bytes
            _logger.info("downloaded %s to %s", name, last.path)
            self._on_done(last.path)
            return
        last_words = complaint.strip().splitlines()[-1:] or ["it said nothing"]
        record.state = DownloadState.FAILED
        record.error = last.error or DownloadFailed(f"The downloading process died: {last_words[0]}").as_info()
        _logger.info("the download of %s failed: %s", name, record.error.message)

    async def _stop(self, id_: str) -> None:
        """End the process of a download, if it has one, and wait until it is gone."""
        run = self._runs.get(id_)
        if run is None or run.task is None:
            return
        if run.process is not None and run.process.returncode is None:
            run.process.kill()
        await asyncio.wait([run.task])

    def _find(self, id_: str) -> _Record:
        if id_ not in self._records:
            raise ModelNotFound(f"There is no download {id_[:40]!r}. GET /admin/downloads lists them.")
        return self._records[id_]

    def _status(self, record: _Record) -> DownloadStatus:
        run = self._runs.get(record.id) if record.state is DownloadState.DOWNLOADING else None
        speed = run.bytes_per_s if run else 0.0
        return DownloadStatus(
            id=record.id,
            model=record.request.model,
            revision=record.request.revision,
            include=record.request.include,
            state=record.state,
            stage=run.stage if run else "",
            done_bytes=record.done_bytes,
            total_bytes=record.total_bytes,
            bytes_per_s=round(speed, 1),
            remaining_s=round((record.total_bytes - record.done_bytes) / speed, 1) if speed else None,
            added_unix_s=record.added_unix_s,
            path=record.path,
            error=record.error,
        )

    def _read(self) -> list[_Record]:
        if self._state_file is None or not self._state_file.exists():
            return []
        try:
            return msgspec.json.decode(self._state_file.read_bytes(), type=list[_Record])
        except (msgspec.MsgspecError, OSError) as error:
            _logger.warning("the list of downloads in %s is not readable, and begun anew: %s", self._state_file, error)
            return []

    def _save(self) -> None:
        """Write the list; only when a state changed, never per byte."""
        if self._state_file is None:
            return
        self._state_file.parent.mkdir(parents=True, exist_ok=True)
        written = self._state_file.with_suffix(".tmp")
        written.write_bytes(msgspec.json.encode(list(self._records.values())))
        os.replace(written, self._state_file)


def _check_name(model: str) -> None:
    if not model or model.count("/") > 1 or model.startswith("/") or model.endswith("/") or ".." in model:
        raise InvalidRequest(
            f"{model!r} is not the name of a model on the hub: it has the form org/name.", param="model"
        )
