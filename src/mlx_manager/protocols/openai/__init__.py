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
from mlx_manager.protocols.openai.embeddings import (
    EMBEDDING_PARAMETERS,
    EmbeddingsRequest,
    parse_embeddings,
    render_embeddings,
)
from mlx_manager.protocols.openai.envelope import Encoder, Envelope, error_frame
from mlx_manager.protocols.openai.parameters import PARAMETERS, Endpoint
from mlx_manager.protocols.openai.rerank import RERANK_PARAMETERS, RerankBody, parse_rerank, render_rerank
from mlx_manager.protocols.openai.server import Call, parse_chat, parse_completion
from mlx_manager.protocols.openai.tokens import (
    DetokenizeBody,
    TokenizeBody,
    parse_detokenize,
    parse_tokenize,
    render_detokenize,
    render_tokenize,
)
from mlx_manager.protocols.openai.wire import ChatRequest, CompletionRequest

__all__ = [
    "EMBEDDING_PARAMETERS",
    "PARAMETERS",
    "RERANK_PARAMETERS",
    "Call",
    "ChatEncoder",
    "ChatRequest",
    "CompletionEncoder",
    "CompletionRequest",
    "DetokenizeBody",
    "EmbeddingsRequest",
    "Encoder",
    "Endpoint",
    "Envelope",
    "ErrorBody",
    "ModelList",
    "ModelObject",
    "RerankBody",
    "ServingObject",
    "TokenizeBody",
    "encode_error",
    "encode_json",
    "error_body",
    "error_frame",
    "parse_chat",
    "parse_completion",
    "parse_detokenize",
    "parse_embeddings",
    "parse_rerank",
    "parse_tokenize",
    "render_chat",
    "render_completion",
    "render_detokenize",
    "render_embeddings",
    "render_rerank",
    "render_tokenize",
]
