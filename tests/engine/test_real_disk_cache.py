"""The prefix cache on disk: what is found there is what was computed, and the folder never outgrows its bound."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock

from mlx_manager.engine.attention import DecodeAttention
from mlx_manager.engine.block_store import StoredBlock
from mlx_manager.engine.blocks import BLOCK_SIZE
from mlx_manager.engine.bounded_folder import BoundedFolder
from mlx_manager.engine.config import EngineConfig, Lookahead
from mlx_manager.engine.disk_cache import DeviceReader, DiskCache
from mlx_manager.engine.engine import Engine
from mlx_manager.engine.requests import EngineRequest
from mlx_manager.engine.restore import Restorer
from mlx_manager.engine.runner import PagedRunner
from tests.engine.real_engine import ANSWER, GREEDY, Drive, Starter

PROMPT = "700 tokens"
BLOCK: StoredBlock = (b"keys" * 1000, b"values" * 1000)
MANY = 1024**3


def new_cache(folder: Path, max_bytes: int = MANY, model: str = "model") -> DiskCache:
    return DiskCache(folder, model, max_bytes, DeviceReader(lambda blocks: [BLOCK for _ in blocks]))


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


def test_a_smaller_bound_is_kept_to_from_the_start(tmp_path: Path) -> None:
    bound = 5 * size_of_block(tmp_path) // 2
    cache = new_cache(tmp_path)
    keys = [bytes([index]) for index in range(6)]
    for key in keys:
        cache.put(key, BLOCK)
    cache.flush()
    again = new_cache(tmp_path, bound)
    assert len(again) == 2
    assert size_of(tmp_path / "model") <= bound
    assert [again.fetch(key) for key in keys if key in again] == [BLOCK, BLOCK]


def test_what_a_crash_left_is_cleared_away(tmp_path: Path) -> None:
    new_cache(tmp_path)
    partial = tmp_path / "model" / ".abcd.partial"
    partial.write_bytes(b"x" * 1000)
    (tmp_path / "model" / "no key.safetensors").write_bytes(b"x")
    assert len(new_cache(tmp_path)) == 0
    assert not partial.exists()


def test_a_state_is_kept_beside_its_block_and_what_is_tainted_is_neither(tmp_path: Path) -> None:
    first = new_cache(tmp_path)
    first.put(b"key", BLOCK)
    first.put_state(b"key", (b"shape", b"state"))
    first.flush()
    again = new_cache(tmp_path)
    assert again.has_state(b"key")
    assert not again.has_state(b"other")
    assert again.fetch_state(b"key") == (b"shape", b"state")
    assert again.fetch(b"key") == BLOCK
    again.forget([b"key"])
    again.flush()
    assert not new_cache(tmp_path).has_state(b"key")
    assert b"key" not in new_cache(tmp_path)


def test_a_folder_smaller_than_what_is_cached_is_not_written_over_and_over(tmp_path: Path) -> None:
    keys = [bytes([index]) for index in range(8)]
    cache = new_cache(tmp_path, 3 * size_of_block(tmp_path))
    for _ in range(3):
        wanted = [key for key in keys if cache.wants(key)]
        cache.spill([(0, key) for key in wanted])
        cache.flush()
    assert wanted == []
    assert len(cache) == 3
    # but one that left the arena is worth it again
    assert keys[0] not in cache


def size_of_block(folder: Path) -> int:
    cache = new_cache(folder / "measured")
    cache.put(b"key", BLOCK)
    cache.flush()
    return (folder / "measured" / "model" / f"{b'key'.hex()}.safetensors").stat().st_size


def files_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*/*"))


def test_the_total_is_kept_and_not_counted_anew(tmp_path: Path) -> None:
    folders = [BoundedFolder(tmp_path, 100), BoundedFolder(tmp_path, 100)]
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    for folder in folders:
        folder.tidy()
    for index in range(10):
        assert folders[index % 2].write(tmp_path / "ab"[index % 2] / str(index), b"x" * 9)
    assert [folder.num_counts for folder in folders] == [1, 1]
    # full: each finds once what is oldest, and goes on from there
    for index in range(10, 18):
        time.sleep(0.002)
        assert folders[index % 2].write(tmp_path / "ab"[index % 2] / str(index), b"y" * 10)
        assert files_of(tmp_path) <= 100
    assert [folder.num_counts for folder in folders] == [2, 2]
    assert sorted(int(path.name) for path in tmp_path.glob("*/*")) == list(range(8, 18))


@pytest.mark.parametrize("event", ["deleted", "added", "crashed", "torn"])
def test_the_total_is_right_after_somebody_else_was_there(tmp_path: Path, event: str) -> None:
    (tmp_path / "a").mkdir()
    folder = BoundedFolder(tmp_path, 100)
    folder.tidy()
    for index in range(8):
        folder.write(tmp_path / "a" / str(index), b"x" * 10)
    # the clock of a file system may tick no finer than this
    time.sleep(0.02)
    if event == "deleted":
        for index in range(4):
            (tmp_path / "a" / str(index)).unlink()
    elif event == "added":
        (tmp_path / "a" / "foreign").write_bytes(b"f" * 15)
    elif event == "crashed":
        # killed in mid-write: there is no total then, and a part of a file
        (tmp_path / ".total").unlink()
        (tmp_path / "a" / ".9.partial").write_bytes(b"x" * 10)
    else:
        (tmp_path / ".total").write_bytes(b'{"num_by')
    assert folder.write(tmp_path / "a" / "last", b"z" * 20)
    left = {path.name for path in (tmp_path / "a").iterdir()}
    assert files_of(tmp_path) <= 100
    assert len(left) == {"deleted": 5, "added": 8, "crashed": 9, "torn": 9}[event]
    assert {"last", "7"} <= left
    assert not folder.write(tmp_path / "a" / "huge", b"x" * 101)


_WRITE_FOR_EVER = """
import itertools, os, sys
from pathlib import Path
from mlx_manager.engine.bounded_folder import BoundedFolder
folder, own, max_bytes = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
files = BoundedFolder(folder, max_bytes)
(folder / own).mkdir(exist_ok=True)
files.tidy()
print("writing", flush=True)
for index in itertools.count():
    files.write(folder / own / f"{index}.safetensors", os.urandom(1000 + 37 * (index % 50)))
"""


def test_the_bound_holds_while_several_write_and_are_killed(tmp_path: Path) -> None:
    bound = 60_000
    lock = FileLock(tmp_path / ".lock")
    for own in ("a", "b"):
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", _WRITE_FOR_EVER, str(tmp_path), name, str(bound)], stdout=subprocess.PIPE
            )
            for name in (own, "c")
        ]
        for writer in writers:
            assert writer.stdout is not None
            writer.stdout.readline()
        for _ in range(6):
            time.sleep(0.005)
            with lock.acquire(poll_interval=0.001):
                assert files_of(tmp_path) <= bound
        for writer in writers:
            writer.kill()
            writer.communicate()
    folder = BoundedFolder(tmp_path, bound)
    assert folder.write(tmp_path / "a" / "last", b"x" * 1000)
    assert files_of(tmp_path) <= bound
    assert list(tmp_path.glob("*/.*.partial")) == []


def test_a_block_is_fetched_only_where_that_is_faster_than_to_compute_it(tmp_path: Path) -> None:
    cache = new_cache(tmp_path)
    keys = [b"1", b"2", b"3"]
    for key in keys:
        cache.put(key, BLOCK)
    cache.flush()
    restorer = Restorer(cache, None, None)

    def restored(prefill_token_s: float | None) -> int:
        found = restorer.restore(keys, 1, lambda key: None, prefill_token_s)
        return 0 if found is None else found.num_blocks

    # unknown, so it is tried; then a token that costs nothing, and one that costs much
    assert restored(None) == 3
    assert restored(0.0) == 0
    assert restored(1.0) == 3
    # a disk that was slow once is tried again some time
    assert 3 in [restored(0.0) for _ in range(40)]


def engine_with_disk(starter: Starter, folder: Path, num_blocks: int) -> tuple[Drive, DiskCache]:
    runner = PagedRunner(starter.loaded.model, starter.caches, num_blocks, DecodeAttention.GATHER_MM)
    cache = DiskCache(folder, "starter", MANY, DeviceReader(runner.read_blocks))
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
    keys = [small.engine.scheduler.tables.prefix.full_key(block) for block in small.engine.scheduler.blocks.cached]
    crowd_out(small, 1000)
    cache.flush()
    damaged = [key for key in keys if key is not None and key in cache][3]
    (tmp_path / "starter" / f"{damaged.hex()}.safetensors").write_bytes(b"no longer a block")
    small.chosen.clear()
    assert small.run(starter.ask(PROMPT, ANSWER)) == starter.expected([PROMPT], ANSWER)
    assert small.engine.scheduler.num_restored_tokens > BLOCK_SIZE
