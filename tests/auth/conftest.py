"""Servers with accounts, over scripts."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from mlx_manager.backends.scripted import script_of
from mlx_manager.catalog.settings import load_settings
from tests.http.scripted_server import HELLO, Recorder, Served, Shelf, running, shelved

PASSWORD = "correct horse"
Open = Callable[..., Served]
Headers = dict[str, str]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    """Starts servers over one home: `opened(**settings)`; all of them end with the test."""
    with ExitStack() as stack:

        def start(**settings: object) -> Served:
            loaded = load_settings({}, {"home": str(tmp_path), "port": 0, **settings})
            recorder = Recorder({"m": script_of(HELLO), "other": script_of(HELLO)})
            return stack.enter_context(running(loaded, recorder, Shelf([shelved("m")], default_model="m")))

        yield start


@pytest.fixture(scope="session")
def peopled_home(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Headers]]:
    """A home with the admin ada and the user bob, and their sessions: hashing passwords takes long."""
    home = tmp_path_factory.mktemp("peopled")
    settings = load_settings({}, {"home": str(home), "port": 0})
    with running(settings, Recorder({}), Shelf()) as served, served.http() as client:
        register(client)
        assert client.post("/admin/users", json={"name": "bob", "password": PASSWORD}).status_code == 201
        sessions = {"ada": cookie_of(client)}
        log_in(client, "bob")
        return home, sessions | {"bob": cookie_of(client)}


@pytest.fixture
def peopled(peopled_home: tuple[Path, dict[str, Headers]], tmp_path: Path, opened: Open) -> Open:
    """As `opened`, over a home with ada and bob."""
    shutil.copytree(peopled_home[0], tmp_path, dirs_exist_ok=True)
    return opened


@pytest.fixture
def ada(peopled_home: tuple[Path, dict[str, Headers]]) -> Headers:
    """The admin's session in `peopled`, as headers."""
    return peopled_home[1]["ada"]


@pytest.fixture
def bob(peopled_home: tuple[Path, dict[str, Headers]]) -> Headers:
    """The user's session in `peopled`, as headers."""
    return peopled_home[1]["bob"]


def cookie_of(client: httpx.Client) -> Headers:
    """The session that a client has, as headers."""
    return {"cookie": f"mlx_manager_session={client.cookies['mlx_manager_session']}"}


def register(client: httpx.Client, name: str = "ada", password: str = PASSWORD) -> httpx.Response:
    """POST /auth/register; the client keeps the cookie."""
    return client.post("/auth/register", json={"name": name, "password": password})


def log_in(client: httpx.Client, name: str = "ada", password: str = PASSWORD) -> httpx.Response:
    """POST /auth/login; the client keeps the cookie."""
    return client.post("/auth/login", json={"name": name, "password": password})


def mint(client: httpx.Client, session: Headers, name: str = "ci", **body: object) -> str:
    """The text of a new key of whoever is logged in."""
    made = client.post("/auth/keys", json={"name": name, **body}, headers=session)
    assert made.status_code == 201, made.text
    return str(made.json()["secret"])


def ask(client: httpx.Client, key: str | None = None, model: str = "m", **headers: str) -> httpx.Response:
    """One chat completion."""
    if key is not None:
        headers["authorization"] = f"Bearer {key}"
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}]}
    return client.post("/v1/chat/completions", json=body, headers=headers)
