"""A provider: who answers from outside this machine, and how it is reached. Its key is not in it."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class ProviderKind(StrEnum):
    """Which dialect a provider speaks."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    COMPATIBLE = "openai-compatible"
    """Another MLX Manager, vLLM, Ollama, OpenRouter, … under /chat/completions."""


DEFAULT_BASE_URLS = {
    ProviderKind.OPENAI: "https://api.openai.com/v1",
    ProviderKind.ANTHROPIC: "https://api.anthropic.com/v1",
}


class Timeouts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long a target may take, phase by phase, in seconds."""

    connect_s: float = 10.0
    first_token_s: float = 120.0
    between_tokens_s: float = 120.0
    total_s: float = 600.0


class Price(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one model costs, in US dollars per million tokens."""

    input_usd: float
    output_usd: float
    cached_input_usd: float | None = None
    """Of prompt tokens that the provider had in its cache; None: as the others."""
    cache_write_usd: float | None = None
    """Of prompt tokens that it put into its cache; None: as the others."""


class Provider(msgspec.Struct, frozen=True, kw_only=True):
    """One provider. Routes name it by `name`, which never changes."""

    id: int
    name: str
    kind: ProviderKind
    base_url: str
    """Ends before /chat/completions or /messages, without a slash."""
    is_on: bool = True
    allows_private_address: bool = False
    """Whether its address may be one of a private network or of this machine."""
    max_retries: int = 2
    """Before the first byte of an answer, on the same provider."""
    timeouts: Timeouts = Timeouts()
    prices: dict[str, Price] = {}
    """By model; they win over the price list that ships."""
    models: tuple[str, ...] = ()
    """As the provider listed them last."""
    has_key: bool = False
    header_names: tuple[str, ...] = ()
    """Of the extra headers, whose values are kept like the key."""


class ProviderSecret(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is kept encrypted of a provider."""

    key: str | None = None
    headers: dict[str, str] = {}
