"""One server with the starter model for all tests that leave it as it was."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.server_process import ServerProcess, serving


@pytest.fixture(scope="session")
def server(starter_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with every setting at its default."""
    with serving(starter_folder, tmp_path_factory.mktemp("home")) as running:
        yield running


@pytest.fixture
def idle_server(server: ServerProcess) -> Iterator[ServerProcess]:
    """The same, and no request or block may be left behind."""
    server.wait_until_idle()
    yield server
    server.wait_until_idle()


@pytest.fixture(scope="session")
def caller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with a tiny model that thinks and calls tools."""
    model = Path(__file__).parents[1] / "data" / "tiny_tool_caller"
    with serving(model, tmp_path_factory.mktemp("home"), "--no-use-spare") as running:
        yield running
        running.wait_until_idle()
