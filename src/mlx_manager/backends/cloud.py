"""What the backends of all providers share: one client each, and answers that are passed on as they come."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, ClassVar

from msgspec.structs import replace

from mlx_manager.backends.documents import DocumentReader
from mlx_manager.backends.prices import cost_usd
from mlx_manager.backends.upstream import Decoder, Upstream
from mlx_manager.catalog import Provider, ProviderKind, ProviderSecret
from mlx_manager.errors import ProviderFailed, UnsupportedParameter
from mlx_manager.ir import (
    ChatPrompt,
    DetokenizeRequest,
    EmbeddingRequest,
    Event,
    GenerationRequest,
    Prompt,
    RerankRequest,
    TokenizeRequest,
    Tokens,
    Usage,
    Vectors,
)


class CloudBackend(ABC):
    """Answers through one provider. A dialect says how its key, its requests and its answers are written."""

    models_path: ClassVar[str] = "models"
    own_dialects: ClassVar[tuple[str, ...]] = ()
    """Whose parameters it understands, as `ir.PassedOn` names them."""

    def __init__(self, provider: Provider, secret: ProviderSecret, documents: DocumentReader | None = None) -> None:
        self.name = provider.name
        self.timeouts = provider.timeouts
        self.kind = provider.kind
        self._provider = provider
        self._documents = documents or DocumentReader()
        self._upstream = Upstream(provider, self._headers(secret.key) | secret.headers)

    @abstractmethod
    def _headers(self, key: str | None) -> dict[str, str]:
        """Those of every request; with `key`, where there is one."""

    @abstractmethod
    def _render(self, request: GenerationRequest) -> tuple[str, dict[str, Any]]:
        """Path and body. Raises `UnsupportedParameter` for what the provider does not know."""

    @abstractmethod
    def _decoder(self, request: GenerationRequest) -> Decoder:
        """What reads the answer to `request`."""

    def told(self, request: GenerationRequest) -> Mapping[str, Any]:
        """The parameters of `request` that mean nothing here and that the provider is told, by name."""
        return request.passed_on.fields if request.passed_on.dialect in self.own_dialects else {}

    def _headers_of(self, request: GenerationRequest) -> dict[str, str]:
        """Those of one request, beside those of every one."""
        return {}

    async def close(self) -> None:
        """Close its connections."""
        await self._upstream.close()

    async def models(self) -> list[str]:
        """The models that the provider lists. Raises `ProviderFailed`."""
        answer = await self._upstream.get(self.models_path)
        try:
            return sorted({str(row["id"]) for row in answer["data"]})
        except (KeyError, TypeError):
            raise ProviderFailed(f"{self.name} lists its models in another form than OpenAI's.") from None

    def cost_usd(self, model: str, usage: Usage) -> float | None:
        """What an answer cost; None where nobody knows the price."""
        return cost_usd(self._provider, model, usage)

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        """Answer `request` as `Backend` says."""
        if self.kind is not ProviderKind.ANTHROPIC:
            self._check_documents(request.prompt)
        if self.kind is ProviderKind.COMPATIBLE:
            # few of them take files; the text of one is taken by all
            request = replace(request, prompt=await self._documents.told(request.prompt))
        path, body = self._render(request)
        body = {**self.told(request), **body}
        headers = self._headers_of(request)
        async with aclosing(self._upstream.events(path, body, self._decoder(request), headers)) as events:
            async for event in events:
                yield event

    def _check_documents(self, prompt: Prompt) -> None:
        messages = prompt.messages if isinstance(prompt, ChatPrompt) else ()
        if any(document.url for message in messages for document in message.documents):
            raise UnsupportedParameter(
                f"{self.name} takes no documents by address: send the file itself.", param="messages"
            )

    async def embed(self, request: EmbeddingRequest | RerankRequest) -> Vectors:
        """Not in every dialect."""
        raise UnsupportedParameter(f"{self.name} embeds and ranks nothing.", param="model")

    async def tokenize(self, request: TokenizeRequest | DetokenizeRequest) -> Tokens:
        """In no dialect, for models of others."""
        raise UnsupportedParameter(f"{self.name} counts no tokens.", param="model")
