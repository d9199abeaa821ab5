"""OpenAI's dialect: bytes to `ir.GenerationRequest`, and `ir` events to SSE frames or one body."""

from mlx_manager.protocols.openai.answers import (
    ErrorBody,
    ModelList,
    ModelObject,
    ServingObject,
    encode_error,
    encode_json,
    error_body,
)
from mlx_manager.protocols.openai.chat import ChatEncoder, render_chat
from mlx_manager.protocols.openai.completions import CompletionEncoder, render_completion
from mlx_manager.protocols.openai.envelope import Encoder, Envelope, error_frame
from mlx_manager.protocols.openai.parameters import PARAMETERS, Endpoint, Parameter, Support
from mlx_manager.protocols.openai.server import Call, parse_chat, parse_completion
from mlx_manager.protocols.openai.wire import ChatRequest, CompletionRequest

__all__ = [
    "PARAMETERS",
    "Call",
    "ChatEncoder",
    "ChatRequest",
    "CompletionEncoder",
    "CompletionRequest",
    "Encoder",
    "Endpoint",
    "Envelope",
    "ErrorBody",
    "ModelList",
    "ModelObject",
    "Parameter",
    "ServingObject",
    "Support",
    "encode_error",
    "encode_json",
    "error_body",
    "error_frame",
    "parse_chat",
    "parse_completion",
    "render_chat",
    "render_completion",
]
