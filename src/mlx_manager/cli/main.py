"""The commands put together, and the one place where an error becomes a line of text and an exit code.

What takes long to import (the app, uvicorn, rich tables) is imported inside the commands, so that help is quick.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from mlx_manager import __version__
from mlx_manager.catalog import SettingsError
from mlx_manager.cli.bench import bench
from mlx_manager.cli.doctor import doctor
from mlx_manager.cli.fit import fit
from mlx_manager.cli.follow import follow
from mlx_manager.cli.import_gguf import import_model
from mlx_manager.cli.key import key_commands
from mlx_manager.cli.launch import AGENT_ARGUMENTS, launch
from mlx_manager.cli.load import load
from mlx_manager.cli.menubar import menubar
from mlx_manager.cli.models import models
from mlx_manager.cli.profile import profile
from mlx_manager.cli.provider import provider_commands
from mlx_manager.cli.ps import ps
from mlx_manager.cli.pull import pull
from mlx_manager.cli.rm import rm
from mlx_manager.cli.route import route_commands
from mlx_manager.cli.search import search
from mlx_manager.cli.secrets import secrets_commands
from mlx_manager.cli.serve import serve
from mlx_manager.cli.service import service_commands
from mlx_manager.cli.show import show
from mlx_manager.cli.unload import unload
from mlx_manager.cli.update_check import update_check
from mlx_manager.cli.user import user_commands
from mlx_manager.errors import MlxManagerError

FAILED, MISUSED = 1, 2

app = typer.Typer(
    name="mlx-manager",
    help="One local inference server for every MLX model on this machine.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(serve)
app.command(name="import")(import_model)
app.command()(search)
app.command()(pull)
app.command()(models)
app.command()(show)
app.command()(rm)
app.command()(ps)
app.command()(load)
app.command()(unload)
app.command()(profile)
app.command(context_settings=AGENT_ARGUMENTS)(launch)
app.command()(fit)
app.command()(doctor)
app.command()(bench)
app.command(name="update-check")(update_check)
app.command()(menubar)
app.command()(follow)
app.add_typer(service_commands)
app.add_typer(user_commands)
app.add_typer(key_commands)
app.add_typer(provider_commands)
app.add_typer(route_commands)
app.add_typer(secrets_commands)


def main() -> None:
    """Run the command line and exit. Exit codes: 0 done, 1 failed, 2 used wrongly, 130 interrupted."""
    try:
        app(prog_name="mlx-manager")
    except SettingsError as error:
        sys.exit(_say(str(error), MISUSED))
    except MlxManagerError as error:
        sys.exit(_say(error.message, FAILED))


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        print(f"mlx-manager {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    pass


def _say(message: str, exit_code: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return exit_code
