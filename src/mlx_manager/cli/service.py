"""mlx-manager service: the server started with the session of this user, by launchd or systemd."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from mlx_manager.catalog import load_settings
from mlx_manager.cli.flags import with_settings
from mlx_manager.cli.services import Plan, Service, service_of

service_commands = typer.Typer(
    name="service", help="Start the server whenever this user logs in.", no_args_is_help=True, add_completion=False
)
_START = typer.Option("--start/--no-start", help="Start it now as well.")


@service_commands.command()
@with_settings("home")
def install(start: Annotated[bool, _START] = True, **flags: object) -> None:
    """Install the service: it runs `mlx-manager serve` with the settings of config.toml in home."""
    service = _service(flags)
    service.install(starts=start)
    print(f"Installed: {service.file}")
    print(f"Its log: {service.log}")


@service_commands.command()
@with_settings("home")
def status(**flags: object) -> None:
    """Say whether the service is installed, and what launchd or systemd says of it."""
    print(_service(flags).status())


@service_commands.command()
@with_settings("home")
def uninstall(**flags: object) -> None:
    """Stop the service and remove it. Home stays as it is."""
    service = _service(flags)
    print(f"Removed: {service.file}" if service.uninstall() else f"There was none at {service.file}.")


def _service(flags: dict[str, object]) -> Service:
    settings = load_settings(os.environ, flags)
    return service_of(Plan(settings.home, os.environ, settings.shutdown_timeout_s))
