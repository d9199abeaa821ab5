"""The dialect of POST /v1/responses: items in, typed events out."""

from mlx_manager.protocols.openai.responses.answers import ResponseObject
from mlx_manager.protocols.openai.responses.builder import ResponseBuilder
from mlx_manager.protocols.openai.responses.encode import encode_events, encode_response
from mlx_manager.protocols.openai.responses.parameters import RESPONSE_PARAMETERS
from mlx_manager.protocols.openai.responses.server import (
    FIELD_NAMES,
    ResponseCall,
    parse_response,
    read_response_request,
    references_of,
)
from mlx_manager.protocols.openai.responses.stored import StoredResponse, stored
from mlx_manager.protocols.openai.responses.wire import ResponsesRequest

__all__ = [
    "FIELD_NAMES",
    "RESPONSE_PARAMETERS",
    "ResponseBuilder",
    "ResponseCall",
    "ResponseObject",
    "ResponsesRequest",
    "StoredResponse",
    "encode_events",
    "encode_response",
    "parse_response",
    "read_response_request",
    "references_of",
    "stored",
]
