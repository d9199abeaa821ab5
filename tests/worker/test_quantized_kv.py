"""A model is loaded with quantized keys and values where it can be, and says so where it cannot."""

from __future__ import annotations

from pathlib import Path

from mlx_manager.catalog import LoadOptions
from mlx_manager.hub import Inventory
from mlx_manager.ipc import ServingReport
from mlx_manager.worker.load import load
from mlx_manager.worker.serving import Serving
from tests.worker.test_half_precision import write_tiny_llama

_BUDGET_BYTES = 1024**2


def loaded(home: Path, bits: int) -> tuple[Serving, ServingReport]:
    (entry,) = Inventory(home).entries()
    options = LoadOptions(kv_cache_bits=bits, kv_budget_bytes=_BUDGET_BYTES, state_folder=str(home / "state"))
    serving, report = load(entry, options, lambda stage, fraction: None)
    assert isinstance(serving, Serving)
    return serving, report


def test_the_same_budget_holds_more_tokens(starter_folder: Path, tmp_path: Path) -> None:
    write_tiny_llama(tmp_path / "models" / "tiny", starter_folder, head_dim=64)
    _, plain = loaded(tmp_path, 0)
    assert (plain.kv_cache_bits, plain.kv_bytes_per_token) == (0, 2 * 2 * 2 * 64 * 4)
    for bits in (8, 4):
        # The second time the verdict was kept.
        for _ in range(2):
            serving, report = loaded(tmp_path, bits)
            assert (report.path, report.kv_cache_bits, report.warning) == ("paged", bits, plain.warning)
            assert report.attention in ("gather_qmm", "gathered_sdpa")
            assert report.kv_bytes_per_token == 2 * 2 * 2 * (64 * bits // 8 + 2 * 4)
            assert serving.stats().num_blocks_total == _BUDGET_BYTES // (32 * report.kv_bytes_per_token)
    assert len(list((tmp_path / "state" / "verdicts").glob("*.json"))) == 3


def test_what_cannot_be_quantized_is_kept_as_it_is_and_says_so(starter_folder: Path, tmp_path: Path) -> None:
    write_tiny_llama(tmp_path / "models" / "tiny", starter_folder)
    _, report = loaded(tmp_path, 4)
    assert (report.path, report.kv_cache_bits, report.kv_bytes_per_token) == ("paged", 0, 2 * 2 * 2 * 16 * 4)
    assert "kv_cache_bits asks for it: vectors of 16 entries" in report.warning
