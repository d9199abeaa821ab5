"""mlx-manager user: accounts, from the terminal of the machine that serves."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from mlx_manager.catalog import UserRole, UserState
from mlx_manager.cli.accounts import ACTOR, Accounts, ask_password, delete_named, print_all, with_accounts
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

user_commands = typer.Typer(
    name="user", help="Accounts: the first one is the admin's.", no_args_is_help=True, rich_markup_mode=None
)
_Name = Annotated[str, typer.Argument(help="Name of the account.")]


@user_commands.command()
@with_settings("home", "database")
def create(
    name: _Name,
    is_admin: Annotated[bool, typer.Option("--admin", help="Make it an admin; the first account always is.")] = False,
    **flags: object,
) -> None:
    """Make an account that can be used at once; its password is asked for, or read from standard input."""
    role = UserRole.ADMIN if is_admin else UserRole.USER
    password = ask_password(f"Password of {name}")

    async def work(accounts: Accounts) -> None:
        made = await accounts.people.create(name, password, role=role, actor=ACTOR)
        print(f"{made.name} can log in now, as {made.role.value}.")

    with_accounts(flags, work)


@user_commands.command(name="list")
@with_settings("home", "database")
def list_users(**flags: object) -> None:
    """Show every account."""

    def list_rows(accounts: Accounts) -> list[tuple[str, ...]]:
        return [
            (user.name, user.role.value, user.state.value, user.limits.words or "none", _day(user.created_unix_s))
            for user in accounts.people.all()
        ]

    print_all(
        flags,
        ("name", "role", "state", "limits", "created"),
        list_rows,
        if_none="There is no account yet: mlx-manager user create NAME makes the admin's.",
    )


@user_commands.command()
@with_settings("home", "database")
def approve(name: _Name, **flags: object) -> None:
    """Let somebody who registered, or was disabled, log in."""
    _change(name, flags, state=UserState.ACTIVE)


@user_commands.command()
@with_settings("home", "database")
def disable(name: _Name, **flags: object) -> None:
    """End an account's sessions, and accept neither its password nor its keys."""
    _change(name, flags, state=UserState.DISABLED)


@user_commands.command()
@with_settings("home", "database")
def role(
    name: _Name, new_role: Annotated[UserRole, typer.Argument(metavar="admin|user", help="New role.")], **flags: object
) -> None:
    """Make an account an admin, or an admin a user."""
    _change(name, flags, role=new_role)


@user_commands.command()
@with_settings("home", "database")
def limit(
    *,
    name: _Name,
    model: Models = [],  # noqa: B006
    rpm: PerMinute = None,
    tokens_per_day: PerDay = None,
    budget: Budget = None,
    local_only: StaysHere = None,
    no_limits: NoLimits = False,
    **flags: object,
) -> None:
    """Limit all keys and sessions of an account together; what is not given stays, and is shown."""

    async def work(accounts: Accounts) -> None:
        user = accounts.people.find(name)
        limits = changed_limits(
            user.limits,
            forget=no_limits,
            models=model,
            requests_per_minute=rpm,
            tokens_per_day=tokens_per_day,
            budget_usd_per_month=budget,
            is_local_only=local_only,
        )
        if limits != user.limits:
            user = await accounts.people.change(user, limits=limits, actor=ACTOR)
        print(f"{user.name}, limits: {user.limits.words or 'none'}")

    with_accounts(flags, work)


@user_commands.command()
@with_settings("home", "database")
def password(name: _Name, **flags: object) -> None:
    """Set a new password; every session of the account ends."""
    new = ask_password(f"New password of {name}")

    async def work(accounts: Accounts) -> None:
        await accounts.people.reset_password(accounts.people.find(name), new, actor=ACTOR)
        print(f"{name} has a new password.")

    with_accounts(flags, work)


@user_commands.command()
@with_settings("home", "database")
def delete(name: _Name, **flags: object) -> None:
    """Delete an account with its sessions and API keys."""
    delete_named(name, flags, lambda accounts: accounts.people.remove(accounts.people.find(name), actor=ACTOR))


def _change(
    name: str, flags: dict[str, object], *, role: UserRole | None = None, state: UserState | None = None
) -> None:
    async def work(accounts: Accounts) -> None:
        user = await accounts.people.change(accounts.people.find(name), role=role, state=state, actor=ACTOR)
        print(f"{user.name}: {user.role.value}, {user.state.value}.")

    with_accounts(flags, work)


def _day(unix_s: int) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(unix_s))
