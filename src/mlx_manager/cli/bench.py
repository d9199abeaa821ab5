"""mlx-manager bench: the flags. What it does is in `benching`."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from mlx_manager.catalog import load_settings
from mlx_manager.cli.flags import with_settings
from mlx_manager.cli.watching import base_url

WORKLOAD_NAMES = "single, four, eight, sixteen, ragged, shared, chat, poisson, interrupted"
"""As in `bench.WORKLOADS`, which takes long to import; a test holds the two together."""


@with_settings("home", "host", "port")
def bench(
    *,
    url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Address of the server, before /v1; by default the one of --host and --port."),
    ] = None,
    model: Annotated[
        str, typer.Option(metavar="NAME", help="Model to ask; the first that the server lists if not given.")
    ] = "",
    workload: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help=f"What to run, repeatable; all if none: {WORKLOAD_NAMES}.")
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=2, metavar="N", help="Completion length of each request.")] = 64,
    rate: Annotated[
        float, typer.Option(min=0.01, metavar="N", help="Requests a second in the poisson workload.")
    ] = 0.5,
    api_key: Annotated[
        str | None,
        typer.Option(
            metavar="KEY", envvar="MLX_MANAGER_API_KEY", help="Bearer token for the server.", show_default=False
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
    **flags: object,
) -> None:
    """Measure a running server: output tokens a second, time to the first token and between tokens.

    Works on any server that speaks OpenAI's chat completions.
    """
    # httpx and rich take as long as all the rest of the command line
    from mlx_manager.bench import Scale, Target  # noqa: PLC0415
    from mlx_manager.cli.benching import run_bench  # noqa: PLC0415

    settings = load_settings(os.environ, flags)
    url = url or base_url(settings.host, settings.port)
    exit_code = run_bench(Target(url, model, api_key), workload or [], Scale(max_tokens, rate), as_json=as_json)
    raise typer.Exit(exit_code)
