"""mlx-manager route: which requests go where, from the terminal of the machine that serves."""

from __future__ import annotations

import os
from typing import Annotated, Optional

import msgspec
import typer

from mlx_manager.catalog import PatternKind, Route, RouteConditions, RouteTarget, Spill, TargetOrder, load_settings
from mlx_manager.cli.accounts import ACTOR, Accounts, delete_named, print_all, with_accounts
from mlx_manager.cli.flags import given, with_settings
from mlx_manager.cli.models import print_table
from mlx_manager.errors import InvalidRequest

route_commands = typer.Typer(
    name="route", help="Routes: which requests go where.", no_args_is_help=True, rich_markup_mode=None
)
_HERE = "local"
_TARGETS = "PROVIDER/MODEL or local/MODEL, in order; without /MODEL it is the model that was asked for."
_Name = Annotated[str, typer.Argument(help="Name of the route.")]
# typer reads these at run time
_QueueWait = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option(help="Seconds in the local queue after which the next target is asked."),
]
_WhenTooLong = Annotated[
    Optional[bool],  # noqa: UP045
    typer.Option("--when-too-long/--no-when-too-long", help="Ask the next target when the local context is too short."),
]
_LongerThan = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(help="Only prompts of more tokens than this, as estimated.", min=0),
]
_Images = Annotated[
    Optional[bool],  # noqa: UP045
    typer.Option("--images/--no-images", help="Only requests with images, or only those without."),
]
_Tools = Annotated[
    Optional[bool],  # noqa: UP045
    typer.Option("--tools/--no-tools", help="Only requests with tools, or only those without."),
]
_Order = Annotated[
    Optional[TargetOrder],  # noqa: UP045
    typer.Option(metavar="listed|conversation", help="Targets as listed, or each conversation where it was before."),
]
_User = Annotated[list[str], typer.Option(help="Only requests of this account.")]
_Key = Annotated[list[str], typer.Option(help="Only requests with this API key, as USER/NAME.")]


@route_commands.command(name="list")
@with_settings("home", "database")
def list_routes(**flags: object) -> None:
    """Show every route, in the order in which they are looked at."""

    def list_rows(accounts: Accounts) -> list[tuple[str, ...]]:
        return [
            (
                str(place),
                route.name,
                route.pattern_kind.value,
                route.pattern,
                _render_targets(route),
                "on" if route.is_on else "off",
            )
            for place, route in enumerate(accounts.store.current.routes, 1)
        ]

    print_all(
        flags,
        ("place", "name", "kind", "pattern", "targets", "state"),
        list_rows,
        if_none="There is no route: every request is answered by the local model that it names.",
    )


@route_commands.command()
@with_settings("home", "database")
def add(  # noqa: PLR0913
    *,
    name: _Name,
    pattern: Annotated[str, typer.Argument(help="The model that requests ask for.")],
    target: Annotated[list[str], typer.Argument(help=_TARGETS)],
    kind: Annotated[
        PatternKind, typer.Option(metavar="exact|prefix|regex", help="How the pattern is meant.")
    ] = PatternKind.EXACT,
    queue_wait: _QueueWait = None,
    when_too_long: _WhenTooLong = None,
    longer_than: _LongerThan = None,
    images: _Images = None,
    tools: _Tools = None,
    order: _Order = None,
    user: _User = [],  # noqa: B006
    key: _Key = [],  # noqa: B006
    **flags: object,
) -> None:
    """Add a route behind all others."""
    route = Route(
        id=0,
        name=name,
        position=0,
        pattern_kind=kind,
        pattern=pattern,
        targets=tuple(map(_read_target, target)),
        conditions=RouteConditions(
            longer_than_tokens=longer_than, has_images=images, needs_tools=tools, users=tuple(user), keys=tuple(key)
        ),
        spill=Spill(queue_wait_s=queue_wait, when_too_long=bool(when_too_long)),
        order=order or TargetOrder.LISTED,
    )

    async def work(accounts: Accounts) -> None:
        _say(await accounts.desk.add_route(route, actor=ACTOR))

    with_accounts(flags, work)


@route_commands.command(name="set")
@with_settings("home", "database")
def set_route(  # noqa: PLR0913
    *,
    name: _Name,
    is_on: Annotated[
        Optional[bool],  # noqa: UP045
        typer.Option("--on/--off", help="Whether it is followed."),
    ] = None,
    pattern: Annotated[Optional[str], typer.Option(help="The model that requests ask for.")] = None,  # noqa: UP045
    target: Annotated[list[str], typer.Option(help=_TARGETS + " Replaces all that there were.")] = [],  # noqa: B006
    kind: Annotated[
        Optional[PatternKind],  # noqa: UP045
        typer.Option(metavar="exact|prefix|regex", help="How the pattern is meant."),
    ] = None,
    queue_wait: _QueueWait = None,
    when_too_long: _WhenTooLong = None,
    longer_than: _LongerThan = None,
    images: _Images = None,
    tools: _Tools = None,
    order: _Order = None,
    user: _User = [],  # noqa: B006
    key: _Key = [],  # noqa: B006
    no_conditions: Annotated[bool, typer.Option("--no-conditions", help="Forget its conditions first.")] = False,
    no_spill: Annotated[bool, typer.Option("--no-spill", help="Forget when it spills first.")] = False,
    **flags: object,
) -> None:
    """Change a route; what is not named stays."""
    plain = given(
        pattern=pattern,
        pattern_kind=kind,
        is_on=is_on,
        targets=tuple(map(_read_target, target)) or None,
        order=order,
    )
    conditions = given(
        longer_than_tokens=longer_than,
        has_images=images,
        needs_tools=tools,
        users=tuple(user) or None,
        keys=tuple(key) or None,
    )
    spill = given(queue_wait_s=queue_wait, when_too_long=when_too_long)
    if not (plain or conditions or spill or no_conditions or no_spill):
        raise InvalidRequest("Nothing to change: mlx-manager route set --help")

    async def work(accounts: Accounts) -> None:
        old = accounts.desk.route(name)
        values = plain | {
            "conditions": msgspec.structs.replace(RouteConditions() if no_conditions else old.conditions, **conditions),
            "spill": msgspec.structs.replace(Spill() if no_spill else old.spill, **spill),
        }
        _say(await accounts.desk.change_route(name, values, actor=ACTOR))

    with_accounts(flags, work)


@route_commands.command()
@with_settings("home", "database")
def move(
    name: _Name,
    place: Annotated[int, typer.Argument(help="Its new place in the list; 1 is looked at first.", min=1)],
    **flags: object,
) -> None:
    """Put a route at another place in the order."""

    async def work(accounts: Accounts) -> None:
        routes = await accounts.desk.move_route(name, place, actor=ACTOR)
        print("The order is now: " + ", ".join(route.name for route in routes))

    with_accounts(flags, work)


@route_commands.command(name="test")
@with_settings("home", "host", "port")
def explain(
    *,
    model: Annotated[str, typer.Argument(help="The model that a request asks for.")],
    tokens: Annotated[int, typer.Option(help="Tokens of its prompt.", min=0)] = 0,
    images: Annotated[bool, typer.Option("--images", help="It has images.")] = False,
    tools: Annotated[bool, typer.Option("--tools", help="It has tools.")] = False,
    user: Annotated[Optional[str], typer.Option(help="Account that asks.")] = None,  # noqa: UP045
    key: Annotated[Optional[str], typer.Option(help="API key that asks, as USER/NAME.")] = None,  # noqa: UP045
    local_only: Annotated[bool, typer.Option("--local-only", help="It may not leave this machine.")] = False,
    **flags: object,
) -> None:
    """Ask a running server who would answer a request, and why; no target is asked."""
    from mlx_manager.cli.remote import RemoteServer  # noqa: PLC0415

    question: dict[str, object] = {
        "model": model,
        "num_tokens": tokens,
        "has_images": images,
        "needs_tools": tools,
        "user": user,
        "key": key,
        "is_local_only": local_only,
    }
    explained = RemoteServer(load_settings(os.environ, flags)).ask("POST", "/admin/routes/test", question)
    for step in explained["steps"]:
        print(step)
    print()
    print_table(
        ("order", "backend", "model", "state"),
        [
            (
                str(order),
                one["backend"],
                one["model"],
                "is not here" if one["has_model"] is False else _STATES[one["breaker"]],
            )
            for order, one in enumerate(explained["targets"], 1)
        ],
    )


@route_commands.command()
@with_settings("home", "database")
def rm(name: _Name, **flags: object) -> None:
    """Delete a route."""
    delete_named(name, flags, lambda accounts: accounts.desk.remove_route(name, actor=ACTOR))


_STATES = {"closed": "is asked", "open": "failed, and is left alone for a while", "half_open": "failed, and is tried"}


def _say(route: Route) -> None:
    print(f"{route.name}: {route.pattern} → {_render_targets(route)}{'' if route.is_on else ' (off)'}")


def _read_target(text: str) -> RouteTarget:
    provider, _, model = text.partition("/")
    return RouteTarget(provider=None if provider == _HERE else provider, model=model or None)


def _render_targets(route: Route) -> str:
    return ", ".join(
        (target.provider or _HERE) + (f"/{target.model}" if target.model else "") for target in route.targets
    )
