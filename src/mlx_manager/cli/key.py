"""mlx-manager key: API keys, from the terminal of the machine that serves."""

from __future__ import annotations

import time
from typing import Annotated, Optional

import msgspec
import typer

from mlx_manager.catalog import KeyLimits, Scope
from mlx_manager.cli.accounts import ACTOR, Accounts, print_all, with_accounts
from mlx_manager.cli.flags import with_settings
from mlx_manager.cli.limit_flags import (
    Budget,
    Models,
    NoLimits,
    PerDay,
    PerMinute,
    StaysHere,
    changed_limits,
)
from mlx_manager.errors import InvalidRequest

key_commands = typer.Typer(
    name="key", help="API keys: once there is one, /v1 wants one.", no_args_is_help=True, rich_markup_mode=None
)
_DAY_S = 24 * 3600


@key_commands.command()
@with_settings("home", "database")
def create(  # noqa: PLR0913 - one per flag
    *,
    name: Annotated[str, typer.Argument(help="What it is for.")],
    # typer reads these at run time
    user: Annotated[Optional[str], typer.Option(help="Whose key; the only account's otherwise.")] = None,  # noqa: UP045
    scope: Annotated[list[Scope], typer.Option(help="inference, admin; both by giving it twice.")] = [  # noqa: B006
        Scope.INFERENCE
    ],
    days: Annotated[Optional[int], typer.Option(help="Days until it expires.", min=1)] = None,  # noqa: UP045
    model: Models = [],  # noqa: B006
    rpm: PerMinute = None,
    tokens_per_day: PerDay = None,
    budget: Budget = None,
    local_only: StaysHere = None,
    **flags: object,
) -> None:
    """Make an API key and print it, this once."""
    limits = changed_limits(
        KeyLimits(),
        forget=True,
        models=model,
        requests_per_minute=rpm,
        tokens_per_day=tokens_per_day,
        budget_usd_per_month=budget,
        is_local_only=local_only,
    )

    async def work(accounts: Accounts) -> None:
        people = accounts.people.all()
        if user is None and len(people) != 1:
            raise InvalidRequest("Say whose key it is to be: --user NAME.")
        owner = people[0] if user is None else accounts.people.find(user)
        minted = await accounts.keys.mint(
            owner,
            name,
            scopes=tuple(dict.fromkeys(scope)),
            limits=limits,
            expires_unix_s=None if days is None else int(time.time()) + days * _DAY_S,
            actor=ACTOR,
        )
        print(f"The key {minted.key.name!r} of {owner.name}, which is shown this once:\n\n{minted.secret}\n")

    with_accounts(flags, work)


@key_commands.command(name="set")
@with_settings("home", "database")
def change(  # noqa: PLR0913 - one per flag
    *,
    key_id: Annotated[int, typer.Argument(help="Its number, as the list has it.")],
    name: Annotated[Optional[str], typer.Option(help="What it is for.")] = None,  # noqa: UP045
    scope: Annotated[list[Scope], typer.Option(help="inference, admin; both by giving it twice.")] = [],  # noqa: B006
    days: Annotated[Optional[int], typer.Option(help="Days until it expires; 0: never.", min=0)] = None,  # noqa: UP045
    model: Models = [],  # noqa: B006
    rpm: PerMinute = None,
    tokens_per_day: PerDay = None,
    budget: Budget = None,
    local_only: StaysHere = None,
    no_limits: NoLimits = False,
    **flags: object,
) -> None:
    """Change what an API key may; it stays the same key, and what is not given stays."""
    from mlx_manager.auth.keys import KeyChanges  # noqa: PLC0415

    async def work(accounts: Accounts) -> None:
        key = accounts.keys.find(key_id)
        changes = KeyChanges(
            name=name,
            scopes=tuple(dict.fromkeys(scope)) or None,
            limits=changed_limits(
                key.limits,
                forget=no_limits,
                models=model,
                requests_per_minute=rpm,
                tokens_per_day=tokens_per_day,
                budget_usd_per_month=budget,
                is_local_only=local_only,
            ),
            expires_unix_s=msgspec.UNSET if days is None else int(time.time()) + days * _DAY_S if days else None,
        )
        changed = await accounts.keys.change(key, changes, actor=ACTOR)
        expiry = _day(changed.expires_unix_s) or "never"
        print(f"The key {changed.name!r}: {', '.join(changed.scopes)}, expires {expiry}, limits: ", end="")
        print(changed.limits.words or "none")

    with_accounts(flags, work)


@key_commands.command(name="list")
@with_settings("home", "database")
def list_keys(**flags: object) -> None:
    """Show every API key, without its text."""

    def list_rows(accounts: Accounts) -> list[tuple[str, ...]]:
        owners = accounts.store.current.users_by_id
        return [
            (
                str(key.id),
                owners[key.user_id].name,
                key.name,
                f"…{key.hint}",
                ", ".join(key.scopes),
                key.limits.words or "none",
                _day(key.expires_unix_s) or "never",
                _day(key.last_used_unix_s),
            )
            for key in accounts.keys.all()
        ]

    print_all(
        flags,
        ("id", "user", "name", "key", "scopes", "limits", "expires", "last used"),
        list_rows,
        if_none="There is no API key. On this machine /v1 answers without one until the first is made.",
    )


@key_commands.command()
@with_settings("home", "database")
def revoke(key_id: Annotated[int, typer.Argument(help="Its number, as the list has it.")], **flags: object) -> None:
    """Delete an API key: it is good no longer."""

    async def work(accounts: Accounts) -> None:
        key = accounts.keys.find(key_id)
        await accounts.keys.revoke(key, actor=ACTOR)
        print(f"The key {key.name!r} is good no longer.")
        if not accounts.keys.all():
            print("It was the last one. /v1 goes on to want one, until: mlx-manager key reopen")

    with_accounts(flags, work)


@key_commands.command()
@with_settings("home", "database")
def reopen(**flags: object) -> None:
    """Once no key is left: let /v1 answer without one on this machine again, as before the first."""

    async def work(accounts: Accounts) -> None:
        await accounts.keys.reopen(actor=ACTOR)
        print("A server that only this machine can reach answers everybody on it.")

    with_accounts(flags, work)


def _day(unix_s: int | None) -> str:
    return "" if unix_s is None else time.strftime("%Y-%m-%d", time.localtime(unix_s))
