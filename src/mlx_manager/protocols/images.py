"""Pictures as the HTTP dialects send them, in data URLs or by address, to `ir.ImageContent` and back."""

from __future__ import annotations

from mlx_manager.errors import InvalidRequest
from mlx_manager.ir import ImageContent
from mlx_manager.protocols.data_urls import decode_base64, encode_base64, parse_url

_DETAILS = ("auto", "low", "high", "original")
_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"RIFF", "image/webp"),
)
"""How the files begin that every provider takes."""


def parse_image_url(url: str, detail: str | None, *, at: str) -> ImageContent:
    """The picture that `url` holds (`data:image/png;base64,…`) or names (`https://…`). `at` is the field, for errors.

    Raises `InvalidRequest`, and `UnsupportedParameter` for other schemes.
    """
    if detail is not None and detail not in _DETAILS:
        field = f"{at.removesuffix('.url')}.detail"
        raise InvalidRequest(f"{field} cannot be {detail[:40]!r}: send one of {', '.join(_DETAILS)}.", param=field)
    media_type, content = parse_url(url, kind="image", example="image/png", at=at)
    if content is None:
        return ImageContent(url=url, detail=detail)
    return ImageContent(data=content, media_type=media_type, detail=detail)


def parse_image_data(text: str, media_type: str, *, at: str) -> ImageContent:
    """The picture whose file is written as base64 in `text`. Raises `InvalidRequest`."""
    return ImageContent(data=decode_base64(text, at), media_type=media_type)


def render_media_type(image: ImageContent) -> str:
    """What its file is, by how it begins: providers refuse one that is called something else."""
    found = (media_type for signature, media_type in _SIGNATURES if image.data.startswith(signature))
    return next(found, image.media_type or "image/png")


def render_image_url(image: ImageContent) -> str:
    """The data URL that holds the picture, or its address."""
    return f"data:{render_media_type(image)};base64,{encode_base64(image.data)}" if image.data else image.url
