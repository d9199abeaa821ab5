"""The prefix cache on disk: what is found there is what was computed, and the folder never outgrows its bound."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mlx_manager.engine.attention import DecodeAttention
from mlx_manager.engine.block_store import StoredBlock
from mlx_manager.engine.blocks import BLOCK_SIZE
from mlx_manager.engine.disk_cache import DiskCache
from mlx_manager.engine.engine import Engine, EngineConfig, EngineRequest, Lookahead
from mlx_manager.engine.runner import PagedRunner
from tests.engine.real_engine import ANSWER, GREEDY, Drive, Starter

PROMPT = "700 tokens"
BLOCK: StoredBlock = (b"keys" * 1000, b"values" * 1000)
MANY = 1024**3


def new_cache(folder: Path, max_bytes: int = MANY, model: str = "model") -> DiskCache:
    return DiskCache(folder, model, max_bytes, lambda blocks: [BLOCK for _ in blocks])


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_a_block_is_found_again_by_the_next_process(tmp_path: Path) -> None:
    first = new_cache(tmp_path)
    assert first.put(b"key", BLOCK)
    first.flush()
    again = new_cache(tmp_path)
    assert b"key" in again
    assert again.fetch(b"key") == BLOCK
    assert b"key" not in new_cache(tmp_path, model="another")


@pytest.mark.parametrize("damage", ["cut", "flipped", "swapped", "empty"])
def test_a_damaged_file_is_removed_and_never_used(tmp_path: Path, damage: str) -> None:
    cache = new_cache(tmp_path)
    cache.put(b"key", BLOCK)
    cache.put(b"other", (b"x" * 4000, b"y" * 6000))
    cache.flush()
    path = tmp_path / "model" / f"{b'key'.hex()}.safetensors"
    data = path.read_bytes()
    other = (tmp_path / "model" / f"{b'other'.hex()}.safetensors").read_bytes()
    path.write_bytes({"cut": data[:-5], "flipped": data[:-1] + b"\0", "swapped": other, "empty": b""}[damage])
    assert cache.fetch(b"key") is None
    assert b"key" not in cache
    assert not path.exists()
    assert cache.fetch(b"other") is not None


def test_the_folder_stays_within_its_bound_and_keeps_what_was_read_last(tmp_path: Path) -> None:
    one = new_cache(tmp_path)
    one.put(b"0", BLOCK)
    one.flush()
    bound = 3 * size_of(tmp_path) + 1000
    cache = new_cache(tmp_path, bound)
    other = new_cache(tmp_path, bound, "another model")
    for name in (b"1", b"2", b"3"):
        os.utime(tmp_path / "model" / f"{b'0'.hex()}.safetensors")
        (cache if name != b"2" else other).put(name, BLOCK)
        cache.flush()
        other.flush()
        assert size_of(tmp_path) <= bound
    assert cache.fetch(b"0") == BLOCK
    assert cache.fetch(b"3") == BLOCK
    assert cache.fetch(b"1") is None
    # a file that is larger than everything is not written at all
    cache.put(b"huge", (b"x" * bound,))
    cache.flush()
    assert b"huge" not in cache
    assert size_of(tmp_path) <= bound


def test_what_a_crash_left_is_cleared_away(tmp_path: Path) -> None:
    new_cache(tmp_path)
    partial = tmp_path / "model" / ".abcd.partial"
    partial.write_bytes(b"x" * 1000)
    (tmp_path / "model" / "no key.safetensors").write_bytes(b"x")
    assert len(new_cache(tmp_path)) == 0
    assert not partial.exists()


def engine_with_disk(starter: Starter, folder: Path, num_blocks: int) -> tuple[Drive, DiskCache]:
    runner = PagedRunner(starter.loaded.model, starter.caches, num_blocks, DecodeAttention.GATHER_MM)
    cache = DiskCache(folder, "starter", MANY, runner.read_blocks)
    config = EngineConfig(num_blocks=num_blocks, lookahead=Lookahead.OVERLAP)
    return Drive(Engine(runner, config, disk_cache=cache), runner), cache


def test_a_prompt_seen_before_a_restart_is_not_prefilled_again(starter: Starter, tmp_path: Path) -> None:
    first, _ = engine_with_disk(starter, tmp_path, 64)
    first.add(starter.ask(PROMPT, ANSWER))
    assert first.run() == starter.expected([PROMPT], ANSWER)
    while first.engine.spill(8):
        first.engine.flush()
    again, _ = engine_with_disk(starter, tmp_path, 64)
    # beside another, and twice at once: the second finds in the arena what the first brought there
    again.add(starter.ask("digits", ANSWER), starter.ask(PROMPT, ANSWER), starter.ask(PROMPT, ANSWER, key="twin"))
    tokens = again.run()
    assert tokens.pop("twin") == tokens[PROMPT]
    assert tokens == starter.expected(["digits", PROMPT], ANSWER)
    num_full = (len(starter.prompts[PROMPT]) - 1) // BLOCK_SIZE
    assert again.engine.scheduler.num_restored_tokens == num_full * BLOCK_SIZE
    assert again.engine.counters.num_cached_tokens >= 2 * num_full * BLOCK_SIZE
    again.engine.scheduler.check_integrity()


def crowd_out(drive: Drive, first_token: int) -> None:
    """Run something that takes nearly the whole arena."""
    num_tokens = (drive.runner.max_blocks - 1) * BLOCK_SIZE
    prompt = tuple(range(first_token, first_token + num_tokens))
    drive.run(EngineRequest(request_id="crowd", prompt_token_ids=prompt, params=(GREEDY,), max_output_tokens=2))


def test_blocks_that_had_to_go_are_found_on_disk_as_far_as_they_are_whole(starter: Starter, tmp_path: Path) -> None:
    num_blocks = len(starter.prompts[PROMPT]) // BLOCK_SIZE + 3
    small, cache = engine_with_disk(starter, tmp_path, num_blocks)
    assert small.run(starter.ask(PROMPT, ANSWER)) == starter.expected([PROMPT], ANSWER)
    keys = [small.engine.scheduler.prefix.full_key(block) for block in small.engine.scheduler.blocks.cached]
    crowd_out(small, 1000)
    cache.flush()
    damaged = [key for key in keys if key is not None and key in cache][3]
    (tmp_path / "starter" / f"{damaged.hex()}.safetensors").write_bytes(b"no longer a block")
    small.chosen.clear()
    assert small.run(starter.ask(PROMPT, ANSWER)) == starter.expected([PROMPT], ANSWER)
    assert small.engine.scheduler.num_restored_tokens > BLOCK_SIZE
