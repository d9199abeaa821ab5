"""mlx-manager launch: a coding agent, with its settings pointed at a running server."""

from __future__ import annotations

import os
import shutil
from typing import Annotated, Any

import typer

from mlx_manager.catalog import load_settings
from mlx_manager.cli.flags import with_settings
from mlx_manager.errors import ModelNotFound, NotFound

AGENT_ARGUMENTS = {"allow_extra_args": True, "ignore_unknown_options": True}
"""How the command has to be declared: what it does not know itself is the agent's."""


@with_settings("home", "host", "port")
def launch(
    context: typer.Context,
    agent: Annotated[str, typer.Argument(metavar="AGENT", help="claude, codex or opencode.")],
    model: Annotated[
        str | None, typer.Option("--model", metavar="MODEL", help="A model's name; else the server's default.")
    ] = None,
    **flags: object,
) -> None:
    """Start a coding agent on a running server; everything else on the line goes to the agent.

    Its own files stay as they are: the settings travel in variables and flags.
    """
    # help needs neither an HTTP client nor the agents
    from mlx_manager.cli.agents import Aim, agent_named  # noqa: PLC0415
    from mlx_manager.cli.remote import RemoteServer  # noqa: PLC0415

    chosen = agent_named(agent)
    program = shutil.which(chosen.program)
    if program is None:
        raise NotFound(f"{chosen.program} is not installed: {chosen.install}")
    server = RemoteServer(load_settings(os.environ, flags))
    served = _find(server.ask("GET", "/v1/models")["data"], model)
    aim = Aim(server.base, server.token or "none", served["id"], served["max_context"])
    command = chosen.aimed(aim)
    # the agent takes this process over: its screen, its signals and its exit code are its own
    os.execve(program, [program, *command.arguments, *context.args], {**os.environ, **command.variables})


def _find(models: list[dict[str, Any]], name: str | None) -> dict[str, Any]:
    """The model of that name, else the first that can chat. Raises `ModelNotFound`."""
    chats = [model for model in models if "chat" in model["capabilities"]]
    # what those behind a route can is not known: whoever names one says so
    for model in chats if name is None else [*chats, *(model for model in models if model["kind"] == "route")]:
        if name in (None, model["id"]):
            return model
    there = ", ".join(model["id"] for model in chats) or "none"
    asked = "The server has no model" if name is None else f"The server has no model {name!r}"
    raise ModelNotFound(f"{asked} that can chat. Models there: {there}.", param="model")
