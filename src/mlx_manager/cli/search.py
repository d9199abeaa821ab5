"""mlx-manager search: what the model hub has."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, cast

import typer

from mlx_manager.catalog import ModelKind, SettingsError, load_settings, render_size
from mlx_manager.cli.flags import with_settings
from mlx_manager.cli.models import print_json, print_table, render_count

if TYPE_CHECKING:
    from mlx_manager.hub.search import SearchHit, Sort

_MOST = 200
_PARAMS = re.compile(r"(min|max):[\d.]+[KMBT]?(,(min|max):[\d.]+[KMBT]?)?")
"""As the hub takes it."""


@with_settings("home", "hf_token", "scan_folders")
def search(  # noqa: PLR0913
    query: Annotated[str, typer.Argument(metavar="[QUERY]", help="Part of a model's name.")] = "",
    *,
    sort: Annotated[
        str, typer.Option(metavar="downloads|likes|updated|created|trending", help="Which come first.")
    ] = "downloads",
    kind: Annotated[
        str | None, typer.Option(metavar="|".join(ModelKind), help="Only models of this kind.", show_default=False)
    ] = None,
    author: Annotated[str | None, typer.Option(help="Only models of this user or organization.")] = None,
    params: Annotated[
        str | None, typer.Option(metavar="RANGE", help="Only of so many parameters, such as min:1B,max:8B.")
    ] = None,
    limit: Annotated[int, typer.Option(help="How many to show.", min=1, max=_MOST)] = 20,
    offset: Annotated[int, typer.Option(help="How many to pass over.", min=0)] = 0,
    all_formats: Annotated[bool, typer.Option("--all", help="Not only models made for MLX.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    **flags: object,
) -> None:
    """Search the model hub for models made for MLX."""
    # the hub's client takes most of a second
    from mlx_manager.cli.disk import hub_desk  # noqa: PLC0415
    from mlx_manager.hub.search import SORTS, SearchQuery  # noqa: PLC0415

    _check_word("sort", sort, SORTS)
    _check_word("kind", kind, tuple(ModelKind))
    if params is not None and not _PARAMS.fullmatch(params):
        raise SettingsError(
            f"params cannot be {params!r} (from the flag --params): write min:1B,max:8B, or one of them."
        )
    settings = load_settings(os.environ, flags)
    asked = SearchQuery(
        text=query,
        author=author,
        kind=ModelKind(kind) if kind else None,
        is_any_format=all_formats,
        num_parameters=params,
        sort=cast("Sort", sort),
        limit=limit,
        offset=offset,
    )
    page = hub_desk(settings).search_now(asked)
    hits = page.hits
    if as_json:
        print_json(hits)
    elif hits:
        print_table(
            ("name", "task", "parameters", "size", "downloads", "likes", "updated", ""), [_row(h) for h in hits]
        )
        if page.has_more:
            print(f"There are more: --offset {offset + len(hits)}")
    else:
        what = "" if all_formats else " for MLX; --all searches the others, too"
        print(f"Nothing was found{what}.")


def _check_word(name: str, given: str | None, allowed: tuple[str, ...]) -> None:
    if given is not None and given not in allowed:
        raise SettingsError(
            f"{name} cannot be {given!r} (from the flag --{name}): it takes one of {', '.join(allowed)}."
        )


def _row(hit: SearchHit) -> tuple[str, ...]:
    updated = datetime.fromtimestamp(hit.updated_unix_s, UTC).date().isoformat() if hit.updated_unix_s else "?"
    marks = [
        word
        for word, holds in (("here", hit.is_on_disk), ("gated", hit.is_gated), ("private", hit.is_private))
        if holds
    ]
    return (
        hit.id,
        hit.task or "?",
        render_count(hit.num_parameters),
        render_size(hit.size_bytes) if hit.size_bytes else "?",
        f"{hit.downloads or 0:,}",
        f"{hit.likes or 0:,}",
        updated,
        ", ".join(marks),
    )
