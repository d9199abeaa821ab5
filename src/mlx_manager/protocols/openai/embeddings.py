"""POST /v1/embeddings: its wire schema to `ir.EmbeddingRequest`, and vectors to the body of the answer."""

from __future__ import annotations

import base64
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Literal

import msgspec
from pydantic import Discriminator, Field, Tag

from mlx_manager.ir import EmbeddingRequest, TextRole, Vectors
from mlx_manager.protocols.model_name import ModelName
from mlx_manager.protocols.openai.wire import TokenId
from mlx_manager.protocols.parameters import Parameter, Support, screen_rows
from mlx_manager.protocols.wire import Whole, Wire, parse_wire

MAX_INPUTS = 2048

_ROLES = {
    "query": TextRole.QUERY,
    "search_query": TextRole.QUERY,
    "document": TextRole.DOCUMENT,
    "search_document": TextRole.DOCUMENT,
    "passage": TextRole.DOCUMENT,
}

EMBEDDING_PARAMETERS: Mapping[str, Parameter] = MappingProxyType(
    {
        row.name: row
        for row in (
            Parameter("model", Support.SERVED, "request.model"),
            Parameter("input", Support.SERVED, "request.inputs"),
            Parameter("encoding_format", Support.SERVED, "the form of the answer"),
            Parameter("dimensions", Support.SERVED, "request.dimensions"),
            Parameter("input_type", Support.SERVED, "request.role"),
            Parameter("truncate", Support.SERVED, "request.truncate"),
            Parameter("user", Support.HARMLESS, "names the client's own user"),
            Parameter("keep_alive", Support.HARMLESS, "says how long to keep the model in memory"),
            Parameter("truncate_prompt_tokens", Support.REFUSED, "Send truncate: true to have long texts cut."),
            Parameter("late_chunking", Support.REFUSED, "Every text is embedded by itself.", (False,)),
            Parameter("prompt", Support.REFUSED, "Put it before the text, or send input_type."),
            Parameter("prompt_name", Support.REFUSED, "Send input_type: query or document."),
            Parameter("task", Support.REFUSED, "Send input_type: query or document."),
            Parameter("output_dtype", Support.REFUSED, "Vectors are float32: leave it out.", ("float",)),
            Parameter("embedding_types", Support.REFUSED, "Vectors are float32: leave it out.", (["float"],)),
            Parameter("normalize", Support.REFUSED, "Vectors are normalized as the model's files say."),
        )
    }
)
"""What this endpoint does with every parameter it knows."""


def _kind_of_input(given: object) -> str:
    if not isinstance(given, list):
        return "<text>"
    first = given[0] if given else ""
    if isinstance(first, str):
        return "<texts>"
    return "<token lists>" if isinstance(first, list) else "<tokens>"


Text = Annotated[str, Field(min_length=1)]
Tokens = Annotated[list[TokenId], Field(min_length=1)]


class EmbeddingsRequest(Wire):
    """The body of POST /v1/embeddings."""

    model: ModelName
    input: Annotated[
        Annotated[Text, Tag("<text>")]
        | Annotated[list[Text], Tag("<texts>"), Field(min_length=1, max_length=MAX_INPUTS)]
        | Annotated[Tokens, Tag("<tokens>")]
        | Annotated[list[Tokens], Tag("<token lists>"), Field(max_length=MAX_INPUTS)],
        Discriminator(_kind_of_input),
    ]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Whole | None = Field(None, ge=1, lt=2**31)
    input_type: Literal["query", "document", "search_query", "search_document", "passage"] | None = None
    truncate: bool | None = None


@dataclass(frozen=True)
class EmbeddingCall:
    """A parsed HTTP request: what to embed, and in which form to answer."""

    request: EmbeddingRequest
    is_base64: bool
    ignored: tuple[str, ...]
    """Parameters accepted without effect, to be named in the answer's header."""


def parse_embeddings(body: bytes, *, answer_id: str) -> EmbeddingCall:
    """Read the body of POST /v1/embeddings. `answer_id` must be unique. Raises `InvalidRequest`."""
    wire = parse_wire(EmbeddingsRequest, body)
    ignored = screen_rows(EMBEDDING_PARAMETERS, wire.model_extra or {})
    request = EmbeddingRequest(
        request_id=answer_id,
        model=wire.model,
        inputs=_parse_inputs(wire.input),
        dimensions=wire.dimensions,
        role=_ROLES[wire.input_type] if wire.input_type else None,
        truncate=bool(wire.truncate),
    )
    return EmbeddingCall(request, wire.encoding_format == "base64", ignored)


def _parse_inputs(given: str | list[str] | list[int] | list[list[int]]) -> tuple[str | tuple[int, ...], ...]:
    if isinstance(given, str):
        return (given,)
    if isinstance(given[0], int):
        return (tuple(number for number in given if isinstance(number, int)),)
    return tuple(entry if isinstance(entry, str) else tuple(entry) for entry in given if not isinstance(entry, int))


class EmbeddingObject(msgspec.Struct, frozen=True, kw_only=True):
    """One vector, as numbers or as the base64 of its little-endian float32 bytes."""

    object: str = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingUsage(msgspec.Struct, frozen=True, kw_only=True):
    """What the answer cost."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsBody(msgspec.Struct, frozen=True, kw_only=True):
    """The body of the answer."""

    object: str = "list"
    data: list[EmbeddingObject]
    model: str
    usage: EmbeddingUsage


def render_embeddings(call: EmbeddingCall, vectors: Vectors) -> EmbeddingsBody:
    """The answer, a vector for each input in their order."""
    objects = [
        EmbeddingObject(index=index, embedding=_encode(row, is_base64=call.is_base64))
        for index, row in enumerate(vectors.rows())
    ]
    usage = EmbeddingUsage(prompt_tokens=vectors.num_prompt_tokens, total_tokens=vectors.num_prompt_tokens)
    return EmbeddingsBody(data=objects, model=call.request.model, usage=usage)


def _encode(row: bytes, *, is_base64: bool) -> list[float] | str:
    return base64.b64encode(row).decode() if is_base64 else floats_of(row)


def floats_of(row: bytes) -> list[float]:
    """The numbers of one row. The machines that MLX runs on are little-endian, as the rows are."""
    return array("f", row).tolist()
