"""What the gateway asks of a backend."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol

from mlx_manager.ir import (
    DetokenizeRequest,
    EmbeddingRequest,
    Event,
    GenerationRequest,
    RerankRequest,
    TokenizeRequest,
    Tokens,
    Vectors,
)


class Backend(Protocol):
    """Answers requests. Stateless to its caller: everything about one request is in the request."""

    name: str

    def generate(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        """Answer `request` as a stream of events in the order `ir.events` draws.

        Closing the generator early aborts the work. Raises `errors.MlxManagerError`, before the first event or later.
        """
        ...

    async def embed(self, request: EmbeddingRequest | RerankRequest) -> Vectors:
        """The vectors of the request's inputs, or the scores of its documents. Cancelling this aborts the work.

        Raises `errors.MlxManagerError`.
        """
        ...

    async def tokenize(self, request: TokenizeRequest | DetokenizeRequest) -> Tokens:
        """The tokens of a prompt as the model would get it, or the text of tokens. Cancelling this aborts the work.

        Raises `errors.MlxManagerError`.
        """
        ...
