"""What a vision model takes of memory is told from its files: the tower and what it keeps of images included."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from mlx_manager.catalog import LoadOptions
from mlx_manager.engine.attach import wrap_attention
from mlx_manager.engine.probe import probe_caches
from mlx_manager.hub import predict_footprint
from mlx_manager.hub.model_folder import read_entry
from mlx_manager.models.vision import load_vision_model
from tests.vision.zoo import FAMILIES, LIBRARY_WARNINGS, write_model

pytestmark = LIBRARY_WARNINGS


@pytest.mark.parametrize("model_type", FAMILIES)
def test_the_weights_are_told_exactly(tmp_path: Path, model_type: str) -> None:
    entry = read_entry(write_model(tmp_path / model_type, model_type), model_type)
    options = LoadOptions(dtype="float32")
    footprint = predict_footprint(entry, options, is_cpu_backend=True)
    loaded = load_vision_model(entry, options, lambda stage, fraction: None)
    # Gemma 3 loads its head as a copy of the embeddings, which MLX counts twice and holds once
    head = loaded.model.language_model.lm_head.weight.nbytes if model_type == "gemma3" else 0
    assert loaded.weights_bytes - footprint.weights_bytes in (0, head)
    without = predict_footprint(entry, LoadOptions(dtype="float32", image_cache_bytes=0), is_cpu_backend=True)
    assert footprint.process_bytes - without.process_bytes == options.image_cache_bytes
    fewer = predict_footprint(entry, replace(options, max_request_pixels=1_000_000), is_cpu_backend=True)
    assert footprint.process_bytes - fewer.process_bytes == (options.max_request_pixels - 1_000_000) * (2 * 4 + 3 * 4)
    wrap_attention(loaded.model)
    assert footprint.kv_bytes_per_token == probe_caches(loaded.model).bytes_per_token


def test_a_family_that_is_exact_up_to_some_length_takes_no_more(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "ministral", "mistral3-ministral3")
    loaded = load_vision_model(read_entry(folder, "ministral"), LoadOptions(), lambda stage, fraction: None)
    assert loaded.max_context == 1024
