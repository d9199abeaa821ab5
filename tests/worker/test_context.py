"""The longest context of a model: what its config says, what its class has where that says nothing, and no more."""

from __future__ import annotations

import dataclasses
import importlib
import json
from pathlib import Path
from typing import Any

import pytest
from mlx_lm.utils import MODEL_REMAPPING
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from mlx_manager.catalog import LoadOptions, ModelEntry, find_context, served_context
from mlx_manager.errors import ContextLengthExceeded
from mlx_manager.hub import predict_footprint
from mlx_manager.hub.model_folder import read_entry
from mlx_manager.ir import GenerationRequest, Sampling, TokenPrompt
from mlx_manager.models.loading import load_text_model
from mlx_manager.worker.load import load
from mlx_manager.worker.serving import Serving
from tests.models.zoo import build, config_of, model_types

VOCABULARY = {"vocab_size": 49152}
SAID_BY = ("n_positions", "max_position_embeddings", "model_max_length")
ENDLESS = ("mamba", "mamba2", "falcon_mamba", "rwkv7")


def written(folder: Path, tokenizer_folder: Path, model_type: str, **changed: Any) -> ModelEntry:
    """A small random model whose config.json names no context but that of `changed`."""
    config = {**config_of(model_type), **VOCABULARY, **changed}
    model = build(model_type, **VOCABULARY, **changed)
    for part in (config, config.get("text_config", {})):
        part.pop("max_position_embeddings", None)
        part.pop("rope_scaling", None)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).symlink_to(tokenizer_folder / name)
    model.save_weights(str(folder / "model.safetensors"))
    return read_entry(folder, model_type)


def told(entry: ModelEntry, options: LoadOptions = LoadOptions()) -> tuple[int | None, int, int]:  # noqa: B008  # frozen
    """What the inventory, the fit check and the worker say."""
    loaded = load_text_model(entry, options, lambda stage, fraction: None)
    return entry.max_context, predict_footprint(entry, options, is_cpu_backend=True).max_context, loaded.max_context


def test_a_config_that_leaves_it_to_its_class_is_not_cut(starter_folder: Path, tmp_path: Path) -> None:
    nested = {**config_of("gemma3")["text_config"], "model_type": "gemma3_text"}
    entry = written(tmp_path / "gemma", starter_folder, "gemma3", text_config=nested)
    assert told(entry) == (131072, 131072, 131072)
    assert told(entry, LoadOptions(max_context=200_000))[1:] == (200_000, 200_000)


def test_a_recurrent_model_has_no_bound_of_its_own(starter_folder: Path, tmp_path: Path) -> None:
    entry = written(tmp_path / "mamba", starter_folder, "mamba2", max_position_embeddings=2056)
    assert told(entry) == (2**20, 2**20, 2**20)
    footprint = predict_footprint(entry, LoadOptions(), is_cpu_backend=True)
    assert footprint.step_bytes(2**20) == footprint.step_bytes(1)


def test_learned_positions_are_never_passed(starter_folder: Path, tmp_path: Path) -> None:
    """What lies behind their table would be read: any numbers at all."""
    entry = written(tmp_path / "gpt", starter_folder, "gpt2", n_positions=64, n_ctx=128)
    assert told(entry) == told(entry, LoadOptions(max_context=200)) == (64, 64, 64)
    serving, report = load(entry, LoadOptions(kv_budget_bytes=64 * 1024**2), lambda stage, fraction: None)
    assert isinstance(serving, Serving)
    assert report.max_context == 64
    for length, code in ((101, ContextLengthExceeded.code), (60, None)):
        prompt = TokenPrompt(token_ids=tuple(range(100, 100 + length)))
        request = GenerationRequest(request_id=str(length), model="gpt2", prompt=prompt, sampling=Sampling())
        failure = serving.submit(request)
        assert (None if failure is None else failure.error.code) == code


@pytest.mark.parametrize(
    "field", ["n_positions", "n_ctx", "max_seq_len", "max_context_length", "seq_length", "max_sequence_length"]
)
def test_every_name_for_it_is_known(field: str) -> None:
    assert find_context({"model_type": "llama", field: 300}) == served_context({field: 300}, 400) == 300
    assert served_context({field: 300}, 200) == 200


def test_what_is_not_said_anywhere_is_asked_of_the_setting() -> None:
    assert find_context({"model_type": "unheard_of"}) is None
    assert served_context({"model_type": "unheard_of"}, None) == 4096
    assert served_context({"model_type": "unheard_of"}, 9000) == 9000


def test_the_table_is_that_of_the_installed_classes() -> None:
    expected = {name: found for name in (*model_types(), *MODEL_REMAPPING) if (found := class_context(name))}
    assert {name: find_context({"model_type": name}) for name in expected} == expected
    assert len(expected) > 80


def class_context(model_type: str) -> int | None:
    """What the class in transformers has, for those it lacks that in mlx-lm."""
    if model_type in ENDLESS:
        return 2**20
    if model_type in CONFIG_MAPPING:
        own = CONFIG_MAPPING[model_type]().get_text_config()
        return next((found for name in SAID_BY if isinstance(found := getattr(own, name, None), int)), None)
    if model_type == "olmo":
        return None
    module = importlib.import_module(f"mlx_lm.models.{MODEL_REMAPPING.get(model_type, model_type)}")
    defaults = {field.name: field.default for field in dataclasses.fields(module.ModelArgs)}
    return next((found for name in SAID_BY if isinstance(found := defaults.get(name), int)), None)
