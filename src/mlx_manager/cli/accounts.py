"""The database opened for one command, which works beside a running server: it follows within about a second."""

from __future__ import annotations

import asyncio
import getpass
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from mlx_manager.catalog import load_settings
from mlx_manager.cli.models import print_table
from mlx_manager.errors import InvalidRequest

if TYPE_CHECKING:
    from mlx_manager.auth import Keys, People
    from mlx_manager.gateway import Desk
    from mlx_manager.storage.store import Store

ACTOR = "cli"
_T = TypeVar("_T")


@dataclass(frozen=True)
class Accounts:
    """What commands about accounts, keys, providers and routes work with."""

    store: Store
    people: People
    keys: Keys
    desk: Desk


def with_accounts(flags: Mapping[str, object], work: Callable[[Accounts], Awaitable[_T]]) -> _T:
    """What `work` returns. Raises `MlxManagerError`."""

    async def run() -> _T:
        async with _opened(flags) as accounts:
            return await work(accounts)

    return asyncio.run(run())


def print_all(
    flags: Mapping[str, object],
    header: Sequence[str],
    list_rows: Callable[[Accounts], list[tuple[str, ...]]],
    *,
    if_none: str,
) -> None:
    """Print a table of what `list_rows` finds, or the sentence that says that there is nothing, and what to do."""

    async def work(accounts: Accounts) -> list[tuple[str, ...]]:
        return list_rows(accounts)

    rows = with_accounts(flags, work)
    if rows:
        print_table(header, rows)
    else:
        print(if_none)


def delete_named(name: str, flags: Mapping[str, object], remove: Callable[[Accounts], Awaitable[None]]) -> None:
    """Delete something by `remove`, and say so."""

    async def work(accounts: Accounts) -> None:
        await remove(accounts)
        print(f"{name} is deleted.")

    with_accounts(flags, work)


def ask_password(prompt: str) -> str:
    """From the terminal, twice and unseen, else one line of standard input. Raises `InvalidRequest`."""
    if not sys.stdin.isatty():
        password = sys.stdin.readline().rstrip("\n")
        if not password:
            raise InvalidRequest("No password: type it in a terminal, or give it as a line on standard input.")
        return password
    password = getpass.getpass(f"{prompt}: ")
    if getpass.getpass("Once more: ") != password:
        raise InvalidRequest("The two passwords differ.")
    return password


def ask_secret(prompt: str, variable: str | None = None) -> str:
    """From the environment, where a variable is named; else from the terminal, unseen, or a line of standard input.

    Raises `InvalidRequest`.
    """
    if variable is not None:
        secret = os.environ.get(variable, "")
    elif sys.stdin.isatty():
        secret = getpass.getpass(f"{prompt}: ")
    else:
        secret = sys.stdin.readline()
    secret = secret.strip()
    if not secret:
        where = f"The variable {variable} is empty" if variable else "It was not typed, nor is it on standard input"
        raise InvalidRequest(f"No key. {where}.")
    return secret


@asynccontextmanager
async def _opened(flags: Mapping[str, object]) -> AsyncIterator[Accounts]:
    # the database's driver and what is above it are not cheap, and help needs none of them
    from mlx_manager.auth import Keys, People  # noqa: PLC0415
    from mlx_manager.gateway import Desk  # noqa: PLC0415
    from mlx_manager.storage.store import Store  # noqa: PLC0415

    settings = load_settings(os.environ, flags)
    settings.home.mkdir(parents=True, exist_ok=True)
    store = await Store.open(settings.database, settings.home)
    try:
        yield Accounts(store=store, people=People(store), keys=Keys(store), desk=Desk(store))
    finally:
        await store.close()
