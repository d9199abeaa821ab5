"""What the long tests of faults share: a model that loads in a moment, and figures that are printed at the end."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.e2e.tiny_model import make_tiny_model
from tests.hub.hub_server import HubServer, running_hub

_FIGURES = pytest.StashKey[list[str]]()
Note = Callable[[str, Sequence[float]], None]


@pytest.fixture(scope="session")
def tiny_folder(starter_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random model with a context of 16,384 tokens. Read only."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    make_tiny_model(folder, starter_folder, seed=1, max_context=16_384)
    return folder


@pytest.fixture
def hub() -> Iterator[HubServer]:
    """A model hub on loopback, empty."""
    with running_hub() as server:
        yield server


@pytest.fixture
def say(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Keeps a line for the end of the run."""
    return request.config.stash.setdefault(_FIGURES, []).append


@pytest.fixture
def note(request: pytest.FixtureRequest) -> Note:
    """Keeps seconds that were measured, for the end of the run."""
    kept = request.config.stash.setdefault(_FIGURES, [])

    def keep(name: str, seconds: Sequence[float]) -> None:
        median_s, most_s = statistics.median(seconds), max(seconds)
        kept.append(f"{name}: {len(seconds)} times, median {median_s:.2f} s, at most {most_s:.2f} s")

    return keep


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the figures."""
    for line in config.stash.get(_FIGURES, []):
        terminalreporter.write_line(line)
