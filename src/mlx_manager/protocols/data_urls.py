"""Files inside requests: data URLs and base64 to bytes and back, addresses told apart from both."""

from __future__ import annotations

import base64
import binascii
import re

from mlx_manager.errors import InvalidRequest, UnsupportedParameter

_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)?((?:;[\w.+-]+=[^;,]*)*)(;base64)?,", re.IGNORECASE | re.ASCII)
_MAX_URL_CHARS = 8192


def parse_url(url: str, *, kind: str, example: str, at: str) -> tuple[str, bytes | None]:
    """(media type, file) of a data URL; ("", None) for an https address.

    `kind` is what it has to be of, image or video; `example` a media type of that kind; `at` the field, for errors.
    Raises `InvalidRequest`, and `UnsupportedParameter` for other schemes and kinds.
    """
    scheme = url[:8].partition(":")[0].lower()
    if scheme == "data":
        return _parse_data_url(url, kind, example, at)
    if scheme == "https":
        if len(url) > _MAX_URL_CHARS:
            raise InvalidRequest(f"{at} has {len(url)} characters: an address has at most {_MAX_URL_CHARS}.", param=at)
        return "", None
    raise UnsupportedParameter(
        f"{at} begins with {url[:12]!r}: send a data URL (data:{example};base64,…) or an https address.", param=at
    )


def decode_base64(text: str, at: str) -> bytes:
    """The bytes that `text` encodes. Raises `InvalidRequest` for what is none or not base64."""
    try:
        # some clients break the lines, and some leave the padding out
        packed = "".join(text.split())
        content = base64.b64decode(packed + "=" * (-len(packed) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidRequest(f"{at} is not base64: {error}. Send the whole file, encoded.", param=at) from None
    if not content:
        raise InvalidRequest(f"{at} holds an empty file: send the whole file, encoded.", param=at)
    return content


def encode_base64(file: bytes) -> str:
    """A file as text."""
    return base64.b64encode(file).decode("ascii")


def split_data_url(url: str, *, example: str, at: str) -> tuple[str, str]:
    """The media type, in small letters, and the base64 of a data URL. Raises `InvalidRequest`."""
    head = _DATA_URL.match(url)
    if head is None or head.group(3) is None:
        raise InvalidRequest(f"{at} is not a data URL with base64: send data:{example};base64,…", param=at)
    return (head.group(1) or "").lower(), url[head.end() :]


def _parse_data_url(url: str, kind: str, example: str, at: str) -> tuple[str, bytes]:
    media_type, packed = split_data_url(url, example=example, at=at)
    if media_type and not media_type.startswith(f"{kind}/") and media_type != "application/octet-stream":
        article = "an" if kind == "image" else "a"
        raise UnsupportedParameter(f"{at} holds {media_type[:60]}: send {article} {kind}.", param=at)
    return media_type, decode_base64(packed, at)
