"""What `pull` does: one download in a process of its own, watched with a bar until it ends."""

from __future__ import annotations

import asyncio
import shlex
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from mlx_manager.catalog import Settings, render_size
from mlx_manager.cli.models import render_count
from mlx_manager.errors import InvalidRequest, MlxManagerError
from mlx_manager.hub.access import default_access
from mlx_manager.hub.download import DownloadRequest, DownloadState, DownloadStatus
from mlx_manager.hub.downloads import Downloads
from mlx_manager.hub.model_folder import read_entry

_WATCH_S = 0.1
_INTERRUPTED = 130


def pull_model(settings: Settings, name: str, revision: str | None, include: tuple[str, ...]) -> None:
    """Download until it is complete. Raises `MlxManagerError`; an interrupt says how to go on and exits with 130."""
    request = DownloadRequest(model=name, revision=revision, include=include)
    try:
        status = asyncio.run(_watch(Downloads(default_access(settings.hf_token), state_file=None), request))
    except KeyboardInterrupt:
        again = ["mlx-manager", "pull", name, *(["--revision", revision] if revision else [])]
        for pattern in include:
            again += ["--include", pattern]
        print(f"\nPaused: what has arrived is kept. Go on with: {shlex.join(again)}", file=sys.stderr)
        raise typer.Exit(_INTERRUPTED) from None
    if status.error is not None:
        raise MlxManagerError.from_info(status.error)
    _say_what_came(Path(str(status.path)), name)


async def _watch(downloads: Downloads, request: DownloadRequest) -> DownloadStatus:
    await downloads.start()
    try:
        id_ = downloads.add(request).id
        with DownloadBar(request.model) as bar:
            while (status := downloads.status(id_)).state in (DownloadState.QUEUED, DownloadState.DOWNLOADING):
                bar.show(status)
                await asyncio.sleep(_WATCH_S)
            bar.show(status)
        return status
    finally:
        await downloads.close()


def _say_what_came(folder: Path, name: str) -> None:
    try:
        entry = read_entry(folder, name)
    except InvalidRequest:
        # single files were asked for: no model yet
        print(f"Downloaded to {folder}")
        return
    parameters = f"{render_count(entry.num_parameters)} parameters, " if entry.num_parameters else ""
    size = render_size(entry.size_bytes)
    print(f"Downloaded {name} ({entry.architecture}, {parameters}{entry.quantization}, {size})")
    print(f"Serve it: mlx-manager serve --model {name}")


class DownloadBar:
    """On standard error: a moving bar where someone watches, a line each tenth where the output goes to a file."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._said = ""

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                DownloadColumn(binary_units=True),
                TransferSpeedColumn(),
                TimeRemainingColumn(),
            )
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task(self._name, total=None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, status: DownloadStatus) -> None:
        """How far the download is."""
        if self._bar is not None:
            total = status.total_bytes or None
            stage = f"{self._name}: {status.stage}" if status.stage else self._name
            self._bar.update(self._task, description=stage, completed=status.done_bytes, total=total)
            return
        tenths = 10 * status.done_bytes // status.total_bytes * 10 if status.total_bytes else 0
        of = f" {tenths}% of {render_size(status.total_bytes)}" if status.total_bytes else ""
        said = f"{self._name}: {status.stage or status.state.value}{of}"
        if said != self._said:
            print(said, file=sys.stderr, flush=True)
        self._said = said
