"""Single blocks of a message as `ir.Content`: text, pictures, documents, and calls of the provider's own tools."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence

from mlx_manager.errors import InvalidRequest, UnsupportedParameter
from mlx_manager.ir import Content, DocumentContent, ImageContent, TextContent
from mlx_manager.protocols.anthropic.cache_marks import with_mark
from mlx_manager.protocols.anthropic.wire import (
    Block,
    DocumentBlock,
    ImageBlock,
    Marked,
    OtherBlock,
    SearchResultBlock,
    TextBlock,
)
from mlx_manager.protocols.documents import PDF, parse_document_url, parse_pdf

_KNOWN = "text, image, document, search_result, thinking, tool_use, tool_result"
_SEALED = ("encrypted_content", "encrypted_index", "encrypted_stdout", "signature", "cache_control")


def parse_content(block: Block, at: str) -> tuple[Content, ...]:
    """What a block adds to the content of its message. Raises `InvalidRequest` for one that adds nothing anywhere."""
    pieces = _parse_content(block, at)
    return with_mark(pieces, block.cache_control) if isinstance(block, Marked) else pieces


def _parse_content(block: Block, at: str) -> tuple[Content, ...]:
    match block:
        case TextBlock(text=text):
            return (TextContent(text),) if text else ()
        case ImageBlock():
            return (_parse_image(block, f"{at}.source"),)
        case DocumentBlock():
            return _parse_document(block, at)
        case SearchResultBlock():
            text = "\n".join(piece.text for piece in block.content)
            return (TextContent(f"{block.title} ({block.source})\n{text}"),)
        case OtherBlock():
            return (TextContent(_tell(block, at)),)
        case _:
            raise InvalidRequest(f"{at} cannot be of type {block.type} here.", param=f"{at}.type")


def _parse_image(block: ImageBlock, at: str) -> ImageContent:
    source = block.source
    if source.type == "url" and source.url:
        return ImageContent(url=source.url)
    if source.type == "base64" and source.data is not None:
        return ImageContent(data=_decode(source.data, f"{at}.data"), media_type=source.media_type or "")
    if source.type in ("url", "base64"):
        name = "url" if source.type == "url" else "data"
        raise InvalidRequest(f"{at}.{name} is required with the type {source.type}.", param=f"{at}.{name}")
    raise UnsupportedParameter(
        f"{at}.type {source.type[:40]!r} is not supported: send the picture itself, as base64.", param=f"{at}.type"
    )


def _parse_document(block: DocumentBlock, at: str) -> tuple[Content, ...]:
    source, at = block.source, f"{at}.source"
    heading = " ".join(part for part in (block.title, block.context) if part)
    before = (TextContent(heading),) if heading else ()
    if source.type == "text" and source.data is not None:
        return (*before, TextContent(source.data))
    if source.type == "content" and source.content is not None:
        return (*before, *parse_contents(source.content, f"{at}.content"))
    document: DocumentContent | None = None
    if source.type == "base64" and source.media_type == PDF and source.data is not None:
        document = parse_pdf(source.data, block.title or "", at=f"{at}.data")
    elif source.type == "url" and source.url is not None:
        document = parse_document_url(source.url, block.title or "", at=f"{at}.url")
    if document is not None:
        return (*((TextContent(block.context),) if block.context else ()), document)
    if source.type in ("text", "content", "url") or (source.type == "base64" and source.media_type == PDF):
        name = source.type if source.type in ("content", "url") else "data"
        raise InvalidRequest(f"{at}.{name} is required with the type {source.type}.", param=f"{at}.{name}")
    what = source.media_type or source.type
    raise UnsupportedParameter(
        f"{at} of type {what[:40]!r} is not supported: send a PDF as base64 or by its https address, or text.",
        param=f"{at}.type",
    )


def parse_contents(content: str | Sequence[Block], at: str) -> tuple[Content, ...]:
    """Content in either of its forms. The same text is the same content in both."""
    if isinstance(content, str):
        return (TextContent(content),) if content else ()
    return tuple(piece for index, block in enumerate(content) for piece in parse_content(block, f"{at}[{index}]"))


def _tell(block: OtherBlock, at: str) -> str:
    """What a tool of the provider's was asked and said, in an answer from there: the model is told it as JSON."""
    fields = block.model_extra or {}
    if block.type == "compaction" and isinstance(fields.get("content"), str):
        return str(fields["content"])
    if block.type in ("server_tool_use", "mcp_tool_use") or block.type.endswith("_tool_result"):
        return json.dumps({"type": block.type} | _unsealed(fields), ensure_ascii=False)
    raise InvalidRequest(
        f"{at}.type cannot be {block.type[:40]!r}: send blocks of the types {_KNOWN}.", param=f"{at}.type"
    )


def _unsealed(fields: dict[str, object]) -> dict[str, object]:
    """The fields without what only the provider can read."""
    kept: dict[str, object] = {}
    for name, value in fields.items():
        if name in _SEALED:
            continue
        if isinstance(value, dict):
            kept[name] = _unsealed(value)
        elif isinstance(value, list):
            kept[name] = [_unsealed(entry) if isinstance(entry, dict) else entry for entry in value]
        else:
            kept[name] = value
    return kept


def _decode(data: str, at: str) -> bytes:
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidRequest(f"{at} is not base64: {error}. Send the encoded file.", param=at) from None
