"""GET /chat/files/{conversation}/{digest}: a picture of one's own conversation, for the page that shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from mlx_manager.errors import MlxManagerError
from mlx_manager.ui.attachments import SHOWN_IMAGES

if TYPE_CHECKING:
    from mlx_manager.ui.console import Console

PATH = "/chat/files/{conversation}/{digest}"
_HEADERS = {
    # somebody's file, opened by itself, is no page of ours
    "content-security-policy": "default-src 'none'; sandbox",
    "x-content-type-options": "nosniff",
    "cache-control": "private, max-age=31536000, immutable",
}


async def chat_file(request: Request) -> Response:
    """The content of the file; 404 where there is none of this account."""
    console: Console = request.state.console
    viewer = await console.find_viewer(request)
    if viewer is None:
        return PlainTextResponse("Log in first.", 403)
    try:
        conversation = await console.chats.open(viewer, request.path_params["conversation"])
    except MlxManagerError as error:
        return PlainTextResponse(error.message, error.status)
    digest = request.path_params["digest"]
    files = (file for turn in conversation.turns() for file in turn.attachments)
    found = next((file for file in files if file.digest == digest), None)
    if found is None or found.media_type not in SHOWN_IMAGES:
        return PlainTextResponse("There is no such picture.", 404)
    return Response(found.content, media_type=found.media_type, headers=_HEADERS)
