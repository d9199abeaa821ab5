"""Memory of the engine on the real starter model: writes happen in place, growth keeps to the budget, NaN stays put."""

from __future__ import annotations

import gc
from dataclasses import replace

import mlx.core as mx
import pytest

from mlx_manager.engine.arena import Arena, LayerShape
from mlx_manager.engine.blocks import BLOCK_SIZE
from mlx_manager.engine.config import Lookahead
from mlx_manager.engine.planes import Places
from tests.engine.real_engine import ANSWER, GREEDY, Starter, drive, sampled

MIB = 1024**2


def test_a_write_copies_nothing() -> None:
    # One layer with keys and values of 64 MiB each: a copy of either could not be missed.
    arena = Arena([LayerShape(num_kv_heads=4, key_dim=64, value_dim=64, dtype=mx.float32)], max_blocks=2048)
    arena.reserve(2048)
    mx.eval(*arena.arrays())
    rows = mx.ones((8, 4, 64))
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    for step in range(20):
        blocks, slots = mx.arange(step, step + 8), mx.array([step % BLOCK_SIZE] * 8)
        arena.write(0, Places(blocks, slots), rows, rows)
        arena.copy(((step, 100 + step),))
        arena.scrub((1000 + step,))
        mx.eval(*arena.arrays())
    assert mx.get_peak_memory() - before < 4 * MIB
    assert arena.keys[0].arrays[0][3, :, 3].tolist() == [[1.0] * 64] * 4


def test_the_arena_grows_to_its_budget_and_never_past_it() -> None:
    layers = [LayerShape(num_kv_heads=2, key_dim=64, value_dim=64, dtype=mx.float32)] * 16
    block_bytes = BLOCK_SIZE * sum(layer.bytes_per_token for layer in layers)
    base = mx.get_active_memory()
    arena = Arena(layers, max_blocks=150)
    mx.eval(*arena.arrays())
    mx.reset_peak_memory()
    marks = mx.arange(60)[:, None, None].astype(mx.float32) * mx.ones((60, 2, 64))
    arena.write(15, Places(mx.arange(60), mx.zeros(60, dtype=mx.int32)), marks, marks)
    for num_blocks in range(1, 151):
        arena.reserve(num_blocks)
        assert num_blocks <= arena.num_blocks <= 150
        assert arena.nbytes == arena.num_blocks * block_bytes
    # While it grows, the layer being copied is there twice and no other.
    assert mx.get_peak_memory() - base <= 150 * block_bytes * (1 + 2 / len(layers)) + MIB
    assert mx.get_active_memory() - base <= 150 * block_bytes + MIB
    assert mx.array_equal(arena.values[15].arrays[0][:60, :, 0], marks)


@pytest.mark.parametrize("lookahead", [Lookahead.OVERLAP, Lookahead.LAUNCH])
def test_decode_steps_leave_memory_flat(starter: Starter, lookahead: Lookahead) -> None:
    flat = drive(starter, num_blocks=256, lookahead=lookahead)
    # The whole arena at once, so that a copy of one layer's keys (6 MiB) would stand out.
    whole = flat.runner.build(replace(flat.engine.scheduler.schedule(), num_blocks=256, scrubs=(0,)), None)
    whole.start()
    whole.read()
    flat.add(*(sampled(starter, name, GREEDY, 170) for name in ("prose", "digits")))
    flat.steps(10)
    # What earlier tests left would count as shrinking when it is collected in between.
    gc.collect()
    layer_bytes = 256 * BLOCK_SIZE * starter.caches.layers[0].bytes_per_token // 2
    before, arena_bytes = mx.get_active_memory(), flat.engine.arena_bytes
    mx.reset_peak_memory()
    flat.steps(140)
    assert mx.get_peak_memory() - before < layer_bytes
    gc.collect()
    assert abs(mx.get_active_memory() - before) < MIB
    assert flat.engine.arena_bytes == arena_bytes
    flat.run()


@pytest.mark.parametrize("lookahead", [Lookahead.OVERLAP, Lookahead.LAUNCH])
def test_a_sequence_whose_logits_are_not_finite_fails_alone(starter: Starter, lookahead: Lookahead) -> None:
    sick = drive(starter, lookahead=lookahead)
    sick.add(*(starter.ask(name, ANSWER) for name in ("prose", "64 tokens", "german")))
    sick.steps(3)
    victim = next(seq for seq in sick.engine.scheduler.running if seq.request_id == "64 tokens")
    arena = sick.runner.attention.arena
    # A value that is not finite in one head of one slot of its second block.
    arena.values[4].arrays[0][victim.block_table[1], 0, 5] = mx.array(float("nan"))
    tokens = sick.run()
    assert sick.broken == {"64 tokens"}
    assert {name: tokens[name] for name in ("prose", "german")} == starter.expected(("prose", "german"), ANSWER)
    assert len(tokens["64 tokens"][0]) < ANSWER
    # Nothing of it is found again, and whoever gets its blocks finds them clean.
    tokens = sick.run(starter.ask("64 tokens", ANSWER), starter.ask("33 tokens", ANSWER))
    assert tokens["64 tokens"] == [starter.answers["64 tokens"][:ANSWER]]
    assert tokens["33 tokens"] == [starter.answers["33 tokens"][:ANSWER]]
    assert not any(bool(mx.isnan(array).any()) for array in arena.arrays())


def test_a_poisoned_prefix_fails_all_who_share_it_and_is_forgotten(starter: Starter) -> None:
    sick = drive(starter)
    sick.run(starter.ask("300 tokens", 1, key="first"))
    sick.add(starter.ask("300 tokens", ANSWER), starter.ask("700 tokens", ANSWER, num_choices=2))
    sick.add(starter.ask("prose", ANSWER))
    while len(sick.engine.scheduler.running) < 4:
        sick.step()
    shared = next(seq for seq in sick.engine.scheduler.running if seq.request_id == "300 tokens").block_table[2]
    assert sick.engine.scheduler.blocks.num_references(shared) == 3
    sick.runner.attention.arena.keys[0].arrays[0][shared] = mx.array(float("nan"))
    tokens = sick.run()
    assert sick.broken == {"300 tokens", "700 tokens"}
    assert tokens["prose"] == [starter.answers["prose"][:ANSWER]]
    tokens = sick.run(starter.ask("300 tokens", ANSWER))
    assert tokens["300 tokens"] == [starter.answers["300 tokens"][:ANSWER]]


@pytest.mark.parametrize("lookahead", [Lookahead.OVERLAP, Lookahead.LAUNCH])
def test_a_trim_gives_the_arena_back_and_changes_no_answer(starter: Starter, lookahead: Lookahead) -> None:
    names = ("prose", "64 tokens", "300 tokens", "700 tokens")
    trimmed = drive(starter, num_blocks=256, lookahead=lookahead)
    gc.collect()
    before = mx.get_active_memory()
    trimmed.add(starter.ask("prose", ANSWER, key="busy"))
    with pytest.raises(ValueError, match="at work"):
        trimmed.engine.trim()
    trimmed.run(*(starter.ask(name, ANSWER) for name in names))
    arena_bytes = trimmed.engine.arena_bytes
    assert arena_bytes >= 64 * BLOCK_SIZE * starter.caches.bytes_per_token
    held = mx.get_active_memory()
    trimmed.engine.trim()
    assert trimmed.engine.arena_bytes == 0
    assert held - mx.get_active_memory() > arena_bytes - MIB / 1024
    assert mx.get_active_memory() - before < MIB
    assert trimmed.engine.scheduler.blocks.num_cached == 0
    for _ in range(2):
        tokens = trimmed.run(*(starter.ask(name, ANSWER) for name in names))
        assert {name: tokens[name] for name in names} == starter.expected(names, ANSWER)
        trimmed.engine.trim()
    assert trimmed.cached["700 tokens"] < 700, "it shares only with what runs beside it"
