"""mlx-manager provider: who answers from outside this machine, from the terminal of the machine that serves."""

from __future__ import annotations

import time
from typing import Annotated, Any, Optional

import msgspec
import typer

from mlx_manager.catalog import Provider, ProviderKind, ProviderSecret
from mlx_manager.cli.accounts import ACTOR, Accounts, ask_secret, delete_named, print_all, with_accounts
from mlx_manager.cli.flags import given, with_settings
from mlx_manager.cli.provider_fields import read_headers, read_prices, read_timeouts
from mlx_manager.errors import InvalidRequest

provider_commands = typer.Typer(
    name="provider", help="Providers: who answers from outside.", no_args_is_help=True, rich_markup_mode=None
)
_Name = Annotated[str, typer.Argument(help="Name of the provider.")]
# typer reads these at run time
_BaseUrl = Annotated[Optional[str], typer.Option(help="Where it is; openai and anthropic have one of their own.")]  # noqa: UP045
_Private = Annotated[
    Optional[bool],  # noqa: UP045
    typer.Option("--private/--no-private", help="It may be on this machine or in a private network."),
]
_KeyEnv = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(metavar="VARIABLE", help="Variable that holds its key, instead of being asked for it."),
]
_NoKey = Annotated[bool, typer.Option("--no-key", help="It wants no key.")]
_Header = Annotated[
    list[str], typer.Option(metavar="NAME=VARIABLE", help="A header to send along; the variable holds its value.")
]
_Price = Annotated[
    list[str],
    typer.Option(metavar="MODEL=IN,OUT[,CACHED[,WRITTEN]]", help="US dollars per million tokens; * is every model."),
]
_Timeout = Annotated[
    list[str],
    typer.Option(metavar="PHASE=SECONDS", help="Phase: connect, first-token, between-tokens or total."),
]
_Retries = Annotated[Optional[int], typer.Option(help="Tries again before the first byte.", min=0, max=10)]  # noqa: UP045


@provider_commands.command(name="list")
@with_settings("home", "database")
def list_providers(**flags: object) -> None:
    """Show every provider, without its key."""

    def list_rows(accounts: Accounts) -> list[tuple[str, ...]]:
        return [
            (
                one.name,
                one.kind.value,
                one.base_url,
                "yes" if one.has_key else "no",
                "on" if one.is_on else "off",
                ", ".join(one.models[:3]) + (f" and {len(one.models) - 3} more" if len(one.models) > 3 else ""),
            )
            for one in accounts.store.current.providers
        ]

    print_all(
        flags,
        ("name", "kind", "address", "key", "state", "models"),
        list_rows,
        if_none="There is no provider: mlx-manager provider add NAME KIND. Until then all is answered on this machine.",
    )


@provider_commands.command()
@with_settings("home", "database")
def add(  # noqa: PLR0913
    *,
    name: _Name,
    kind: Annotated[
        ProviderKind,
        typer.Argument(metavar="openai|anthropic|openai-compatible", help="Which dialect it speaks."),
    ],
    base_url: _BaseUrl = None,
    private: _Private = None,
    key_env: _KeyEnv = None,
    no_key: _NoKey = False,
    header: _Header = [],  # noqa: B006
    price: _Price = [],  # noqa: B006
    timeout: _Timeout = [],  # noqa: B006
    retries: _Retries = None,
    **flags: object,
) -> None:
    """Add a provider; its key is asked for, or read from standard input, and kept encrypted."""
    fields = _fields(base_url=base_url, private=private, price=price, timeout=timeout, retries=retries)
    headers = read_headers(header)
    key = None if no_key else ask_secret(f"Key of {name}", key_env)
    provider = Provider(id=0, name=name, kind=kind, **({"base_url": ""} | fields))

    async def work(accounts: Accounts) -> None:
        added = await accounts.desk.add_provider(provider, ProviderSecret(key=key, headers=headers), actor=ACTOR)
        print(
            f"{added.name} is at {added.base_url}. Ask it for its models: mlx-manager provider test {added.name}\n"
            f"Nothing goes there before a route leads to it: mlx-manager route add --help"
        )

    with_accounts(flags, work)


@provider_commands.command(name="set")
@with_settings("home", "database")
def set_provider(  # noqa: PLR0913
    *,
    name: _Name,
    is_on: Annotated[
        Optional[bool],  # noqa: UP045
        typer.Option("--on/--off", help="Whether routes may lead to it."),
    ] = None,
    base_url: _BaseUrl = None,
    private: _Private = None,
    new_key: Annotated[bool, typer.Option("--key", help="Ask for a new key, or read it from standard input.")] = False,
    key_env: _KeyEnv = None,
    no_key: _NoKey = False,
    header: _Header = [],  # noqa: B006
    no_headers: Annotated[bool, typer.Option("--no-headers", help="Send no headers of its own along.")] = False,
    price: _Price = [],  # noqa: B006
    timeout: _Timeout = [],  # noqa: B006
    retries: _Retries = None,
    **flags: object,
) -> None:
    """Change a provider; what is not named stays. Headers, prices and timeouts replace what there was of them."""
    values = _fields(base_url=base_url, private=private, price=price, timeout=timeout, retries=retries, is_on=is_on)
    if header or no_headers:
        values["headers"] = read_headers(header)
    key: str | msgspec.UnsetType | None = None if no_key else msgspec.UNSET
    if new_key or key_env is not None:
        key = ask_secret(f"New key of {name}", key_env)
    if not values and key is msgspec.UNSET:
        raise InvalidRequest("Nothing to change: mlx-manager provider set --help")

    async def work(accounts: Accounts) -> None:
        changed = await accounts.desk.change_provider(name, values, key=key, actor=ACTOR)
        print(f"{changed.name} is {'on' if changed.is_on else 'off'}, at {changed.base_url}.")

    with_accounts(flags, work)


@provider_commands.command(name="test")
@with_settings("home", "database")
def fetch_models(name: _Name, **flags: object) -> None:
    """Ask a provider which models it has, with its key, and keep the list."""

    async def work(accounts: Accounts) -> None:
        began_s = time.monotonic()
        provider = await accounts.desk.fetch_models(name, actor=ACTOR)
        print(f"{name} answers, after {time.monotonic() - began_s:.2f} s. Its models:")
        print("\n".join(provider.models) or "none")

    with_accounts(flags, work)


@provider_commands.command()
@with_settings("home", "database")
def rm(name: _Name, **flags: object) -> None:
    """Delete a provider that no route leads to."""
    delete_named(name, flags, lambda accounts: accounts.desk.remove_provider(name, actor=ACTOR))


def _fields(
    *,
    base_url: str | None,
    private: bool | None,
    price: list[str],
    timeout: list[str],
    retries: int | None,
    is_on: bool | None = None,
) -> dict[str, Any]:
    """Those that were given, by the names that a provider has for them. Raises `InvalidRequest`."""
    return given(
        base_url=base_url,
        allows_private_address=private,
        max_retries=retries,
        is_on=is_on,
        prices=read_prices(price) or None,
        timeouts=read_timeouts(timeout) if timeout else None,
    )
