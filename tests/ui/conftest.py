"""One server with the starter model and a hub of its own, and one browser, for all pages of the console."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser

from mlx_manager.api.who import SESSION_COOKIE
from tests.e2e.server_process import ServerProcess, serving
from tests.hub.conftest import CONFIG, weights
from tests.hub.hub_server import HubServer, Repository, running_hub
from tests.ui.browser import Theme, Watched, running_browser

OpenPage = Callable[..., Watched]
ADMIN, PASSWORD = "ada", "long enough to be one"
EVIL = '<img src=x onerror="window.evil=1"><script>window.evil=1</script>[click](javascript:window.evil=1)'
CARD = f"---\nlicense: mit\npipeline_tag: text-generation\n---\n# Tiny\n\nAnswers little. {EVIL}\n"


@pytest.fixture(scope="session")
def hub_of_console() -> Iterator[HubServer]:
    """A hub with one small model whose card is hostile."""
    with running_hub() as hub:
        hub.repositories["org/tiny"] = Repository(
            files={
                "README.md": CARD.encode(),
                "config.json": json.dumps(CONFIG).encode(),
                "tokenizer.json": b"{}" * 2000,
                "model.safetensors": weights(),
            },
            facts={
                "tags": ["mlx", "safetensors", "llama", "4-bit"],
                "downloads": 5,
                "likes": 1,
                "pipeline_tag": "text-generation",
                "config": {"model_type": "llama", "tokenizer_config": {"chat_template": "{{ tools }}"}},
            },
        )
        yield hub


@pytest.fixture(scope="session")
def console_server(
    starter_folder: Path, hub_of_console: HubServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """`mlx-manager serve` as a person starts it: the starter model is in its home."""
    home = tmp_path_factory.mktemp("console")
    with pytest.MonkeyPatch.context() as variables:
        # of the server's process, which inherits them
        variables.setenv("HF_ENDPOINT", hub_of_console.url)
        variables.setenv("HF_HOME", str(home / "huggingface"))
        folder = shutil.copytree(starter_folder, home / "models" / starter_folder.name)
        with serving(folder, home) as server:
            yield server


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Chromium; without it the tests are skipped. While it is there, an event loop runs in this process, beside which
    no asynchronous test can: those of this package come first."""
    with running_browser() as running:
        yield running


@pytest.fixture(scope="session")
def session(console_server: ServerProcess) -> str:
    """The cookie of the first account's session, which is an admin's."""
    with console_server.http() as http:
        http.post("/auth/register", json={"name": ADMIN, "password": PASSWORD}).raise_for_status()
        return str(http.cookies[SESSION_COOKIE])


@pytest.fixture(scope="session")
def admin_client(console_server: ServerProcess, session: str) -> Iterator[httpx.Client]:
    """HTTP with that session."""
    with console_server.http() as http:
        http.cookies.set(SESSION_COOKIE, session)
        yield http


@pytest.fixture
def open_page(browser: Browser, console_server: ServerProcess, session: str) -> Iterator[OpenPage]:
    """Opens pages: `open_page(width=390, theme="dark")`. Whatever a page complains about fails the test."""
    opened: list[Watched] = []

    def start(*, width: int = 1440, theme: Theme = "light", is_logged_in: bool = True) -> Watched:
        height = 844 if width < 500 else 900
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=theme, reduced_motion="reduce"
        )
        context.set_default_timeout(15_000)
        if is_logged_in:
            context.add_cookies([{"name": SESSION_COOKIE, "value": session, "url": console_server.url}])
        watched = Watched(context.new_page(), console_server.url, theme)
        watched.watch()
        opened.append(watched)
        return watched

    yield start
    complaints = [complaint for watched in opened for complaint in watched.complaints]
    for watched in opened:
        watched.page.context.close()
    assert complaints == []
