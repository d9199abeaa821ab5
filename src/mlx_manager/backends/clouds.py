"""The providers that are on, each with its client; made anew for those that change, without a restart."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mlx_manager.backends.anthropic import AnthropicBackend
from mlx_manager.backends.cloud import CloudBackend
from mlx_manager.backends.documents import DocumentReader
from mlx_manager.backends.openai import OpenAIBackend
from mlx_manager.catalog import Provider, ProviderKind, ProviderSecret

_DRAIN_S = 600.0
"""How long the requests of a client that was replaced may go on."""


@dataclass(frozen=True)
class _Cloud:
    provider: Provider
    sealed: str | None
    """What its client was made with: another ciphertext is another secret."""
    backend: CloudBackend


class Clouds:
    """Backends by the names of their providers."""

    def __init__(self) -> None:
        self._documents = DocumentReader()
        self._clouds: dict[str, _Cloud] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def find(self, name: str) -> CloudBackend | None:
        """The backend of the provider `name`; None where it is off or gone."""
        cloud = self._clouds.get(name)
        return None if cloud is None else cloud.backend

    def update(
        self,
        providers: Sequence[Provider],
        sealed_of: Callable[[str], str | None],
        unseal: Callable[[str | None], ProviderSecret],
    ) -> None:
        """From now on these providers are asked, as far as they are on. Call it inside the event loop."""
        wanted = {provider.name: provider for provider in providers if provider.is_on}
        for name, cloud in list(self._clouds.items()):
            if wanted.get(name) != cloud.provider or sealed_of(name) != cloud.sealed:
                del self._clouds[name]
                self._close_later(cloud.backend)
        for name, provider in wanted.items():
            if name not in self._clouds:
                sealed = sealed_of(name)
                self._clouds[name] = _Cloud(provider, sealed, build_backend(provider, unseal(sealed), self._documents))

    async def close(self) -> None:
        """Close all clients."""
        for task in self._closing:
            task.cancel()
        await asyncio.gather(*self._closing, return_exceptions=True)
        for cloud in self._clouds.values():
            await cloud.backend.close()
        self._clouds.clear()

    def _close_later(self, backend: CloudBackend) -> None:
        async def close() -> None:
            try:
                await asyncio.sleep(_DRAIN_S)
            finally:
                await backend.close()

        task = asyncio.create_task(close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


def build_backend(provider: Provider, secret: ProviderSecret, documents: DocumentReader | None = None) -> CloudBackend:
    """The backend that speaks the provider's dialect."""
    if provider.kind is ProviderKind.ANTHROPIC:
        return AnthropicBackend(provider, secret, documents)
    return OpenAIBackend(provider, secret, documents)
