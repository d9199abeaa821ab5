"""The inventory tells models from other folders, and says what is wrong with broken ones."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from safetensors.numpy import save_file

from mlx_manager.catalog import LoadOptions
from mlx_manager.errors import InvalidRequest, ModelNotFound
from mlx_manager.hub import Inventory, predict_footprint

PLAIN: dict[str, Any] = {"model_type": "llama", "max_position_embeddings": 2048, "torch_dtype": "bfloat16"}


def make_model(folder: Path, config: dict[str, Any] = PLAIN, weights: tuple[int, ...] = (100,)) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    for number, size_bytes in enumerate(weights):
        (folder / f"model-{number}.safetensors").write_bytes(bytes(size_bytes))
    return folder


def test_models_are_found_one_and_two_levels_deep(tmp_path: Path) -> None:
    make_model(tmp_path / "models" / "plain", weights=(100, 20))
    make_model(tmp_path / "models" / "org" / "nested")
    make_model(tmp_path / "models" / ".plain.77.partial")
    (tmp_path / "models" / "notes.txt").write_text("not a folder")
    entries = Inventory(tmp_path).entries()
    assert [entry.name for entry in entries] == ["org/nested", "plain"]
    plain = Inventory(tmp_path).find("plain")
    assert (plain.size_bytes, plain.architecture, plain.quantization, plain.max_context) == (120, "llama", "bf16", 2048)
    assert plain.path == str(tmp_path / "models" / "plain")
    assert plain.created_unix_s == int((tmp_path / "models/plain/config.json").stat().st_mtime)


def test_an_empty_home_holds_no_models(tmp_path: Path) -> None:
    assert Inventory(tmp_path / "missing").entries() == []
    assert Inventory(tmp_path / "missing").broken() == []


@pytest.mark.parametrize(
    "name", ["head_dim", "hidden_size", "vocab_size", "num_attention_heads", "max_position_embeddings"]
)
def test_what_a_config_cannot_hold_is_no_reason_to_break(tmp_path: Path, name: str) -> None:
    values: list[Any] = [None, "many", [], {"a": 1}, 10**30, 1e308, -1, True]
    for number, odd in enumerate(values):
        folder = make_model(tmp_path / "models" / f"m{number}", PLAIN | {name: odd}, weights=())
        save_file({"model.layers.0.self_attn.k_proj.weight": np.zeros((4, 4), np.float32)}, folder / "a.safetensors")
    entries = Inventory(tmp_path).entries()
    assert len(msgspec.json.decode(msgspec.json.encode(entries))) == len(entries) == 8
    for entry in entries:
        with suppress(InvalidRequest):
            predict_footprint(entry, LoadOptions(), is_cpu_backend=True)


@pytest.mark.parametrize(
    ("config", "described"),
    [
        ({"quantization": {"group_size": 64, "bits": 4}}, "4-bit"),
        (
            {"quantization": {"group_size": 32, "bits": 4, "a": {"bits": 8}, "b": False, "c": {"bits": 8}}},
            "mixed 4/8-bit",
        ),
        ({"quantization": {"bits": 4, "mode": "mxfp4"}}, "4-bit"),
        ({"quantization_config": {"quant_method": "mxfp4"}}, "mxfp4"),
        ({"torch_dtype": "float16"}, "fp16"),
        ({"dtype": "float32"}, "fp32"),
        ({"text_config": {"dtype": "bfloat16"}}, "bf16"),
        ({}, "unknown"),
    ],
)
def test_the_quantization_is_described(tmp_path: Path, config: dict[str, Any], described: str) -> None:
    folder = make_model(tmp_path / "model", {"model_type": "llama", **config})
    assert Inventory(tmp_path).find(str(folder)).quantization == described


@pytest.mark.parametrize(
    ("config", "max_context"),
    [
        ({"max_position_embeddings": 100}, 100),
        ({"max_position_embeddings": 100, "text_config": {"max_position_embeddings": 200}}, 200),
        ({"text_config": {"hidden_size": 1}, "n_positions": 300}, 300),
        ({}, 2048),
        ({"model_type": "unheard_of"}, None),
    ],
)
def test_the_longest_context_is_found(tmp_path: Path, config: dict[str, Any], max_context: int | None) -> None:
    folder = make_model(tmp_path / "model", {"model_type": "llama", **config})
    assert Inventory(tmp_path).find(str(folder)).max_context == max_context


def test_a_folder_anywhere_is_found_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = make_model(tmp_path / "elsewhere" / "mine")
    inventory = Inventory(tmp_path / "home", also=(str(elsewhere), "no-such-folder"))
    assert inventory.find(str(elsewhere)).name == "mine"
    assert [entry.name for entry in inventory.entries()] == ["mine"]
    monkeypatch.chdir(elsewhere.parent)  # a relative path is what people type
    assert Inventory(tmp_path / "home").find("./mine/").path == str(elsewhere)


def test_a_snapshot_in_the_hub_cache_has_the_name_of_its_repository(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "hub" / "models--org--some-model" / "snapshots" / "0f3a")
    assert Inventory(tmp_path).find(str(folder)).name == "org/some-model"


def test_an_unknown_name_is_told_what_exists(tmp_path: Path) -> None:
    make_model(tmp_path / "models" / "first")
    make_model(tmp_path / "models" / "second")
    with pytest.raises(ModelNotFound, match=r"no model 'third'.*first, second"):
        Inventory(tmp_path).find("third")


def test_broken_folders_are_left_out_and_explained(tmp_path: Path) -> None:
    models = tmp_path / "models"
    make_model(models / "no-weights", weights=())
    make_model(models / "no-type", {"hidden_size": 1})
    (models / "empty").mkdir()
    (make_model(models / "bad-json") / "config.json").write_text("{")
    inventory = Inventory(tmp_path)
    assert inventory.entries() == []
    assert sorted(sentence.replace(str(models), "") for sentence in inventory.broken()) == [
        "/bad-json/config.json cannot be read: Expecting property name enclosed in double quotes: line 1 column 2 "
        "(char 1). Download the model again.",
        "/empty is not an MLX model folder: it has no config.json.",
        "/no-type/config.json is not the config of a model: it names no model_type.",
        "/no-weights holds no weights: it has no *.safetensors. Download the model again.",
    ]
    for name in ("no-weights", "no-type", "empty", "bad-json"):
        with pytest.raises(InvalidRequest, match=name):
            inventory.find(name)


def test_a_gguf_file_is_sent_to_the_import(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(InvalidRequest, match="mlx-manager import"):
        Inventory(tmp_path).find(str(tmp_path / "model.gguf"))


def test_a_change_on_disk_is_seen(tmp_path: Path) -> None:
    inventory = Inventory(tmp_path)
    folder = make_model(tmp_path / "models" / "one")
    assert inventory.find("one").size_bytes == 100
    (folder / "model-1.safetensors").write_bytes(bytes(11))
    assert inventory.find("one").size_bytes == 111
    make_model(tmp_path / "models" / "two")
    assert [entry.name for entry in inventory.entries()] == ["one", "two"]
