"""Where providers and routes are changed: checked, kept, recorded."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Mapping
from typing import Any

import msgspec

from mlx_manager.backends.addresses import resolve
from mlx_manager.backends.clouds import build_backend
from mlx_manager.catalog import (
    DEFAULT_BASE_URLS,
    PatternKind,
    Provider,
    ProviderSecret,
    Route,
)
from mlx_manager.errors import Conflict, InvalidRequest, NotFound
from mlx_manager.gateway.patterns import REST, compile_pattern
from mlx_manager.gateway.router import HERE
from mlx_manager.storage.named_rows import PROVIDERS, ROUTES
from mlx_manager.storage.store import Change, Store

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}", re.ASCII)
_HEADER = re.compile(r"[A-Za-z0-9-]{1,64}", re.ASCII)
_NOT_HEADERS = ("host", "content-length", "content-type", "transfer-encoding", "connection", "accept")
_LAST_POSITION = 1_000_000
_MOST_TOKENS = 1_000_000_000

_NO_STAR = (
    "An exact pattern or a prefix has no *, which would be one letter of the name: for all that begin with gpt-, the "
    'pattern_kind is "prefix" and the pattern "gpt-".'
)


class Desk:
    """What can be done with providers and routes. `actor` is who does it, for the audit."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def provider(self, name: str) -> Provider:
        """Raises `NotFound`."""
        found = self._store.current.providers_by_name.get(name)
        if found is None:
            raise NotFound(f"There is no provider {name!r}.", param="name")
        return found

    def route(self, name: str) -> Route:
        """Raises `NotFound`."""
        for route in self._store.current.routes:
            if route.name == name:
                return route
        raise NotFound(f"There is no route {name!r}.", param="name")

    def secret(self, sealed: str | None) -> ProviderSecret:
        """What is kept encrypted of a provider. Raises `BrokenSecret`."""
        if sealed is None:
            return ProviderSecret()
        return msgspec.json.decode(self._store.secrets.unseal(sealed), type=ProviderSecret)

    async def add_provider(self, provider: Provider, secret: ProviderSecret, *, actor: str) -> Provider:
        """Raises `InvalidRequest` and `Conflict`."""
        if provider.name == HERE:
            raise InvalidRequest(f"{HERE!r} is this machine: choose another name.", param="name")
        provider = await _checked_provider(provider, secret)
        async with self._store.changing(_change(actor, "provider.create", provider)) as session:
            return await PROVIDERS.insert(session, provider, secret=self._seal(secret))

    async def change_provider(
        self, name: str, values: Mapping[str, Any], *, key: str | msgspec.UnsetType | None, actor: str
    ) -> Provider:
        """Change fields by name; `headers` and `key` replace what is kept of them. Raises as `add_provider` does."""
        provider, secret = self._changed(name, values, key)
        provider = await _checked_provider(provider, secret)
        async with self._store.changing(_change(actor, "provider.change", provider)) as session:
            await PROVIDERS.change(session, provider, secret=self._seal(secret))
        return provider

    async def remove_provider(self, name: str, *, actor: str) -> None:
        """Raises `NotFound`, and `Conflict` while routes lead to it."""
        self.provider(name)
        users = [
            route.name
            for route in self._store.current.routes
            if any(target.provider == name for target in route.targets)
        ]
        if users:
            raise Conflict(f"Routes lead to {name}: {', '.join(users)}. Change or delete them first.")
        async with self._store.changing(Change(actor=actor, action="provider.delete", subject=name)) as session:
            await PROVIDERS.remove(session, name)

    async def fetch_models(self, name: str, *, actor: str) -> Provider:
        """Ask the provider for its models, and keep the list. Raises `ProviderFailed`."""
        models = await self.try_change(name, {}, key=msgspec.UNSET)
        return await self.change_provider(name, {"models": models}, key=msgspec.UNSET, actor=actor)

    async def try_provider(self, provider: Provider, secret: ProviderSecret) -> tuple[str, ...]:
        """The models of a provider that need not be kept: whether it can be reached, and takes the key.

        Raises as `add_provider` does, and `ProviderFailed`.
        """
        backend = build_backend(await _checked_provider(provider, secret), secret)
        try:
            return tuple(await backend.models())
        finally:
            await backend.close()

    async def try_change(
        self, name: str, values: Mapping[str, Any], *, key: str | msgspec.UnsetType | None
    ) -> tuple[str, ...]:
        """`try_provider` of what `change_provider` would make of a provider."""
        return await self.try_provider(*self._changed(name, values, key))

    async def add_route(self, route: Route, *, actor: str) -> Route:
        """Behind all others where no position is said (0). Raises `InvalidRequest` and `Conflict`."""
        if route.position == 0:
            last = max((other.position for other in self._store.current.routes), default=0)
            route = msgspec.structs.replace(route, position=last + 10)
        self._check_route(route)
        async with self._store.changing(_change(actor, "route.create", route)) as session:
            return await ROUTES.insert(session, route)

    async def change_route(self, name: str, values: Mapping[str, Any], *, actor: str) -> Route:
        """Change fields by name. Raises `NotFound` and `InvalidRequest`."""
        route = msgspec.structs.replace(self.route(name), **values)
        self._check_route(route)
        async with self._store.changing(_change(actor, "route.change", route)) as session:
            await ROUTES.change(session, route)
        return route

    async def move_route(self, name: str, place: int, *, actor: str) -> list[Route]:
        """Put a route at a place in the order, counted from 1; all of them as they are then. Raises `NotFound`."""
        moved = self.route(name)
        order = [route for route in self._store.current.routes if route.name != name]
        order.insert(place - 1, moved)
        placed = [msgspec.structs.replace(route, position=10 * number) for number, route in enumerate(order, 1)]
        detail = {"order": [route.name for route in placed]}
        async with self._store.changing(
            Change(actor=actor, action="route.move", subject=name, detail=detail)
        ) as session:
            for route in placed:
                await ROUTES.change(session, route)
        return placed

    async def remove_route(self, name: str, *, actor: str) -> None:
        """Raises `NotFound`."""
        self.route(name)
        async with self._store.changing(Change(actor=actor, action="route.delete", subject=name)) as session:
            await ROUTES.remove(session, name)

    def _changed(
        self, name: str, values: Mapping[str, Any], key: str | msgspec.UnsetType | None
    ) -> tuple[Provider, ProviderSecret]:
        """What a provider and its secret would become. Raises `NotFound`, and `InvalidRequest` for a key on its way."""
        old = self.provider(name)
        kept = self.secret(self._store.current.sealed.get(name))
        keeps_key = key is msgspec.UNSET and kept.key is not None
        keeps_headers = "headers" not in values and bool(kept.headers)
        base_url = values.get("base_url", old.base_url) or DEFAULT_BASE_URLS.get(old.kind, "")
        if (keeps_key or keeps_headers) and _host_of(base_url) != _host_of(old.base_url):
            # else whoever may change the address could have sent to them what is never shown
            raise InvalidRequest(
                "The key and the headers were given for another host: give them again with the new address.",
                param="key" if keeps_key else "headers",
            )
        secret = ProviderSecret(
            key=kept.key if key is msgspec.UNSET else key, headers=dict(values.get("headers", kept.headers))
        )
        fields = {field: value for field, value in values.items() if field != "headers"}
        return msgspec.structs.replace(old, **fields), secret

    def _seal(self, secret: ProviderSecret) -> str | None:
        return None if secret == ProviderSecret() else self._store.secrets.seal(msgspec.json.encode(secret))

    def _check_route(self, route: Route) -> None:
        _check_name(route.name)
        compile_pattern(route.pattern_kind, route.pattern)
        if REST in route.pattern and route.pattern_kind is not PatternKind.REGEX:
            raise InvalidRequest(_NO_STAR, param="pattern")
        if not route.targets:
            raise InvalidRequest('A route needs a target: {"provider": NAME, "model": NAME}.', param="targets")
        for target in route.targets:
            if target.provider is not None:
                self.provider(target.provider)
            if target.model is not None and not (target.model and target.model.isprintable()):
                raise InvalidRequest("A target's model is a name; null is the one that was asked for.", param="targets")
            if target.model is not None and REST in target.model and route.pattern_kind is not PatternKind.PREFIX:
                raise InvalidRequest("* in a target's model stands for what follows a prefix.", param="targets")
        if abs(route.position) > _LAST_POSITION:
            raise InvalidRequest(f"position is at most {_LAST_POSITION}; 0 is behind all others.", param="position")
        least = route.conditions.longer_than_tokens
        if least is not None and not 0 <= least <= _MOST_TOKENS:
            raise InvalidRequest(
                f"longer_than_tokens is 0 to {_MOST_TOKENS}; null is any length.", param="conditions.longer_than_tokens"
            )
        for key in route.conditions.keys:
            if not all(key.partition("/")):
                raise InvalidRequest(
                    f"Say whose the API key {key[:64]!r} is: USER/NAME, as ada/ci.", param="conditions.keys"
                )
        wait_s = route.spill.queue_wait_s
        if wait_s is not None and wait_s <= 0:
            raise InvalidRequest("queue_wait_s has to be more than 0.", param="spill.queue_wait_s")


async def _checked_provider(provider: Provider, secret: ProviderSecret) -> Provider:
    _check_name(provider.name)
    base_url = provider.base_url or DEFAULT_BASE_URLS.get(provider.kind, "")
    parsed = _split(base_url)
    is_whole = parsed.scheme in ("http", "https") and parsed.hostname and not parsed.username and not parsed.query
    if not is_whole or parsed.hostname is None:
        raise InvalidRequest("base_url looks like https://host/v1, without user, password and query.", param="base_url")
    _check_headers(secret.headers)
    if secret.key is not None and not (secret.key and secret.key.isascii() and secret.key.isprintable()):
        raise InvalidRequest("A key consists of printable ASCII characters; null is none.", param="key")
    for model, price in provider.prices.items():
        if min(price.input_usd, price.output_usd, price.cached_input_usd or 0.0, price.cache_write_usd or 0.0) < 0:
            raise InvalidRequest(f"The prices of {model!r} have to be 0 or more.", param="prices")
    timeouts = provider.timeouts
    if min(timeouts.connect_s, timeouts.first_token_s, timeouts.between_tokens_s, timeouts.total_s) <= 0:
        raise InvalidRequest("Timeouts have to be more than 0.", param="timeouts")
    if not 0 <= provider.max_retries <= 10:
        raise InvalidRequest("max_retries is 0 to 10.", param="max_retries")
    try:
        port = parsed.port or (443 if parsed.scheme == "https" else 80)
        await resolve(parsed.hostname, port, allows_private=provider.allows_private_address)
    except ValueError:
        raise InvalidRequest("The port of base_url is none.", param="base_url") from None
    except OSError:
        # no network now: the address is looked at again with every connection
        pass
    return msgspec.structs.replace(
        provider,
        base_url=base_url.rstrip("/"),
        has_key=secret.key is not None,
        header_names=tuple(sorted(secret.headers)),
    )


def _split(base_url: str) -> urllib.parse.SplitResult:
    try:
        return urllib.parse.urlsplit(base_url)
    except ValueError as error:
        raise InvalidRequest(f"base_url is no address: {error}.", param="base_url") from None


def _host_of(base_url: str) -> str:
    parsed = _split(base_url)
    return f"{parsed.scheme}://{parsed.netloc.lower()}"


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise InvalidRequest(
            "A name has 1 to 64 of a to z, digits, . _ - and begins with a letter or a digit.", param="name"
        )


def _check_headers(headers: Mapping[str, str]) -> None:
    for name, value in headers.items():
        if (
            not _HEADER.fullmatch(name)
            or name.lower() in _NOT_HEADERS
            or not value.isprintable()
            or not value.isascii()
        ):
            raise InvalidRequest(f"The header {name[:64]!r} cannot be sent along.", param="headers")


def _change(actor: str, action: str, what: Provider | Route) -> Change:
    detail = msgspec.to_builtins(what)
    for name in ("id", "name", "models"):
        detail.pop(name, None)
    return Change(actor=actor, action=action, subject=what.name, detail=detail)
