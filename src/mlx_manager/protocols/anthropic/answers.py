"""The wire schemas of answers in Anthropic's dialect, as msgspec structs, to encode and to decode."""

from __future__ import annotations

from typing import Any

import msgspec

from mlx_manager.errors import InsufficientMemory, MlxManagerError, QueueFull, ShuttingDown, UnsupportedParameter


class OutputTokensDetails(msgspec.Struct, frozen=True):
    """What the answer's tokens were used for."""

    thinking_tokens: int = 0


class UsageObject(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the answer cost so far. All tokens of the prompt: input, cache creation and cache read together."""

    input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    output_tokens: int | None = None
    output_tokens_details: OutputTokensDetails | None = None


class TextObject(msgspec.Struct, frozen=True, kw_only=True, tag="text"):
    """A block of text."""

    text: str = ""


class ThinkingObject(msgspec.Struct, frozen=True, kw_only=True, tag="thinking"):
    """A block of thinking. `signature` comes back with it."""

    thinking: str = ""
    signature: str = ""


class ToolUseObject(msgspec.Struct, frozen=True, kw_only=True, tag="tool_use"):
    """A tool call."""

    id: str
    name: str
    input: dict[str, Any] | msgspec.Raw = {}


BlockObject = TextObject | ThinkingObject | ToolUseObject


class MessageObject(msgspec.Struct, frozen=True, kw_only=True, tag="message"):
    """The whole answer, or the beginning of a streamed one."""

    id: str
    role: str = "assistant"
    model: str = ""
    content: list[BlockObject] = []
    stop_reason: str | None = None
    stop_sequence: str | None = None
    usage: UsageObject = UsageObject()


class MessageStart(msgspec.Struct, frozen=True, tag="message_start"):
    """The first event."""

    message: MessageObject


class ContentBlockStart(msgspec.Struct, frozen=True, kw_only=True, tag="content_block_start"):
    """A block begins; a tool's input is empty until its deltas come."""

    index: int
    content_block: BlockObject


class TextDelta(msgspec.Struct, frozen=True, tag="text_delta"):
    """More of a text."""

    text: str


class ThinkingDelta(msgspec.Struct, frozen=True, tag="thinking_delta"):
    """More of the thinking."""

    thinking: str


class SignatureDelta(msgspec.Struct, frozen=True, tag="signature_delta"):
    """The signature of the thinking, after its last delta."""

    signature: str


class InputJsonDelta(msgspec.Struct, frozen=True, tag="input_json_delta"):
    """More of the JSON text of a tool's input."""

    partial_json: str


DeltaObject = TextDelta | ThinkingDelta | SignatureDelta | InputJsonDelta


class ContentBlockDelta(msgspec.Struct, frozen=True, kw_only=True, tag="content_block_delta"):
    """More of a block."""

    index: int
    delta: DeltaObject


class ContentBlockStop(msgspec.Struct, frozen=True, tag="content_block_stop"):
    """A block is complete."""

    index: int


class StopObject(msgspec.Struct, frozen=True, kw_only=True):
    """Why the answer ended."""

    stop_reason: str | None = None
    stop_sequence: str | None = None


class MessageDelta(msgspec.Struct, frozen=True, kw_only=True, tag="message_delta"):
    """How the answer ended; the usage is that of all of it."""

    delta: StopObject
    usage: UsageObject = UsageObject()


class MessageStop(msgspec.Struct, frozen=True, tag="message_stop"):
    """The last event."""


class Ping(msgspec.Struct, frozen=True, tag="ping"):
    """The answer is still being made."""


class ErrorObject(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What went wrong. Its `type` is a field, no tag: providers have more of them than are listed here."""

    type: str
    message: str
    details: dict[str, Any] | None = None


class ErrorBody(msgspec.Struct, frozen=True, kw_only=True, tag="error", omit_defaults=True):
    """The body of every error, and the last event of a stream that broke off."""

    error: ErrorObject
    request_id: str | None = None


StreamObject = (
    MessageStart
    | ContentBlockStart
    | ContentBlockDelta
    | ContentBlockStop
    | MessageDelta
    | MessageStop
    | Ping
    | ErrorBody
)


class TokenCount(msgspec.Struct, frozen=True):
    """The body of POST /v1/messages/count_tokens."""

    input_tokens: int


class ModelObject(msgspec.Struct, frozen=True, kw_only=True):
    """One model, as this dialect lists them."""

    type: str = "model"
    id: str
    display_name: str
    created_at: str
    """In the form of RFC 3339."""
    max_input_tokens: int | None
    max_tokens: int | None
    lifecycle: str = "active"


class ModelPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of the list of models."""

    data: list[ModelObject]
    has_more: bool
    first_id: str | None
    last_id: str | None


_encoder = msgspec.json.Encoder()


def frame(event: StreamObject) -> bytes:
    """One event of a stream."""
    kind = str(event.__struct_config__.tag)
    return b"event: " + kind.encode() + b"\ndata: " + _encoder.encode(event) + b"\n\n"


PING_FRAME = frame(Ping())


def error_status(error: MlxManagerError) -> int:
    """The HTTP status of an error in this dialect, which has one of its own for a server that is overloaded."""
    return OVERLOADED_STATUS if isinstance(error, _OVERLOADS) else error.status


def error_body(error: MlxManagerError, request_id: str) -> ErrorBody:
    """An error of ours in the dialect's form."""
    status = error_status(error)
    kind = _ERROR_TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")
    details = _NO_THREADS if isinstance(error, UnsupportedParameter) and error.param == "thread" else None
    return ErrorBody(error=ErrorObject(type=kind, message=error.message, details=details), request_id=request_id)


_NO_THREADS = {"error_code": "thread_unsupported_request", "unsupported": ["thread"]}
"""On which the official SDK sends the whole conversation instead."""
OVERLOADED_STATUS = 529
_OVERLOADS = (QueueFull, InsufficientMemory, ShuttingDown)
_ERROR_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    OVERLOADED_STATUS: "overloaded_error",
}


def encode_json(answer: msgspec.Struct) -> bytes:
    """Any of these structs as JSON."""
    return _encoder.encode(answer)
