"""POST /v1/rerank, in the form that Jina and Cohere share: wire schema to `ir.RerankRequest`, scores to the body."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated

import msgspec
from pydantic import Discriminator, Field, Tag

from mlx_manager.ir import RerankRequest, Vectors
from mlx_manager.protocols.model_name import ModelName
from mlx_manager.protocols.openai.embeddings import EmbeddingUsage, floats_of
from mlx_manager.protocols.parameters import Parameter, Support, screen_rows
from mlx_manager.protocols.wire import Whole, Wire, parse_wire

MAX_DOCUMENTS = 2048

RERANK_PARAMETERS: Mapping[str, Parameter] = MappingProxyType(
    {
        row.name: row
        for row in (
            Parameter("model", Support.SERVED, "request.model"),
            Parameter("query", Support.SERVED, "request.query"),
            Parameter("documents", Support.SERVED, "request.documents"),
            Parameter("top_n", Support.SERVED, "how many results the answer holds"),
            Parameter("return_documents", Support.SERVED, "the form of the answer"),
            Parameter("instruction", Support.SERVED, "request.instruction"),
            Parameter("truncate", Support.SERVED, "request.truncate"),
            Parameter("user", Support.HARMLESS, "names the client's own user"),
            Parameter("keep_alive", Support.HARMLESS, "says how long to keep the model in memory"),
            Parameter("max_tokens_per_doc", Support.REFUSED, "Documents are cut where the model's positions end."),
            Parameter("max_chunks_per_doc", Support.REFUSED, "Documents are not cut into chunks: leave it out."),
            Parameter("overlap_tokens", Support.REFUSED, "Documents are not cut into chunks: leave it out."),
            Parameter("rank_fields", Support.REFUSED, "A document's text is what is ranked: leave it out."),
        )
    }
)
"""What this endpoint does with every parameter it knows."""


class TextDocument(Wire):
    """A document in its older form."""

    text: str


Document = Annotated[
    Annotated[str, Tag("<text>")] | Annotated[TextDocument, Tag("<object>")],
    Discriminator(lambda sent: "<text>" if isinstance(sent, str) else "<object>"),
]


class RerankBody(Wire):
    """The body of POST /v1/rerank."""

    model: ModelName
    query: str = Field(min_length=1)
    documents: list[Document] = Field(min_length=1, max_length=MAX_DOCUMENTS)
    top_n: Whole | None = Field(None, ge=1)
    return_documents: bool | None = None
    instruction: str | None = Field(None, min_length=1)
    truncate: bool | None = None
    """Long documents are cut unless this is false."""


@dataclass(frozen=True)
class RerankCall:
    """A parsed HTTP request: what to rank, and in which form to answer."""

    request: RerankRequest
    top_n: int
    returns_documents: bool
    ignored: tuple[str, ...]
    """Parameters accepted without effect, to be named in the answer's header."""


def parse_rerank(body: bytes, *, answer_id: str) -> RerankCall:
    """Read the body of POST /v1/rerank. `answer_id` must be unique. Raises `InvalidRequest`."""
    wire = parse_wire(RerankBody, body)
    ignored = screen_rows(RERANK_PARAMETERS, wire.model_extra or {})
    documents = tuple(sent if isinstance(sent, str) else sent.text for sent in wire.documents)
    request = RerankRequest(
        request_id=answer_id,
        model=wire.model,
        query=wire.query,
        documents=documents,
        instruction=wire.instruction,
        truncate=wire.truncate is not False,
    )
    return RerankCall(request, min(wire.top_n or len(documents), len(documents)), bool(wire.return_documents), ignored)


class DocumentObject(msgspec.Struct, frozen=True):
    """A document as it was sent."""

    text: str


class RankedObject(msgspec.Struct, frozen=True, kw_only=True):
    """One document: its place in the request, and how relevant it is, from 0 to 1."""

    index: int
    relevance_score: float
    document: DocumentObject | msgspec.UnsetType = msgspec.UNSET


class RankedBody(msgspec.Struct, frozen=True, kw_only=True):
    """The body of the answer, the most relevant document first."""

    id: str
    object: str = "list"
    model: str
    results: list[RankedObject]
    usage: EmbeddingUsage


def render_rerank(call: RerankCall, scores: Vectors) -> RankedBody:
    """The answer. Of two documents with the same score the one sent first comes first."""
    values = floats_of(scores.values)
    order = sorted(range(len(values)), key=lambda index: -values[index])[: call.top_n]
    results = [
        RankedObject(
            index=index,
            relevance_score=values[index],
            document=DocumentObject(call.request.documents[index]) if call.returns_documents else msgspec.UNSET,
        )
        for index in order
    ]
    usage = EmbeddingUsage(prompt_tokens=scores.num_prompt_tokens, total_tokens=scores.num_prompt_tokens)
    return RankedBody(id=call.request.request_id, model=call.request.model, results=results, usage=usage)
