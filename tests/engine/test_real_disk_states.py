"""Recurrent layers and the prefix cache on disk: the state behind a prefix is kept with its blocks, or the prefix is
not used. Tiny models of mlx-lm's own classes; `tests/models` sends every family through a restart."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest

from mlx_manager.engine.attach import wrap_attention
from mlx_manager.engine.attention import DecodeAttention
from mlx_manager.engine.blocks import BLOCK_SIZE
from mlx_manager.engine.config import EngineConfig
from mlx_manager.engine.disk_cache import DeviceReader, DiskCache
from mlx_manager.engine.engine import Engine
from mlx_manager.engine.probe import probe_caches
from mlx_manager.engine.requests import EngineRequest
from mlx_manager.engine.runner import PagedRunner
from mlx_manager.engine.sequence import SamplingParams
from tests.engine.real_engine import Drive
from tests.models.zoo import VOCABULARY_SIZE, build

SCORED = SamplingParams(temperature=0.0, num_top_logprobs=0)
NUM_PROMPT_TOKENS, NUM_CACHED_TOKENS = 75, 64
LONG_ANSWER = 3 * BLOCK_SIZE
NUM_LONG_BLOCKS, NUM_BLOCKS = 130, 160
MANY = 1024**3


@functools.cache
def new_runner(model_type: str) -> PagedRunner:
    model = build(model_type)
    wrap_attention(model)
    return PagedRunner(model, probe_caches(model), NUM_BLOCKS, DecodeAttention.GATHER_MM)


def new_drive(model_type: str, folder: Path | None, num_checkpoints: int | None = 2) -> Drive:
    """An engine with nothing in its memory."""
    runner = new_runner(model_type)
    runner.trim()
    has_blocks = any(layer.bytes_per_token for layer in runner.attention.arena.layers)
    reader = DeviceReader(runner.read_blocks if has_blocks else None, runner.read_state)
    cache = None if folder is None else DiskCache(folder, model_type, MANY, reader)
    config = EngineConfig(num_blocks=NUM_BLOCKS, num_checkpoints=num_checkpoints)
    return Drive(Engine(runner, config, disk_cache=cache), runner)


def ask(name: str, num_tokens: int = 4, num_prompt_tokens: int = NUM_PROMPT_TOKENS) -> EngineRequest:
    drawn = np.random.default_rng(ord(name[0])).integers(0, VOCABULARY_SIZE, size=num_prompt_tokens)
    return EngineRequest(
        request_id=name,
        prompt_token_ids=tuple(int(token) for token in drawn),
        params=(SCORED,),
        max_output_tokens=num_tokens,
    )


def answers(drive: Drive, *requests: EngineRequest) -> dict[str, list[tuple[int, float | None]]]:
    """Each token of all answers so far, and its log-probability: of a wrong state only the second may tell."""
    drive.run(*requests)
    return {key: [(one.token_id, one.logprob) for one in rows[0]] for key, rows in drive.chosen.items()}


def nearly(answer: list[tuple[int, float | None]]) -> list[object]:
    return [(token, pytest.approx(logprob, abs=1e-4)) for token, logprob in answer]


def keep_everything(drive: Drive) -> None:
    while drive.engine.spill(8):
        drive.engine.flush()


@pytest.mark.parametrize(("model_type", "has_blocks"), [("granitemoehybrid", True), ("mamba2", False)])
def test_a_state_that_had_to_go_comes_back_from_disk_unless_it_is_damaged(
    model_type: str, has_blocks: bool, tmp_path: Path
) -> None:
    expected = answers(new_drive(model_type, None), ask("a"), ask("b"), ask("c"))
    drive = new_drive(model_type, tmp_path)
    # one after the other: there is room for two states, and each prompt leaves one
    for name in "abc":
        drive.run(ask(name))
    drive.engine.flush()
    assert answers(drive, ask("a again"))["a again"] == nearly(expected["a"])
    assert drive.engine.scheduler.num_restored_tokens > 0
    assert drive.cached == {"a": 0, "b": 0, "c": 0, "a again": NUM_CACHED_TOKENS}
    keep_everything(drive)

    first, second, third = sorted((tmp_path / model_type).glob("*.state.safetensors"))
    first.write_bytes(second.read_bytes())
    third.with_name(third.name.replace(".state", "")).unlink(missing_ok=True)
    again = new_drive(model_type, tmp_path)
    assert answers(again, ask("a"), ask("b"), ask("c")) == {key: nearly(each) for key, each in expected.items()}
    assert not first.exists()
    # without layers that keep something per token, a state alone is enough
    num_whole = 1 if has_blocks else 2
    assert sorted(again.cached.values()) == [0] * (3 - num_whole) + [NUM_CACHED_TOKENS] * num_whole


def test_of_a_long_answer_only_the_last_state_is_kept(tmp_path: Path) -> None:
    drive = new_drive("mamba2", tmp_path, num_checkpoints=20)
    drive.run(ask("a", LONG_ANSWER))
    assert drive.engine.scheduler.num_preemptions == 0
    keep_everything(drive)
    # behind the prompt, and behind the answer
    assert len(list(tmp_path.glob("*/*.state.safetensors"))) == 2


def test_a_long_prefix_comes_back_in_parts_and_others_are_answered_meanwhile(tmp_path: Path) -> None:
    long = ask("long", num_prompt_tokens=NUM_LONG_BLOCKS * BLOCK_SIZE + 1)
    expected = answers(new_drive("llama", None, None), ask("a", 12), long)
    first = new_drive("llama", tmp_path, None)
    first.run(long)
    keep_everything(first)
    again = new_drive("llama", tmp_path, None)
    again.add(ask("a", 12))
    again.steps(3)
    again.add(long)
    again.steps(2)
    assert 0 < again.engine.scheduler.num_restored_tokens < NUM_LONG_BLOCKS * BLOCK_SIZE
    assert len(again.chosen["a"][0]) == 5
    assert answers(again) == {key: nearly(each) for key, each in expected.items()}
    assert again.engine.scheduler.num_restored_tokens == NUM_LONG_BLOCKS * BLOCK_SIZE
    assert again.cached["long"] == NUM_LONG_BLOCKS * BLOCK_SIZE
    assert again.engine.block_fetch_s is not None
    assert again.engine.block_fetch_s > 0

    # what is damaged meanwhile is computed after all, and not told as cached
    last = new_drive("llama", tmp_path, None)
    last.add(long)
    last.step()
    for path in (tmp_path / "llama").glob("*.safetensors"):
        path.write_bytes(b"no longer a block")
    assert answers(last)["long"] == nearly(expected["long"])
    assert last.cached["long"] == last.engine.scheduler.num_restored_tokens < NUM_LONG_BLOCKS * BLOCK_SIZE
