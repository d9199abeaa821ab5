"""Reading the JSON body of a request, within bounds."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from fastapi import Request

from mlx_manager.api.unpacking import Unpacker
from mlx_manager.errors import InvalidRequest, PayloadTooLarge

_DRAIN_FACTOR = 4
"""A body that is too large is read on, and thrown away, to this multiple of the limit: a client that is still sending
does not see our answer before it is done."""


async def read_json_body(request: Request, max_body_bytes: int) -> bytes:
    """The whole body, decompressed where it has to be; the bound holds for both forms.

    Raises `PayloadTooLarge`, `UnsupportedMediaType`, and `InvalidRequest` when it is not sent as JSON.

    Other content types are refused, not guessed: a web page may send those to a local server without asking first.
    """
    unpacker = _check_headers(request)
    chunks: list[bytes] = []
    num_sent = num_bytes = 0
    async for chunk in request.stream():
        num_sent += len(chunk)
        if max(num_sent, num_bytes) <= max_body_bytes:
            unpacked = chunk if unpacker is None else unpacker.unpack(chunk, max_body_bytes + 1 - num_bytes)
            num_bytes += len(unpacked)
            chunks.append(unpacked)
        elif num_sent > max_body_bytes * _DRAIN_FACTOR:
            break
    if max(num_sent, num_bytes) > max_body_bytes:
        raise PayloadTooLarge(f"The body is larger than the {max_body_bytes} bytes accepted (setting max_body).")
    if unpacker is not None:
        unpacker.check_end()
    return b"".join(chunks)


async def read_struct(request: Request, max_body_bytes: int, form: type[_Form]) -> _Form:
    """The body as a `form`, which has to forbid unknown fields. Raises as `read_json_body` does, naming the field."""
    body = await read_json_body(request, max_body_bytes)
    try:
        return msgspec.json.decode(body, type=form)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$")
        param = path.rstrip("`").lstrip(".") or None
        raise InvalidRequest(f"{param or 'The body'}: {message}.", param=param) from None
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"The body is not JSON: {error}.") from None


def given_fields(change: msgspec.Struct) -> dict[str, Any]:
    """Those that the body of a change named, by name. The others are UNSET: they stay as they are."""
    return {name: value for name, value in msgspec.structs.asdict(change).items() if value is not msgspec.UNSET}


def take_fields(fields: dict[str, Any], form: type[_Form]) -> _Form:
    """A `form` of those of `fields` that are its own, which are no longer in `fields` then."""
    return form(**{name: fields.pop(name) for name in form.__struct_fields__ if name in fields})


_Form = TypeVar("_Form", bound=msgspec.Struct)


def _check_headers(request: Request) -> Unpacker | None:
    """What decompresses the body; None where nothing has to."""
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/json" and not content_type.endswith("+json"):
        raise InvalidRequest(
            f"The body's content type is {content_type[:80] or 'missing'}: send Content-Type: application/json.",
            param="Content-Type",
        )
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding in ("", "identity"):
        return None
    return Unpacker(encoding)
