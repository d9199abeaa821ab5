"""What a tool answered as text for a model: bounded, and what is no text is named."""

from __future__ import annotations

import json

from mcp.types import (
    AudioContent,
    CallToolResult,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextContent,
    TextResourceContents,
)

from mlx_manager.tools.toolbox import ToolReply

_MOST_CHARS = 60_000


def render_reply(result: CallToolResult) -> ToolReply:
    """All text of `result`; its structured form where there is no text."""
    text = "\n".join(_render(piece) for piece in result.content)
    if not text and result.structured_content is not None:
        text = json.dumps(result.structured_content, ensure_ascii=False)
    if len(text) > _MOST_CHARS:
        text = f"{text[:_MOST_CHARS]}\n(cut off here: {len(text) - _MOST_CHARS} more characters)"
    return ToolReply(text=text, is_error=result.is_error)


def _render(piece: object) -> str:
    match piece:
        case TextContent(text=text):
            return text
        case EmbeddedResource(resource=TextResourceContents(text=text)):
            return text
        case ImageContent(mime_type=kind) | AudioContent(mime_type=kind):
            return f"({kind}, which is not passed on)"
        case EmbeddedResource(resource=resource):
            return f"({resource.mime_type or 'a file'} {resource.uri}, which is not passed on)"
        case ResourceLink(uri=uri):
            return str(uri)
        case _:
            return "(something that is not passed on)"
