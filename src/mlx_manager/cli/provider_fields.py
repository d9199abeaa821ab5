"""How flags say a provider's headers, prices and timeouts. Each `read_` raises `InvalidRequest`."""

from __future__ import annotations

import os
from collections.abc import Sequence

from mlx_manager.catalog import Price, Timeouts
from mlx_manager.errors import InvalidRequest

_PHASES = {
    "connect": "connect_s",
    "first-token": "first_token_s",
    "between-tokens": "between_tokens_s",
    "total": "total_s",
}


def read_headers(texts: Sequence[str]) -> dict[str, str]:
    """From NAME=VARIABLE: the values stand in the environment, so that the list of processes does not show them."""
    headers = {}
    for text in texts:
        name, equals, variable = text.partition("=")
        if not equals or variable not in os.environ:
            raise InvalidRequest(
                f"--header {name}=VARIABLE names a variable that holds the header's value.", param="header"
            )
        headers[name] = os.environ[variable]
    return headers


_PRICED = ("input_usd", "output_usd", "cached_input_usd", "cache_write_usd")


def read_prices(texts: Sequence[str]) -> dict[str, Price]:
    """From MODEL=IN,OUT[,CACHED[,WRITTEN]], in US dollars per million tokens."""
    prices = {}
    for text in texts:
        model, _, said = text.rpartition("=")
        try:
            usd = [float(part) for part in said.split(",")]
        except ValueError:
            usd = []
        if not model or not 2 <= len(usd) <= 4 or min(usd) < 0:
            raise InvalidRequest(f"--price is MODEL=IN,OUT[,CACHED[,WRITTEN]], not {text!r}.", param="price")
        prices[model] = Price(**dict(zip(_PRICED, usd, strict=False)))
    return prices


def read_timeouts(texts: Sequence[str]) -> Timeouts:
    """From PHASE=SECONDS; a phase that is not said keeps its default."""
    seconds = {}
    for text in texts:
        phase, _, said = text.partition("=")
        try:
            seconds[_PHASES[phase]] = float(said)
        except (KeyError, ValueError):
            raise InvalidRequest(
                f"--timeout is PHASE=SECONDS, with a phase of {', '.join(_PHASES)}, not {text!r}.", param="timeout"
            ) from None
    return Timeouts(**seconds)
