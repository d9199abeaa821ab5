"""mlx-manager secrets: the keys that encrypt what is kept of providers, and that sign sessions."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from mlx_manager.cli.accounts import ACTOR, Accounts, with_accounts
from mlx_manager.cli.flags import with_settings

secrets_commands = typer.Typer(
    name="secrets", help="The server's own encryption keys.", no_args_is_help=True, rich_markup_mode=None
)


class Place(StrEnum):
    """Where the keys are kept."""

    FILE = "file"
    KEYCHAIN = "keychain"


@secrets_commands.command()
@with_settings("home", "database")
def rotate(**flags: object) -> None:
    """Encrypt everything anew with a new key, and forget the old one. Everybody has to log in again."""

    async def work(accounts: Accounts) -> None:
        num_secrets = await accounts.store.rotate_secrets(actor=ACTOR)
        print(f"The key is new; {num_secrets} secret(s) were encrypted with it. Everybody has to log in again.")

    with_accounts(flags, work)


@secrets_commands.command()
@with_settings("home", "database")
def move(
    place: Annotated[
        Place, typer.Argument(metavar="keychain|file", help="The system's keychain, or the file secrets/master.json.")
    ],
    **flags: object,
) -> None:
    """Keep the keys in the system's keychain, or in the file again. Nothing else changes; nobody has to log in."""

    async def work(accounts: Accounts) -> None:
        await accounts.store.move_secrets(to_keychain=place is Place.KEYCHAIN, actor=ACTOR)
        where = "the system's keychain" if accounts.store.secrets.is_in_keychain else "secrets/master.json"
        print(f"The keys are in {where}.")

    with_accounts(flags, work)
