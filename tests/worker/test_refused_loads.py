"""Loads that are refused say why, and what is loaded keeps to its KV budget from the start."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mlx_manager.catalog import LoadOptions, ModelEntry
from mlx_manager.errors import ModelLoadFailed
from mlx_manager.hub import Inventory
from mlx_manager.worker.load import load
from mlx_manager.worker.serving import Serving
from tests.worker.test_half_precision import write_tiny_llama

LEAST_BUDGET_BYTES = 16 * 32 * 512
"""16 blocks of 32 tokens of the tiny model's 512 bytes: what the check at load works with."""


@pytest.fixture
def tiny(starter_folder: Path, tmp_path: Path) -> ModelEntry:
    write_tiny_llama(tmp_path / "models" / "tiny", starter_folder)
    (entry,) = Inventory(tmp_path).entries()
    return entry


def test_a_kv_budget_too_small_for_the_check_is_refused_with_the_least_that_does(tiny: ModelEntry) -> None:
    reason = f"holds 480 tokens of tiny, and it takes room for 512; raise kv_budget to at least {LEAST_BUDGET_BYTES}"
    with pytest.raises(ModelLoadFailed, match=reason):
        load(tiny, LoadOptions(kv_budget_bytes=LEAST_BUDGET_BYTES - 1), lambda stage, fraction: None)


def test_the_least_kv_budget_is_not_exceeded(tiny: ModelEntry) -> None:
    serving, report = load(tiny, LoadOptions(kv_budget_bytes=LEAST_BUDGET_BYTES), lambda stage, fraction: None)
    assert isinstance(serving, Serving)
    assert report.path == "paged"
    assert serving.stats().arena_bytes == LEAST_BUDGET_BYTES
    assert serving.stats().num_blocks_total == 16


def test_a_model_class_that_ends_the_interpreter_fails_the_load_with_what_it_said(tiny: ModelEntry) -> None:
    config_path = Path(tiny.path) / "config.json"
    config_path.write_text(json.dumps(json.loads(config_path.read_text()) | {"model_type": "olmo"}))
    with pytest.raises(ModelLoadFailed, match=r"mlx-lm cannot load tiny: .*ai2-olmo"):
        load(tiny, LoadOptions(), lambda stage, fraction: None)


def test_a_config_that_leaves_out_what_its_class_needs_is_refused_with_what_to_do(tiny: ModelEntry) -> None:
    config_path = Path(tiny.path) / "config.json"
    config = json.loads(config_path.read_text())
    del config["num_attention_heads"]
    config_path.write_text(json.dumps(config))
    with pytest.raises(ModelLoadFailed, match=r"does not say what its architecture needs .*Download it again"):
        load(tiny, LoadOptions(), lambda stage, fraction: None)
