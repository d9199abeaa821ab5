"""Accounts and API keys, as plain values. Passwords and the keys themselves are not in them."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class UserRole(StrEnum):
    """What an account may do."""

    USER = "user"
    ADMIN = "admin"


class UserState(StrEnum):
    """Whether an account may be used."""

    PENDING = "pending"
    """Registered, and not approved by an admin yet."""
    ACTIVE = "active"
    DISABLED = "disabled"


class KeyLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a key, or an account with all its keys and sessions, may ask for. None and empty: no limit."""

    models: tuple[str, ...] = ()
    """The names that may be asked for, as requests have them."""
    requests_per_minute: int | None = None
    tokens_per_day: int | None = None
    """Prompt and completion together, by days of UTC."""
    budget_usd_per_month: float | None = None
    """What its requests may cost at providers, by months of UTC."""
    is_local_only: bool = False
    """Nothing that it asks leaves this machine."""

    @property
    def words(self) -> str:
        """For people; empty where nothing is limited."""
        words = (
            f"models {', '.join(self.models)}" if self.models else "",
            f"{self.requests_per_minute} requests a minute" if self.requests_per_minute else "",
            f"{self.tokens_per_day} tokens a day" if self.tokens_per_day else "",
            f"${self.budget_usd_per_month:g} a month" if self.budget_usd_per_month else "",
            "this machine only" if self.is_local_only else "",
        )
        return ", ".join(word for word in words if word)


class User(msgspec.Struct, frozen=True, kw_only=True):
    """One account."""

    id: int
    name: str
    """Lower case."""
    role: UserRole
    state: UserState
    created_unix_s: int
    limits: KeyLimits = KeyLimits()
    """Hold for all of its keys and sessions together, besides what each key has of its own."""

    @property
    def is_admin(self) -> bool:
        """Whether it may administer now."""
        return self.role is UserRole.ADMIN and self.state is UserState.ACTIVE


class Scope(StrEnum):
    """What an API key is good for."""

    INFERENCE = "inference"
    ADMIN = "admin"
    """Everything under /admin, as long as its user is an admin."""


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """One API key. The key itself is shown once, when it is minted, and nowhere kept."""

    id: int
    user_id: int
    name: str
    hint: str
    """Its last four characters, to tell it from others."""
    scopes: tuple[Scope, ...]
    limits: KeyLimits
    created_unix_s: int
    expires_unix_s: int | None = None
    last_used_unix_s: int | None = None

    def is_expired(self, now_unix_s: float) -> bool:
        """Whether it is good no longer."""
        return self.expires_unix_s is not None and now_unix_s >= self.expires_unix_s
