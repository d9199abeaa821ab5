"""Requests for vectors and for scores, as the dialects are parsed into them and as they cross to the worker."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class TextRole(StrEnum):
    """What an embedded text is for: models trained for search put another prompt before each."""

    QUERY = "query"
    DOCUMENT = "document"


class EmbeddingRequest(msgspec.Struct, frozen=True, kw_only=True, tag="embedding"):
    """Texts to be embedded; answered by one `Vectors` with a row for each."""

    request_id: str
    model: str
    inputs: tuple[str | tuple[int, ...], ...]
    """Texts, or token ids that the client made itself: those are taken as they are."""
    dimensions: int | None = None
    """Keep that many leading dimensions (Matryoshka); None: all."""
    role: TextRole | None = None
    """None: the model's own default prompt, which is mostly none."""
    truncate: bool = False
    """Cut what is longer than the model takes, instead of refusing it."""


class RerankRequest(msgspec.Struct, frozen=True, kw_only=True, tag="rerank"):
    """Documents to be scored against a query; answered by one `Vectors` of one dimension, a row per document."""

    request_id: str
    model: str
    query: str
    documents: tuple[str, ...]
    instruction: str | None = None
    """What counts as relevant, for models that take it in words."""
    truncate: bool = True


class Vectors(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of float32 numbers, in the order of the inputs."""

    num_dimensions: int
    values: bytes
    """Little-endian, row after row."""
    num_prompt_tokens: int
    """Tokens of all inputs, with what the model's tokenizer and prompts add."""

    def rows(self) -> list[bytes]:
        """The bytes of each row."""
        size = self.num_dimensions * 4
        return [self.values[start : start + size] for start in range(0, len(self.values), size)]
