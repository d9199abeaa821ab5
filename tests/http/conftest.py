"""Servers answered by scripts, as fixtures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from mlx_manager.backends.scripted import Step, script_of
from mlx_manager.catalog.settings import load_settings
from tests.http.scripted_server import HELLO, Recorder, Serve, Served, Shelf, running, shelved


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Starts servers: `serve(scripts or backend, **settings)`; all of them end with the test."""
    with ExitStack() as stack:

        def start(
            scripts: Mapping[str, Sequence[Step]] | Recorder, shelf: Shelf | None = None, **settings: object
        ) -> Served:
            backend = scripts if isinstance(scripts, Recorder) else Recorder(scripts)
            loaded = load_settings({}, {"home": str(tmp_path), "port": 0, **settings})
            return stack.enter_context(running(loaded, backend, shelf or Shelf()))

        yield start


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One server for a whole file: the model `m` says hello, `m3` says it in three choices."""
    settings = load_settings({}, {"home": str(tmp_path_factory.mktemp("home")), "port": 0})
    scripts = {"m": script_of(HELLO), "m3": script_of(HELLO, num_choices=3)}
    shelf = Shelf([shelved("m"), shelved("m3")], default_model="m")
    with running(settings, Recorder(scripts), shelf) as running_server:
        yield running_server
