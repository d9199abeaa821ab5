"""mlx-manager secrets: the keys that encrypt what is kept of providers, and that sign sessions."""

from __future__ import annotations

import typer

from mlx_manager.cli.flags import with_settings

secrets_commands = typer.Typer(
    name="secrets", help="The server's own encryption keys.", no_args_is_help=True, rich_markup_mode=None
)


@secrets_commands.callback()
def _group() -> None:
    pass


@secrets_commands.command()
@with_settings("home", "database")
def rotate(**flags: object) -> None:
    """Encrypt everything anew with a new key, and forget the old one. Everybody has to log in again."""
    from mlx_manager.cli.accounts import ACTOR, Accounts, with_accounts  # noqa: PLC0415

    async def work(accounts: Accounts) -> None:
        num_secrets = await accounts.store.rotate_secrets(actor=ACTOR)
        print(f"The key is new; {num_secrets} secret(s) were encrypted with it. Everybody has to log in again.")

    with_accounts(flags, work)
