"""Prefixes that are kept apart by salt: what one asked is not found by another, on the real engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlx_manager.catalog import LoadOptions
from mlx_manager.hub import Inventory
from mlx_manager.ipc import FromWorker, StepDone
from mlx_manager.ir import (
    Event,
    Finished,
    GenerationRequest,
    PrefixReason,
    PromptReady,
    Sampling,
    TextPrompt,
)
from mlx_manager.worker.load import load
from mlx_manager.worker.serving import Serving
from tests.worker.test_half_precision import write_tiny_llama

PROMPT = "The quick brown fox jumps over the lazy dog. " * 20


@pytest.fixture(scope="module")
def serving(starter_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Serving:
    home = tmp_path_factory.mktemp("home")
    write_tiny_llama(home / "models" / "tiny", starter_folder)
    (entry,) = Inventory(home).entries()
    loaded, _ = load(entry, LoadOptions(kv_budget_bytes=8 * 1024**2), lambda stage, fraction: None)
    assert isinstance(loaded, Serving)
    return loaded


def ask(serving: Serving, number: int, salt: str, num_choices: int = 1) -> tuple[int, PrefixReason]:
    """Tokens of the prompt that were cached, and why there were no more."""
    events: list[Event] = []

    def take(message: FromWorker) -> None:
        assert isinstance(message, StepDone)
        events.extend(event for delta in message.deltas for event in delta.events)

    serving.publish = take
    request = GenerationRequest(
        request_id=f"r{number}",
        model="tiny",
        prompt=TextPrompt(text=PROMPT),
        sampling=Sampling(max_tokens=40, temperature=0.0, ignore_eos=True),
        num_choices=num_choices,
        cache_salt=salt,
    )
    assert serving.submit(request) is None
    while not any(isinstance(event, Finished) for event in events):
        serving.step()
    (finished,) = [event for event in events if isinstance(event, Finished)]
    (ready,) = [event for event in events if isinstance(event, PromptReady)]
    assert ready.prefix is not None
    return finished.usage.num_cached_tokens, ready.prefix.reason


def test_another_s_prefix_is_not_found(serving: Serving) -> None:
    assert ask(serving, 1, "user 1") == (0, PrefixReason.UNSEEN)
    # nor is it told that somebody asked the same
    assert ask(serving, 2, "user 2") == (0, PrefixReason.UNSEEN)
    assert ask(serving, 3, "") == (0, PrefixReason.UNSEEN)
    for number, salt in enumerate(("user 1", "user 2", ""), start=4):
        num_cached, reason = ask(serving, number, salt, num_choices=2)
        assert reason is PrefixReason.COMPLETE
        assert num_cached > 150
    stats = serving.stats()
    assert stats.num_blocks_used == 0
    assert stats.num_blocks_free + stats.num_blocks_cached == stats.num_blocks_total
