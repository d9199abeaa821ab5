"""mlx-manager ps: what a running server has in memory."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer

from mlx_manager.catalog import load_settings, render_size
from mlx_manager.cli.flags import with_settings
from mlx_manager.cli.models import print_json, print_table


@with_settings("home", "host", "port")
def ps(
    is_all: Annotated[bool, typer.Option("--all", help="Also models that are not in memory.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    **flags: object,
) -> None:
    """Show the models that a running server has in memory, and what they take of it."""
    # help needs no HTTP client
    from mlx_manager.cli.remote import RemoteServer  # noqa: PLC0415

    server = RemoteServer(load_settings(os.environ, flags))
    models = [model for model in server.models() if is_all or model["state"] != "cold"]
    books = server.ask("GET", "/admin/stats")["pool"]
    if as_json:
        print_json({"pool": books, "models": models})
        return
    if models:
        print_table(("name", "state", "requests", "idle", "planned", "measured", "note"), [_row(one) for one in models])
    else:
        print("No model is in memory. A request loads its model; so does mlx-manager load NAME.")
    budget = render_size(books["budget_bytes"]) if books["budget_bytes"] else "not known before the first load"
    spare = f" and {render_size(books['spare_bytes'])} for the spare worker" if books.get("spare_bytes") else ""
    print(f"\n{render_size(books['planned_bytes'])}{spare} planned of a budget of {budget}.")


def _row(model: dict[str, Any]) -> tuple[str, ...]:
    idle = "" if model["idle_s"] is None else f"{model['idle_s']:.0f} s"
    planned, measured = ((model[key] and render_size(model[key])) or "" for key in ("planned_bytes", "measured_bytes"))
    return (model["id"], model["state"], str(model["num_in_flight"]), idle, planned, measured, _note(model))


def _note(model: dict[str, Any]) -> str:
    if model["state"] == "loading":
        return f"{model['stage']} ({model['fraction']:.0%})"
    if model["error"] is not None:
        return " ".join(str(model["error"]["message"]).split())
    return ", ".join(word for word, holds in (("pinned", model["pinned"]), ("trimmed", model["is_trimmed"])) if holds)
