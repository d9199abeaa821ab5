"""Responses and their events as bytes."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from mlx_manager.protocols.openai.responses.answers import ResponseObject, StreamEvent

_encoder = msgspec.json.Encoder()


def encode_events(events: Iterable[StreamEvent]) -> bytes:
    """Events as frames of a stream, each with its name."""
    return b"".join(
        b"event: " + str(event.__struct_config__.tag).encode() + b"\ndata: " + _encoder.encode(event) + b"\n\n"
        for event in events
    )


def encode_response(response: ResponseObject) -> bytes:
    """A response as a whole body."""
    return _encoder.encode(response)
