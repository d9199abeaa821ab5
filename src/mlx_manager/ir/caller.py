"""Who asks, as far as what is done with a request depends on it."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from mlx_manager.errors import NotPermitted


class CallerKind(StrEnum):
    """How somebody said who they are."""

    OPEN = "open"
    """Not at all: on loopback, while no key has been minted."""
    LOCAL = "local"
    """A command of this machine's user."""
    SESSION = "session"
    KEY = "key"


class Purse(msgspec.Struct, frozen=True, kw_only=True):
    """What one API key, or one account with all its keys and sessions, may use. None: without a limit."""

    place: str
    """Under which it is summed up: `place_of_key` or `place_of_user`."""
    whose: str
    """For people: API key 'ci', or account 'ada'."""
    requests_per_minute: int | None = None
    tokens_per_day: int | None = None
    budget_usd_per_month: float | None = None


def place_of_key(key_id: int) -> str:
    """Where the use of an API key is summed up."""
    return f"key {key_id}"


def place_of_user(user_id: int) -> str:
    """Where the use of an account is summed up."""
    return f"user {user_id}"


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody who was let in."""

    kind: CallerKind = CallerKind.OPEN
    user_id: int | None = None
    user_name: str | None = None
    key_id: int | None = None
    key_name: str | None = None
    session_id: str | None = None
    is_admin: bool = False
    """Whether everything under /admin is open to them."""
    may_infer: bool = True
    models: tuple[str, ...] = ()
    """The models that their API key may ask for; empty: all."""
    user_models: tuple[str, ...] = ()
    """Those that their account may ask for; empty: all."""
    is_local_only: bool = False
    """Whether nothing of theirs may leave this machine."""
    purses: tuple[Purse, ...] = ()
    """What their key and their account may use."""

    @property
    def label(self) -> str:
        """For the audit: user:ada, key:ci, local."""
        match self.kind:
            case CallerKind.KEY:
                return f"key:{self.key_name} of {self.user_name}"
            case CallerKind.SESSION:
                return f"user:{self.user_name}"
            case _:
                return self.kind.value

    @property
    def key_label(self) -> str | None:
        """Their API key, and whose it is, for anybody may call theirs as they like: ada/ci."""
        return None if self.key_name is None else f"{self.user_name}/{self.key_name}"

    @property
    def user_salt(self) -> str:
        """What tells their account from others'."""
        return "nobody" if self.user_id is None else f"user {self.user_id}"

    @property
    def key_salt(self) -> str:
        """What tells their API key from others'; without one, their account."""
        return self.user_salt if self.key_id is None else f"key {self.key_id}"

    def may_ask(self, model: str) -> bool:
        """Whether this caller may ask for `model`."""
        return all(not allowed or model in allowed for allowed in (self.models, self.user_models))

    def check_model(self, model: str) -> None:
        """Raises `NotPermitted` for a model that this caller may not ask for."""
        if not self.may_ask(model):
            whose, allowed = "API key", self.models
            if not allowed or model in allowed:
                whose, allowed = "account", self.user_models
            raise NotPermitted(
                f"This {whose} may not ask for the model {model!r}. It may ask for: {', '.join(allowed)}.",
                param="model",
            )


ANYONE = Caller()
"""Who asks where nobody has to say."""
