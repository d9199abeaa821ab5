"""The backend that answers with models on this machine."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec

from mlx_manager.backends.defaults import with_overrides, with_system_prompt
from mlx_manager.backends.documents import DocumentReader
from mlx_manager.backends.pictures import FetchLimits, PictureFetcher
from mlx_manager.catalog import ModelKind
from mlx_manager.errors import InvalidRequest, UnsupportedParameter
from mlx_manager.ir import (
    ChatPrompt,
    DetokenizeRequest,
    DocumentContent,
    EmbeddingRequest,
    Event,
    GenerationRequest,
    ImageContent,
    PassedOn,
    Prompt,
    RerankRequest,
    TokenizeRequest,
    Tokens,
    Vectors,
    VideoContent,
)
from mlx_manager.pool import ModelPool


class LocalBackend:
    """Leases the request's model from the pool and passes its worker's events on."""

    name = "local"

    def __init__(
        self, pool: ModelPool, pictures: PictureFetcher | None = None, documents: DocumentReader | None = None
    ) -> None:
        self._pool = pool
        self._pictures = pictures or PictureFetcher(FetchLimits())
        self._documents = documents or DocumentReader()

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        """Answer `request` as `Backend` says; the lease is held until the stream ends or is closed."""
        self._check_kind(request.model, ModelKind.TEXT, ModelKind.VISION)
        prompt = await self._with_files(request.model, request.prompt)
        request = msgspec.structs.replace(request, prompt=prompt, passed_on=PassedOn())
        async with self._pool.lease(request.model) as worker:
            asked = with_overrides(request, self._pool.overrides(request.model))
            async with aclosing(worker.generate(asked)) as events:
                async for event in events:
                    yield event

    async def embed(self, request: EmbeddingRequest | RerankRequest) -> Vectors:
        """Answer `request` as `Backend` says."""
        wanted = ModelKind.EMBEDDING if isinstance(request, EmbeddingRequest) else ModelKind.RERANKER
        self._check_kind(request.model, wanted)
        async with self._pool.lease(request.model) as worker:
            return await worker.embed(request)

    async def tokenize(self, request: TokenizeRequest | DetokenizeRequest) -> Tokens:
        """Answer `request` as `Backend` says; a cold model is loaded for it."""
        if isinstance(request, TokenizeRequest) and isinstance(request.prompt, ChatPrompt):
            self._check_kind(request.model, ModelKind.TEXT, ModelKind.VISION)
            system_prompt = self._pool.overrides(request.model).system_prompt
            prompt = await self._with_files(request.model, with_system_prompt(request.prompt, system_prompt))
            request = msgspec.structs.replace(request, prompt=prompt)
        async with self._pool.lease(request.model, computes=False) as worker:
            return await worker.tokenize(request)

    def _check_kind(self, name: str, *wanted: ModelKind) -> None:
        """Refuse a request that the model is not made for, before it is loaded for nothing."""
        kind = self._pool.entry(name).kind
        if kind in wanted:
            return
        raise InvalidRequest(
            f"{name} is {_NOUNS[kind]} model and cannot {_VERBS[wanted[0]]}. Models here that can: "
            f"{self._names(*wanted)}.",
            param="model",
        )

    async def _with_files(self, name: str, prompt: Prompt) -> Prompt:
        """`prompt` with the text of its documents, and its images and videos fetched.

        Raises `UnsupportedParameter` where the model does not see.
        """
        prompt = await self._documents.told(await self._pictures.fetched(prompt, DocumentContent))
        if not isinstance(prompt, ChatPrompt) or not any(message.visuals for message in prompt.messages):
            return prompt
        if self._pool.entry(name).kind is not ModelKind.VISION:
            nouns = "images" if any(message.images for message in prompt.messages) else "videos"
            raise UnsupportedParameter(
                f"{name} does not see: leave the {nouns} out, or ask a model that does. Here: "
                f"{self._names(ModelKind.VISION)}.",
                param="messages",
            )
        return await self._pictures.fetched(prompt, ImageContent, VideoContent)

    def _names(self, *kinds: ModelKind) -> str:
        found = [status.entry.name for status in self._pool.statuses() if status.entry.kind in kinds]
        return ", ".join(found) or "none"


_NOUNS = {
    ModelKind.TEXT: "a text",
    ModelKind.VISION: "a vision",
    ModelKind.EMBEDDING: "an embedding",
    ModelKind.RERANKER: "a reranking",
}
_VERBS = {
    ModelKind.TEXT: "generate text",
    ModelKind.EMBEDDING: "embed texts",
    ModelKind.RERANKER: "rank documents",
}
