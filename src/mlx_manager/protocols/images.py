"""Pictures as the HTTP dialects send them, in data URLs or by address, to `ir.ImageContent`."""

from __future__ import annotations

import base64
import binascii
import re

from mlx_manager.errors import InvalidRequest, UnsupportedParameter
from mlx_manager.ir import ImageContent

_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)?((?:;[\w.+-]+=[^;,]*)*)(;base64)?,", re.IGNORECASE | re.ASCII)
_MAX_URL_CHARS = 8192
_DETAILS = ("auto", "low", "high", "original")


def parse_image_url(url: str, detail: str | None, *, at: str) -> ImageContent:
    """The picture that `url` holds (`data:image/png;base64,…`) or names (`https://…`). `at` is the field, for errors.

    Raises `InvalidRequest`, and `UnsupportedParameter` for other schemes.
    """
    if detail is not None and detail not in _DETAILS:
        field = f"{at.removesuffix('.url')}.detail"
        raise InvalidRequest(f"{field} cannot be {detail[:40]!r}: send one of {', '.join(_DETAILS)}.", param=field)
    scheme = url[:8].partition(":")[0].lower()
    if scheme == "data":
        media_type, content = _parse_data_url(url, at)
        return ImageContent(data=content, media_type=media_type, detail=detail)
    if scheme == "https":
        if len(url) > _MAX_URL_CHARS:
            raise InvalidRequest(f"{at} has {len(url)} characters: an address has at most {_MAX_URL_CHARS}.", param=at)
        return ImageContent(url=url, detail=detail)
    raise UnsupportedParameter(
        f"{at} begins with {url[:12]!r}: send a data URL (data:image/png;base64,…) or an https address.", param=at
    )


def parse_image_data(text: str, media_type: str, *, at: str) -> ImageContent:
    """The picture whose file is written as base64 in `text`. Raises `InvalidRequest`."""
    return ImageContent(data=_decode_base64(text, at), media_type=media_type)


def _parse_data_url(url: str, at: str) -> tuple[str, bytes]:
    head = _DATA_URL.match(url)
    if head is None or head.group(3) is None:
        raise InvalidRequest(f"{at} is not a data URL with base64: send data:image/png;base64,…", param=at)
    media_type = (head.group(1) or "").lower()
    if media_type and not media_type.startswith("image/") and media_type != "application/octet-stream":
        raise UnsupportedParameter(f"{at} holds {media_type[:60]}: send an image.", param=at)
    return media_type, _decode_base64(url[head.end() :], at)


def _decode_base64(text: str, at: str) -> bytes:
    try:
        # some clients break the lines, and some leave the padding out
        packed = "".join(text.split())
        content = base64.b64decode(packed + "=" * (-len(packed) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidRequest(f"{at} is not base64: {error}. Send the whole file, encoded.", param=at) from None
    if not content:
        raise InvalidRequest(f"{at} holds an empty file: send the whole file, encoded.", param=at)
    return content
