"""The backend that answers through a provider that speaks OpenAI's dialect."""

from __future__ import annotations

import base64
from array import array
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from mlx_manager.backends.prices import cost_usd
from mlx_manager.backends.upstream import Upstream
from mlx_manager.catalog import Provider, ProviderKind, ProviderSecret
from mlx_manager.errors import ProviderFailed, UnsupportedParameter
from mlx_manager.ir import (
    DetokenizeRequest,
    EmbeddingRequest,
    Event,
    GenerationRequest,
    RerankRequest,
    TokenizeRequest,
    Tokens,
    Usage,
    Vectors,
    estimate_tokens,
)
from mlx_manager.protocols.openai.client_request import render_request
from mlx_manager.protocols.openai.client_stream import ChunkDecoder


class OpenAIBackend:
    """Sends requests to one provider, always streamed, and passes its answers on as they come."""

    def __init__(self, provider: Provider, secret: ProviderSecret) -> None:
        self.name = provider.name
        self.timeouts = provider.timeouts
        self.kind = provider.kind
        self._provider = provider
        key = {"authorization": f"Bearer {secret.key}"} if secret.key else {}
        self._upstream = Upstream(provider, key | secret.headers)

    async def close(self) -> None:
        """Close its connections."""
        await self._upstream.close()

    async def models(self) -> list[str]:
        """The models that the provider lists. Raises `ProviderFailed`."""
        return listed_models(await self._upstream.get("models"), self.name)

    def cost_usd(self, model: str, usage: Usage) -> float | None:
        """What an answer cost; None where nobody knows the price."""
        return cost_usd(self._provider, model, usage)

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        """Answer `request` as `Backend` says."""
        is_extended = self.kind is ProviderKind.COMPATIBLE
        path, body = render_request(request, is_extended=is_extended, provider=self.name)
        decoder = ChunkDecoder(num_choices=request.num_choices, num_prompt_tokens=estimate_tokens(request.prompt))
        async with aclosing(self._upstream.events(path, body, decoder)) as events:
            async for event in events:
                yield event

    async def embed(self, request: EmbeddingRequest | RerankRequest) -> Vectors:
        """The vectors of `request`; nobody ranks documents in this dialect."""
        if isinstance(request, RerankRequest):
            raise UnsupportedParameter(f"{self.name} ranks no documents.", param="model")
        if request.role is not None or request.truncate:
            param = "truncate" if request.truncate else "input_type"
            raise UnsupportedParameter(f"{self.name} does not know {param}: leave it out.", param=param)
        body: dict[str, Any] = {
            "model": request.model,
            "input": [text if isinstance(text, str) else list(text) for text in request.inputs],
            "encoding_format": "base64",
        }
        if request.dimensions is not None:
            body["dimensions"] = request.dimensions
        answer = await self._upstream.post("embeddings", body)
        try:
            rows = sorted(answer["data"], key=lambda row: int(row["index"]))
            vectors = [_floats(row["embedding"]) for row in rows]
            num_tokens = int(answer["usage"]["prompt_tokens"])
            num_dimensions = len(vectors[0])
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise ProviderFailed(f"{self.name} sent vectors in another form than OpenAI's ({error!r}).") from None
        if len(vectors) != len(request.inputs) or any(len(row) != num_dimensions for row in vectors):
            raise ProviderFailed(f"{self.name} did not send one vector for each input.")
        return Vectors(
            num_dimensions=num_dimensions,
            values=b"".join(row.tobytes() for row in vectors),
            num_prompt_tokens=num_tokens,
        )

    async def tokenize(self, request: TokenizeRequest | DetokenizeRequest) -> Tokens:
        """Not in this dialect."""
        raise UnsupportedParameter(f"{self.name} counts no tokens.", param="model")


def listed_models(answer: Any, name: str) -> list[str]:
    """The ids in a list of models, the same in both dialects. Raises `ProviderFailed`."""
    try:
        return sorted({str(row["id"]) for row in answer["data"]})
    except (KeyError, TypeError):
        raise ProviderFailed(f"{name} lists its models in another form than OpenAI's.") from None


def _floats(embedding: str | list[float]) -> array[float]:
    if isinstance(embedding, str):
        return array("f", base64.b64decode(embedding))
    return array("f", embedding)
