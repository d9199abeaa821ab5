"""Anthropic's dialect: bytes to `ir.GenerationRequest`, and `ir` events to SSE frames or one body."""

from mlx_manager.protocols.anthropic.answers import (
    PING_FRAME,
    ErrorBody,
    ModelObject,
    ModelPage,
    TokenCount,
    encode_json,
    error_body,
    error_status,
    frame,
)
from mlx_manager.protocols.anthropic.message import AnswerForm, render_message
from mlx_manager.protocols.anthropic.parameters import COUNT_TOKENS_PARAMETERS, MESSAGES_PARAMETERS
from mlx_manager.protocols.anthropic.server import CountCall, MessagesCall, parse_count, parse_messages
from mlx_manager.protocols.anthropic.stream import MessageEncoder
from mlx_manager.protocols.anthropic.wire import CountTokensRequest, MessagesRequest

__all__ = [
    "COUNT_TOKENS_PARAMETERS",
    "MESSAGES_PARAMETERS",
    "PING_FRAME",
    "AnswerForm",
    "CountCall",
    "CountTokensRequest",
    "ErrorBody",
    "MessageEncoder",
    "MessagesCall",
    "MessagesRequest",
    "ModelObject",
    "ModelPage",
    "TokenCount",
    "encode_json",
    "error_body",
    "error_status",
    "frame",
    "parse_count",
    "parse_messages",
    "render_message",
]
