"""Downloads as plain values: what is asked for, how one stands, and what the fetching process is told and tells."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from mlx_manager.errors import ErrorInfo
from mlx_manager.hub.access import HubAccess


class DownloadRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model to be fetched into the shared cache."""

    model: str
    """org/name."""
    revision: str | None = None
    """A branch, a tag or a commit; None is the default branch."""
    include: tuple[str, ...] = ()
    """Patterns of file names; none: what serving the model takes."""


class DownloadState(StrEnum):
    """Where a download stands."""

    QUEUED = "queued"
    DOWNLOADING = "downloading"
    PAUSED = "paused"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class DownloadStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How one download stands."""

    id: str
    model: str
    revision: str | None
    include: tuple[str, ...]
    state: DownloadState
    stage: str
    """What is being done, for people; empty unless it is downloading."""
    done_bytes: int
    total_bytes: int
    """0 until the hub has said."""
    bytes_per_s: float
    """Over the last seconds; 0 unless it is downloading."""
    remaining_s: float | None
    """None where the speed does not tell."""
    added_unix_s: int
    path: str | None
    """The model's folder, once done."""
    error: ErrorInfo | None


class FetchOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What the fetching process reads from its standard input, as one line of JSON."""

    request: DownloadRequest
    access: HubAccess


class FetchLine(msgspec.Struct, frozen=True, kw_only=True):
    """One line that the fetching process prints."""

    stage: str = ""
    done_bytes: int = 0
    total_bytes: int = 0
    path: str | None = None
    """The model's folder; the download is complete."""
    error: ErrorInfo | None = None
