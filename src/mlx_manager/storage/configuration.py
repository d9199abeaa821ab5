"""All that is configured in the database, as one value that is read in one transaction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from sqlalchemy import func
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from mlx_manager.catalog import ApiKey, Provider, Route, ToolServer, User
from mlx_manager.storage import keys, users
from mlx_manager.storage.named_rows import PROVIDERS, ROUTES, TOOL_SERVERS
from mlx_manager.storage.tables import ApiKeyRow, ChangeRow, OverrideRow, ProviderRow, RouteRow, ToolServerRow, UserRow

KEY_CREATED, OPENED = "key.create", "key.reopen"
"""Actions in the audit that close /v1 to those without a key, and open it on loopback again."""


@dataclass(frozen=True)
class Configuration:
    """What held at one moment. Requests are answered by it, not by the database."""

    change_id: int = 0
    """Of the last change that it contains."""
    users: tuple[User, ...] = ()
    keys: tuple[ApiKey, ...] = ()
    wants_keys: bool = False
    """Whether a key was made since /v1 was opened last, though none may be left: deleting the last opens nothing."""
    digests: Mapping[str, int] = field(default_factory=dict)
    """Of keys, to their ids."""
    providers: tuple[Provider, ...] = ()
    sealed: Mapping[str, str | None] = field(default_factory=dict)
    """The secrets of providers, by name, still encrypted."""
    routes: tuple[Route, ...] = ()
    tool_servers: tuple[ToolServer, ...] = ()
    sealed_of_tools: Mapping[str, str | None] = field(default_factory=dict)
    """The secrets of tool servers, by name, still encrypted."""
    overrides: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def users_by_id(self) -> Mapping[int, User]:
        """Accounts by number."""
        return {user.id: user for user in self.users}

    @cached_property
    def users_by_name(self) -> Mapping[str, User]:
        """Accounts by name."""
        return {user.name: user for user in self.users}

    @cached_property
    def keys_by_id(self) -> Mapping[int, ApiKey]:
        """API keys by number."""
        return {key.id: key for key in self.keys}

    @cached_property
    def providers_by_name(self) -> Mapping[str, Provider]:
        """Providers by name."""
        return {provider.name: provider for provider in self.providers}


async def read_change_id(session: AsyncSession) -> int:
    """The id of the last change."""
    return (await session.exec(select(func.max(ChangeRow.id)))).one() or 0


async def _had_keys(session: AsyncSession) -> bool:
    """From the audit, which tells of every key that was made."""
    wanted = select(ChangeRow.action).where(col(ChangeRow.action).in_((KEY_CREATED, OPENED)))
    last = (await session.exec(wanted.order_by(col(ChangeRow.id).desc()).limit(1))).first()
    return last == KEY_CREATED


async def read_configuration(session: AsyncSession) -> Configuration:
    """Everything, as of now."""
    user_rows = (await session.exec(select(UserRow).order_by(col(UserRow.id)))).all()
    key_rows = (await session.exec(select(ApiKeyRow).order_by(col(ApiKeyRow.id)))).all()
    provider_rows = (await session.exec(select(ProviderRow).order_by(col(ProviderRow.id)))).all()
    route_rows = (await session.exec(select(RouteRow).order_by(col(RouteRow.position), col(RouteRow.id)))).all()
    tool_rows = (await session.exec(select(ToolServerRow).order_by(col(ToolServerRow.id)))).all()
    override_rows = (await session.exec(select(OverrideRow))).all()
    return Configuration(
        change_id=await read_change_id(session),
        users=tuple(users.as_value(row) for row in user_rows),
        keys=tuple(keys.as_value(row) for row in key_rows),
        wants_keys=bool(key_rows) or await _had_keys(session),
        digests={row.digest: row.id for row in key_rows if row.id is not None},
        providers=tuple(PROVIDERS.as_value(row) for row in provider_rows),
        sealed={row.name: row.secret for row in provider_rows},
        routes=tuple(ROUTES.as_value(row) for row in route_rows),
        tool_servers=tuple(TOOL_SERVERS.as_value(row) for row in tool_rows),
        sealed_of_tools={row.name: row.secret for row in tool_rows},
        overrides={row.name: row.value for row in override_rows},
    )
