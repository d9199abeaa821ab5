"""The model hub under /admin: searching it, one model of it, downloads, and deleting what is on the disk."""

from __future__ import annotations

from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from mlx_manager.api.body import read_json_body
from mlx_manager.api.json_answer import json_answer
from mlx_manager.api.state import HttpOptionsDep, HubDep, ModelsDep
from mlx_manager.api.who import AccessDep, AdminDep, admit_admin
from mlx_manager.catalog import ModelKind
from mlx_manager.errors import InvalidRequest
from mlx_manager.hub.download import DownloadRequest, DownloadStatus
from mlx_manager.hub.search import SearchQuery, Sort
from mlx_manager.pool import refuse_loaded
from mlx_manager.storage.store import Change

router = APIRouter(prefix="/admin", tags=["hub"], dependencies=[Depends(admit_admin)])


class DownloadList(msgspec.Struct, frozen=True, kw_only=True):
    """The body of GET /admin/downloads."""

    downloads: list[DownloadStatus]


class Deleted(msgspec.Struct, frozen=True, kw_only=True):
    """The body of a deletion's answer."""

    id: str
    deleted: bool = True
    freed_bytes: int


@router.get("/hub/search")
async def search_hub(  # noqa: PLR0913
    hub: HubDep,
    *,
    query: str = "",
    author: str | None = None,
    kind: ModelKind | None = None,
    num_parameters: str | None = None,
    sort: Sort = "downloads",
    limit: Annotated[int, Query(ge=1, le=200)] = 20,
    offset: Annotated[int, Query(ge=0, le=10_000)] = 0,
    any_format: bool = False,
) -> Response:
    """Search the hub for models, by default for those made for MLX."""
    asked = SearchQuery(
        text=query,
        author=author,
        kind=kind,
        is_any_format=any_format,
        num_parameters=num_parameters,
        sort=sort,
        limit=limit,
        offset=offset,
    )
    return json_answer(await hub.search(asked))


@router.get("/hub/models/{model_id:path}")
async def show_model(model_id: str, hub: HubDep, revision: str | None = None) -> Response:
    """A model's card, its characteristics, and whether it fits, also before it is downloaded."""
    return json_answer(await hub.show(model_id, revision))


@router.delete("/hub/models/{model_id:path}")
async def delete_model(model_id: str, hub: HubDep, models: ModelsDep, access: AccessDep, admin: AdminDep) -> Response:
    """Delete a model from home or from the cache of the hub, unless it is loaded."""
    refuse_loaded(models, model_id, "deleted")
    found = await hub.delete(model_id)
    await access.store.note(Change(actor=admin.label, action="model.delete", subject=model_id))
    return json_answer(Deleted(id=model_id, freed_bytes=found.size_bytes))


@router.get("/downloads")
async def list_downloads(hub: HubDep) -> Response:
    """All downloads that are remembered, the latest first."""
    return json_answer(DownloadList(downloads=hub.downloads.statuses()))


@router.post("/downloads")
async def begin_download(
    request: Request, hub: HubDep, http: HttpOptionsDep, access: AccessDep, admin: AdminDep
) -> Response:
    """Download a model; one that was paused or has failed goes on where it was."""
    body = await read_json_body(request, http.max_body_bytes)
    try:
        asked = msgspec.json.decode(body, type=DownloadRequest)
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"The body is not a download: {error}. It looks like: {_EXAMPLE}") from None
    status = hub.downloads.add(asked)
    await access.store.note(Change(actor=admin.label, action="model.download", subject=asked.model))
    return json_answer(status, 202)


_EXAMPLE = '{"model": "org/name", "revision": "main", "include": ["*.json"]}; revision and include may be left out.'


@router.get("/downloads/{download_id}")
async def show_download(download_id: str, hub: HubDep) -> Response:
    """How one download stands."""
    return json_answer(hub.downloads.status(download_id))


@router.post("/downloads/{download_id}/pause")
async def pause_download(download_id: str, hub: HubDep) -> Response:
    """Stop a download and keep what has arrived."""
    return json_answer(await hub.downloads.pause(download_id))


@router.post("/downloads/{download_id}/resume")
async def resume_download(download_id: str, hub: HubDep) -> Response:
    """Go on with a download that was paused, has failed or was cancelled."""
    return json_answer(hub.downloads.resume(download_id), 202)


@router.post("/downloads/{download_id}/cancel")
async def cancel_download(download_id: str, hub: HubDep) -> Response:
    """Stop a download and remove what has arrived of it."""
    return json_answer(await hub.downloads.cancel(download_id))


@router.delete("/downloads/{download_id}")
async def forget_download(download_id: str, hub: HubDep) -> Response:
    """Take a download that is over or paused off the list."""
    hub.downloads.forget(download_id)
    return Response(status_code=204)
