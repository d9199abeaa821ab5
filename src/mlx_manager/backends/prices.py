"""What an answer of a provider costs: by an admin's prices, by its own word, or by the list that ships."""

from __future__ import annotations

from genai_prices import Usage as PricedUsage
from genai_prices import calc_price

from mlx_manager.catalog import Price, Provider, ProviderKind
from mlx_manager.ir import Usage

_MILLION = 1_000_000


def cost_usd(provider: Provider, model: str, usage: Usage) -> float | None:
    """In US dollars; None where nobody knows the price."""
    price = provider.prices.get(model) or provider.prices.get("*")
    if price is not None:
        return _by_price(price, usage)
    if provider.kind is ProviderKind.COMPATIBLE and usage.cost_usd is not None:
        return usage.cost_usd
    priced = PricedUsage(
        input_tokens=usage.num_prompt_tokens,
        cache_read_tokens=usage.num_cached_tokens,
        cache_write_tokens=usage.num_cache_written_tokens or 0,
        output_tokens=usage.num_completion_tokens,
    )
    try:
        if provider.kind is ProviderKind.COMPATIBLE:
            found = calc_price(priced, model, provider_api_url=provider.base_url)
        else:
            found = calc_price(priced, model, provider_id=provider.kind.value)
    except LookupError:
        return None
    return float(found.total_price)


def _by_price(price: Price, usage: Usage) -> float:
    cached_usd = price.input_usd if price.cached_input_usd is None else price.cached_input_usd
    write_usd = price.input_usd if price.cache_write_usd is None else price.cache_write_usd
    num_written = usage.num_cache_written_tokens or 0
    num_fresh = usage.num_prompt_tokens - usage.num_cached_tokens - num_written
    parts = (
        num_fresh * price.input_usd,
        usage.num_cached_tokens * cached_usd,
        num_written * write_usd,
        usage.num_completion_tokens * price.output_usd,
    )
    return sum(parts) / _MILLION
