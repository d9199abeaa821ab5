"""What the OpenAPI document says about bodies that the routes read themselves: the wire schemas of the dialects."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from mlx_manager.protocols.anthropic import CountTokensRequest, MessagesRequest
from mlx_manager.protocols.openai import (
    ChatRequest,
    CompletionRequest,
    DetokenizeBody,
    EmbeddingsRequest,
    RerankBody,
    TokenizeBody,
)
from mlx_manager.protocols.openai.responses import ResponsesRequest

_BODIES: tuple[tuple[str, type[BaseModel]], ...] = (
    ("/v1/chat/completions", ChatRequest),
    ("/v1/completions", CompletionRequest),
    ("/v1/responses", ResponsesRequest),
    ("/v1/responses/input_tokens", ResponsesRequest),
    ("/v1/embeddings", EmbeddingsRequest),
    ("/v1/rerank", RerankBody),
    ("/v1/messages", MessagesRequest),
    ("/v1/messages/count_tokens", CountTokensRequest),
    ("/tokenize", TokenizeBody),
    ("/detokenize", DetokenizeBody),
)
_REFERENCE = "#/components/schemas/{model}"


class DocumentedApp(FastAPI):
    """An app whose document names the bodies as well: FastAPI knows only those that it reads."""

    def openapi(self) -> dict[str, Any]:
        """The document; made once."""
        if self.openapi_schema is None:
            document = super().openapi()
            names, schema = models_json_schema([(model, "validation") for _, model in _BODIES], ref_template=_REFERENCE)
            document.setdefault("components", {}).setdefault("schemas", {}).update(schema["$defs"])
            for path, model in _BODIES:
                document["paths"][path]["post"]["requestBody"] = {
                    "required": True,
                    "content": {"application/json": {"schema": names[(model, "validation")]}},
                }
            self.openapi_schema = document
        return self.openapi_schema
