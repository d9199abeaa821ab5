"""A provider in a form: added or changed, and tried before it is kept. Its key goes in and never comes out."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import UNSET
from nicegui import ui

from mlx_manager.catalog import DEFAULT_BASE_URLS, Price, Provider, ProviderKind, ProviderSecret, Timeouts
from mlx_manager.errors import InvalidRequest, MlxManagerError
from mlx_manager.ui.console import Console
from mlx_manager.ui.elements import box, button, dialog, note, text
from mlx_manager.ui.fields import clear_errors, dress, read_number, show_error

_KINDS = {
    ProviderKind.OPENAI.value: "OpenAI",
    ProviderKind.ANTHROPIC.value: "Anthropic",
    ProviderKind.COMPATIBLE.value: "OpenAI-compatible: another MLX Manager, vLLM, Ollama, OpenRouter, …",
}
_TIMEOUTS = {
    "connect_s": "Until it is connected",
    "first_token_s": "Until the first token",
    "between_tokens_s": "Between two tokens",
    "total_s": "Whole answer",
}
_NEW = Provider(id=0, name="", kind=ProviderKind.OPENAI, base_url="")


class ProviderDialog:
    """Of one provider, or of a new one. `on_saved` is told its name."""

    def __init__(
        self, console: Console, actor: str, on_saved: Callable[[str], None], provider: Provider | None = None
    ) -> None:
        self._desk = console.desk
        self._actor = actor
        self._on_saved = on_saved
        self._old = provider
        self._fields: dict[str, Any] = {}

    def open(self) -> None:
        """Show it."""
        provider = self._old or _NEW
        with dialog(f"Edit {provider.name}" if self._old else "Add a provider", is_wide=True) as opened:
            with box("form-grid"):
                if self._old is None:
                    self._fields["name"] = ui.input("Name").props('autocomplete="off" autofocus')
                    dress(self._fields["name"], "a to z, digits, . _ -; routes lead to it by this name")
                    kind = ui.select(_KINDS, label="Kind", value=provider.kind.value)
                    kind.on_value_change(lambda event: self._show_address(event.value))
                    self._fields["kind"] = kind
                    dress(kind)
                self._fields["base_url"] = ui.input("Address", value=provider.base_url)
                self._fields["base_url"].props('autocomplete="off" stack-label')
                dress(self._fields["base_url"], "ends before /chat/completions or /messages")
                self._secret_fields(provider)
            self._show_address(provider.kind.value)
            self._limit_fields(provider)
            self._outcome = box()
            with box("dialog-foot"):
                button("Cancel", opened.close)
                button("Test the connection", self._test, icon="network_check")
                button("Save" if self._old else "Add", lambda: self._save(opened), look="main")

    def _secret_fields(self, provider: Provider) -> None:
        key = ui.input("API key", password=True).props('autocomplete="new-password"')
        dress(key, "kept; write another to replace it" if provider.has_key else "kept encrypted, never shown again")
        self._fields["key"] = key
        headers = ui.textarea("Extra headers").props("autogrow")
        names = ", ".join(provider.header_names)
        dress(headers, f"kept: {names}; write others to replace them" if names else "one a line, as Name: value")
        self._fields["headers"] = headers
        if provider.has_key or names:
            self._fields["forget"] = ui.checkbox("Forget the key and the headers kept").props("dense")

    def _limit_fields(self, provider: Provider) -> None:
        private = ui.checkbox(
            "It may be on this machine or in a private network", value=provider.allows_private_address
        )
        self._fields["allows_private_address"] = private.props("dense")
        text("Longest waits, in seconds", tag="h3")
        with box("form-grid"):
            for name, title in _TIMEOUTS.items():
                field = ui.input(title, value=f"{getattr(provider.timeouts, name):g}").props('inputmode="decimal"')
                dress(field)
                self._fields[name] = field
            retries = ui.input("Tries again", value=str(provider.max_retries)).props('inputmode="numeric"')
            dress(retries, "before the first byte of an answer: 0 to 10")
            self._fields["max_retries"] = retries
        prices = ui.textarea("Prices", value=_render_prices(provider.prices)).props("autogrow")
        dress(prices, "US dollars per million tokens, one model a line: model = input, output, cached input")
        self._fields["prices"] = prices

    def _show_address(self, kind: str) -> None:
        self._fields["base_url"].props["placeholder"] = DEFAULT_BASE_URLS.get(ProviderKind(kind), "https://host/v1")

    async def _test(self) -> None:
        self._say("Asking for its models …", is_good=True)
        started_s = time.monotonic()
        try:
            values = self._values()
            if self._old is None:
                models = await self._desk.try_provider(*_new_provider(values))
            else:
                key = values.pop("key")
                models = await self._desk.try_change(self._old.name, values, key=key)
        except MlxManagerError as error:
            self._complain(error)
        else:
            self._say(
                f"It answers, after {time.monotonic() - started_s:.2f} s, with {len(models)} models.", is_good=True
            )

    async def _save(self, opened: ui.dialog) -> None:
        try:
            values = self._values()
            if self._old is None:
                provider = await self._desk.add_provider(*_new_provider(values), actor=self._actor)
            else:
                key = values.pop("key")
                provider = await self._desk.change_provider(self._old.name, values, key=key, actor=self._actor)
        except MlxManagerError as error:
            self._complain(error)
            return
        opened.close()
        self._on_saved(provider.name)

    def _complain(self, error: MlxManagerError) -> None:
        if self._outcome.is_deleted:
            return
        self._outcome.clear()
        field = (error.param or "").partition(".")[0]
        if isinstance(error, InvalidRequest) and (field in self._fields or field == "timeouts"):
            show_error(self._fields, error, "total_s")
        else:
            self._say(error.message, is_good=False)

    def _say(self, words: str, *, is_good: bool) -> None:
        if self._outcome.is_deleted:
            return
        clear_errors(self._fields)
        self._outcome.clear()
        with self._outcome:
            note(words, "info" if is_good else "bad")

    def _values(self) -> dict[str, Any]:
        """What the form says, by the names of `Provider`, and `key` and `headers`. Raises `InvalidRequest`."""
        clear_errors(self._fields)
        fields = self._fields
        old = self._old or _NEW
        forgets = "forget" in fields and bool(fields["forget"].value)
        retries = read_number(fields["max_retries"], "max_retries")
        values: dict[str, Any] = {
            "base_url": (fields["base_url"].value or "").strip(),
            "allows_private_address": bool(fields["allows_private_address"].value),
            "max_retries": old.max_retries if retries is None else int(retries),
            "timeouts": Timeouts(**{name: self._timeout(old.timeouts, name) for name in _TIMEOUTS}),
            "prices": _parse_prices(fields["prices"].value or ""),
            "key": fields["key"].value or (None if forgets or self._old is None else UNSET),
        }
        headers = _parse_headers(fields["headers"].value or "")
        if headers or forgets or self._old is None:
            values["headers"] = headers
        if self._old is None:
            values |= {"name": (fields["name"].value or "").strip(), "kind": ProviderKind(fields["kind"].value)}
        return values

    def _timeout(self, kept: Timeouts, name: str) -> float:
        said = read_number(self._fields[name], name)
        return float(getattr(kept, name)) if said is None else said


def _new_provider(values: dict[str, Any]) -> tuple[Provider, ProviderSecret]:
    secret = ProviderSecret(key=values.pop("key"), headers=values.pop("headers"))
    return Provider(id=0, **values), secret


def _parse_headers(words: str) -> dict[str, str]:
    headers = {}
    for line in filter(None, map(str.strip, words.splitlines())):
        name, colon, value = line.partition(":")
        if not colon:
            raise InvalidRequest(f"{name[:40]!r} has no colon: a header is written as Name: value.", param="headers")
        headers[name.strip()] = value.strip()
    return headers


def _parse_prices(words: str) -> dict[str, Price]:
    prices = {}
    for line in filter(None, map(str.strip, words.splitlines())):
        model, _, figures = line.rpartition("=")
        try:
            numbers = [float(figure) for figure in figures.split(",")]
            prices[model.strip()] = Price(**dict(zip(Price.__struct_fields__, numbers, strict=False)))
            is_good = bool(model.strip()) and len(numbers) <= 3 and all(0 <= number < 1e9 for number in numbers)
        except (ValueError, TypeError):
            is_good = False
        if not is_good:
            raise InvalidRequest(f"{line[:60]!r} is no price: write model = input, output.", param="prices")
    return prices


def _render_prices(prices: dict[str, Price]) -> str:
    return "\n".join(
        f"{model} = {', '.join(f'{value:g}' for value in msgspec.structs.astuple(price) if value is not None)}"
        for model, price in prices.items()
    )
