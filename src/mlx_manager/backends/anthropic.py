"""The backend that answers through a provider that speaks Anthropic's Messages."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from mlx_manager.backends.openai import listed_models
from mlx_manager.backends.prices import cost_usd
from mlx_manager.backends.upstream import Upstream
from mlx_manager.catalog import Provider, ProviderSecret
from mlx_manager.errors import UnsupportedParameter
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
)
from mlx_manager.protocols.anthropic.client_request import MESSAGES_PATH, render_request
from mlx_manager.protocols.anthropic.client_stream import MessageDecoder

_VERSION = "2023-06-01"


class AnthropicBackend:
    """Sends requests to one provider, always streamed, and passes its answers on as they come."""

    def __init__(self, provider: Provider, secret: ProviderSecret) -> None:
        self.name = provider.name
        self.timeouts = provider.timeouts
        self.kind = provider.kind
        self._provider = provider
        key = {"x-api-key": secret.key} if secret.key else {}
        self._upstream = Upstream(provider, {"anthropic-version": _VERSION} | key | secret.headers)

    async def close(self) -> None:
        """Close its connections."""
        await self._upstream.close()

    async def models(self) -> list[str]:
        """The models that the provider lists. Raises `ProviderFailed`."""
        return listed_models(await self._upstream.get("models?limit=1000"), self.name)

    def cost_usd(self, model: str, usage: Usage) -> float | None:
        """What an answer cost; None where nobody knows the price."""
        return cost_usd(self._provider, model, usage)

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        """Answer `request` as `Backend` says."""
        body = render_request(request, provider=self.name)
        decoder = MessageDecoder()
        async with aclosing(self._upstream.events(MESSAGES_PATH, body, decoder)) as events:
            async for event in events:
                yield event

    async def embed(self, request: EmbeddingRequest | RerankRequest) -> Vectors:
        """Not in this dialect."""
        raise UnsupportedParameter(f"{self.name} embeds and ranks nothing.", param="model")

    async def tokenize(self, request: TokenizeRequest | DetokenizeRequest) -> Tokens:
        """Not in this dialect, for models of others."""
        raise UnsupportedParameter(f"{self.name} counts no tokens.", param="model")
