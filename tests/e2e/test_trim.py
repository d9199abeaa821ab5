"""Two real workers and room for one KV arena: the idle one gives its arena back, and answers afterwards as before."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from mlx_manager.catalog import LoadOptions
from mlx_manager.hub import STARTER_NAME, Footprint, Inventory
from mlx_manager.pool.memory import MemoryPlan, measure_process, predict_here
from tests.e2e.server_process import PATIENCE_S, ServerProcess, serving
from tests.e2e.tiny_model import make_tiny_model

KV_BYTES = 48 * 1024**2
OPTIONS = LoadOptions(kv_budget_bytes=KV_BYTES)
TINY = "tiny"
PROMPT = "".join(f"The square of {number} is {number * number}. " for number in range(45)) + "The square of 45 is"
"""About 700 tokens: their keys and values nearly fill the arena."""


@pytest.fixture(scope="module")
def models_home(starter_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("trim")
    (home / "models").mkdir()
    (home / "models" / STARTER_NAME).symlink_to(starter_folder)
    make_tiny_model(home / "models" / TINY, starter_folder, seed=0)
    return home


@pytest.fixture(scope="module")
def footprints(models_home: Path) -> dict[str, Footprint]:
    return {entry.name: predict_here(entry, OPTIONS) for entry in Inventory(models_home).entries()}


@pytest.fixture(scope="module")
def server(models_home: Path, footprints: dict[str, Footprint]) -> Iterator[ServerProcess]:
    """A server whose budget holds both models, but the KV arena of the starter model only when the other has none."""
    whole, tiny_whole = (MemoryPlan(OPTIONS, footprints[name]).num_bytes for name in (STARTER_NAME, TINY))
    # What a process shares, and so is billed for, depends on how many others there are: room for that on both sides.
    budget = int(1.04 * whole) + (footprints[TINY].fixed_bytes + tiny_whole) // 2
    assert budget < whole + tiny_whole
    flags = ("--memory-budget", str(budget), "--kv-budget", str(KV_BYTES), "--no-use-spare")
    with serving(models_home / "models" / STARTER_NAME, models_home, *flags) as running:
        yield running


def model(server: ServerProcess, name: str) -> dict[str, Any]:
    shown: dict[str, Any] = httpx.get(f"{server.url}/admin/models/{name}", timeout=PATIENCE_S).raise_for_status().json()
    return shown


def books_of(server: ServerProcess) -> dict[str, Any]:
    books: dict[str, Any] = httpx.get(f"{server.url}/admin/stats", timeout=PATIENCE_S).json()["pool"]
    return books


def ask(server: ServerProcess, name: str, prompt: str) -> openai.types.Completion:
    extra = {"ignore_eos": True}
    answered = server.sdk.completions.create(model=name, prompt=prompt, max_tokens=8, temperature=0, extra_body=extra)
    assert answered.model == name
    return answered


def num_cached(answered: openai.types.Completion) -> int:
    assert answered.usage is not None
    assert answered.usage.prompt_tokens_details is not None
    return answered.usage.prompt_tokens_details.cached_tokens or 0


def test_an_idle_arena_is_given_back_and_answers_stay_the_same(
    server: ServerProcess, footprints: dict[str, Footprint]
) -> None:
    first = ask(server, STARTER_NAME, PROMPT)
    assert num_cached(ask(server, STARTER_NAME, PROMPT)) > 500
    pid = model(server, STARTER_NAME)["worker_pid"]
    arena_bytes = server.stats()["arena_bytes"]
    assert arena_bytes > 0.6 * KV_BYTES
    held_bytes = measure_process(pid)

    ask(server, TINY, "One")
    shown = model(server, STARTER_NAME)
    assert (shown["state"], shown["is_trimmed"], shown["worker_pid"]) == ("ready", True, pid)
    assert server.stats()["arena_bytes"] == 0
    assert held_bytes - measure_process(pid) > 0.9 * arena_bytes
    assert shown["planned_bytes"] >= measure_process(pid) * 0.98
    assert shown["planned_bytes"] <= footprints[STARTER_NAME].fixed_bytes * 1.1
    log = httpx.get(f"{server.url}/admin/evictions", timeout=PATIENCE_S).json()["evictions"]
    assert [(one["model"], one["for_model"], one["is_trim"]) for one in log] == [(STARTER_NAME, TINY, True)]

    again = ask(server, STARTER_NAME, PROMPT)
    assert num_cached(again) == 0
    assert again.choices[0].text == first.choices[0].text
    assert num_cached(ask(server, STARTER_NAME, PROMPT)) > 500
    shown = model(server, STARTER_NAME)
    assert (shown["is_trimmed"], shown["worker_pid"]) == (False, pid)
    assert model(server, TINY)["is_trimmed"] is True
    books = books_of(server)
    assert (books["num_trims"], books["num_evictions"], books["num_loads"]) == (2, 0, 2)
    assert books["planned_bytes"] <= books["budget_bytes"]


def test_both_models_asked_at_once_are_both_answered(server: ServerProcess) -> None:
    alone = {name: ask(server, name, "Three little").choices[0].text for name in (STARTER_NAME, TINY)}
    before = books_of(server)
    with ThreadPoolExecutor(8) as clients:
        for answered in clients.map(lambda name: ask(server, name, "Three little"), [STARTER_NAME, TINY] * 4):
            assert answered.choices[0].text == alone[answered.model]
    after = books_of(server)
    assert after["num_trims"] > before["num_trims"]
    assert (after["num_loads"], after["num_refused"]) == (2, 0)
