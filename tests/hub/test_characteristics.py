"""What an inventory says of a model comes from its files, wherever the model lies."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from mlx_manager.catalog import ModelEntry
from mlx_manager.errors import InvalidRequest
from mlx_manager.hub import Inventory
from tests.hub.test_inventory import make_model


def write_tensors(file: Path, tensors: dict[str, tuple[str, list[int]]]) -> None:
    """A safetensors file with these headers and no more than a byte of content."""
    header = {
        name: {"dtype": dtype, "shape": shape, "data_offsets": [0, 0]} for name, (dtype, shape) in tensors.items()
    }
    encoded = json.dumps(header).encode()
    file.write_bytes(len(encoded).to_bytes(8, "little") + encoded + b"\0")


def put_snapshot(cache: Path, name: str, commit: str, *, is_main: bool = True, **config: Any) -> Path:
    """A model as the hub's client leaves it: files among the blobs, linked from the snapshot."""
    repository = cache / f"models--{name.replace('/', '--')}"
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir(exist_ok=True)
    contents = {"config.json": json.dumps({"model_type": "llama", **config}).encode(), "model.safetensors": b"x" * 64}
    for file, content in contents.items():
        blob = repository / "blobs" / f"{commit}-{file}"
        blob.write_bytes(content)
        (snapshot / file).symlink_to(blob)
    if is_main:
        (repository / "refs").mkdir(exist_ok=True)
        (repository / "refs" / "main").write_text(commit)
    return snapshot


def find(folder: Path) -> ModelEntry:
    return Inventory(folder.parent).find(str(folder))


def test_parameters_are_counted_from_the_headers(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "m", {"model_type": "llama", "quantization": {"bits": 4, "a": {"bits": 8}}})
    write_tensors(
        folder / "model-0.safetensors",
        {
            "norm.weight": ("F16", [10]),
            "q.weight": ("U32", [8, 4]),
            "q.scales": ("F16", [8, 1]),
            "q.biases": ("F16", [8, 1]),
            "a.weight": ("U32", [2, 4]),
            "a.scales": ("F16", [2, 1]),
        },
    )
    assert find(folder).num_parameters == 10 + 8 * 4 * 8 + 2 * 4 * 4


def test_parameters_that_the_index_states_are_believed(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "m")
    index = {"metadata": {"total_parameters": 1234}, "weight_map": {"w": "model-0.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert find(folder).num_parameters == 1234


@pytest.mark.parametrize(
    ("template", "tools", "thinking"),
    [
        ("{% if tools %}{{ tools }}{% endif %}", True, False),
        ("{% if enable_thinking is false %}<think></think>{% endif %}", False, True),
        ("{{ messages[0].content }}", False, False),
    ],
)
@pytest.mark.parametrize("place", ["jinja", "string", "list"])
def test_the_chat_template_tells_of_tools_and_thinking(
    tmp_path: Path, template: str, tools: bool, thinking: bool, place: str
) -> None:
    folder = make_model(tmp_path / "m")
    if place == "jinja":
        (folder / "chat_template.jinja").write_text(template)
    else:
        written = template if place == "string" else [{"name": "default", "template": template}]
        (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": written}))
    assert (find(folder).has_tools, find(folder).has_thinking) == (tools, thinking)


@pytest.mark.parametrize(
    ("config", "files", "said"),
    [
        ({"model_type": "gemma3_text"}, {}, "Gemma 1 to 3, 3n"),
        ({"model_type": "llama"}, {"chat_template.jinja": "<tool_call>\n{{ tools }}"}, "Hermes"),
        ({"model_type": "new"}, {}, "generic"),
        ({"model_type": "bert"}, {"modules.json": "[]"}, ""),
    ],
)
def test_the_family_is_told_before_a_load(
    tmp_path: Path, config: dict[str, Any], files: dict[str, str], said: str
) -> None:
    folder = make_model(tmp_path / "m", config)
    for name, text in files.items():
        (folder / name).write_text(text)
    assert find(folder).family == said


@pytest.mark.parametrize(
    ("config", "said"), [({}, "fp32"), ({"torch_dtype": "bfloat16"}, "bf16"), ({"quantization": {"bits": 4}}, "4-bit")]
)
def test_the_type_of_weights_is_told_by_them_where_the_config_does_not(
    tmp_path: Path, config: dict[str, Any], said: str
) -> None:
    folder = make_model(tmp_path / "m", {"model_type": "bert", **config})
    write_tensors(folder / "model-0.safetensors", {"a": ("F32", [9]), "ids": ("I64", [2]), "b": ("F16", [4])})
    assert find(folder).quantization == said


@pytest.mark.parametrize(
    ("files", "kept"),
    [
        ({}, 512),
        ({"sentence_bert_config.json": {"max_seq_length": 256}}, 256),
        (
            {"sentence_bert_config.json": {"max_seq_length": None}, "tokenizer_config.json": {"model_max_length": 384}},
            384,
        ),
        ({"tokenizer_config.json": {"model_max_length": 1000000000000000019884624838656}}, 512),
        ({"sentence_bert_config.json": []}, 512),
    ],
)
def test_an_encoder_takes_what_all_of_its_files_allow(tmp_path: Path, files: dict[str, Any], kept: int) -> None:
    folder = make_model(tmp_path / "m", {"model_type": "bert", "max_position_embeddings": 512})
    for name, content in {"modules.json": [], **files}.items():
        (folder / name).write_text(json.dumps(content))
    assert find(folder).max_context == kept


def test_a_model_that_lacks_a_weight_file_is_not_served(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "models" / "m")
    weight_map = {"a": "model-0.safetensors", "b": "model-1.safetensors", "c": "model-2.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(InvalidRequest, match=r"incomplete: 2 of its 3 weight files are missing \(model-1"):
        Inventory(tmp_path).find("m")
    assert Inventory(tmp_path).entries() == []


def test_the_cache_is_listed_by_its_current_snapshots(tmp_path: Path) -> None:
    cache = tmp_path / "hub"
    put_snapshot(cache, "org/one", "aaa", max_position_embeddings=1)
    put_snapshot(cache, "org/one", "bbb", is_main=False, max_position_embeddings=2)
    put_snapshot(cache, "org/two", "ccc", is_main=False)
    put_snapshot(cache, "org/speech", "ddd", is_encoder_decoder=True)
    (cache / "datasets--org--data" / "snapshots" / "eee").mkdir(parents=True)
    inventory = Inventory(tmp_path / "home", cache=cache)
    assert [(entry.name, entry.max_context) for entry in inventory.entries()] == [("org/one", 1), ("org/two", 2048)]
    assert inventory.find("org/two").path == str(cache / "models--org--two" / "snapshots" / "ccc")
    with pytest.raises(InvalidRequest, match="an encoder with a decoder"):
        inventory.find("org/speech")


def test_a_link_that_leads_nowhere_is_a_broken_model(tmp_path: Path) -> None:
    snapshot = put_snapshot(tmp_path / "hub", "org/one", "aaa")
    (snapshot / "model.safetensors").resolve().unlink()
    inventory = Inventory(tmp_path / "home", cache=tmp_path / "hub")
    assert inventory.entries() == []
    with pytest.raises(InvalidRequest, match="holds no weights"):
        inventory.find("org/one")


def test_home_comes_before_the_cache_and_that_before_other_programs(tmp_path: Path) -> None:
    put_snapshot(tmp_path / "hub", "org/one", "aaa")
    put_snapshot(tmp_path / "hub", "org/two", "bbb")
    make_model(tmp_path / "models" / "org" / "one")
    make_model(tmp_path / "other" / "org" / "two")
    make_model(tmp_path / "other" / "org" / "three")
    inventory = Inventory(tmp_path, cache=tmp_path / "hub", scan=(str(tmp_path / "other"), "/no/such/folder"))
    places = {entry.name: Path(entry.path).relative_to(tmp_path).parts[0] for entry in inventory.entries()}
    assert places == {"org/one": "models", "org/two": "hub", "org/three": "other"}


def test_gguf_files_of_other_programs_are_told_how_to_import(tmp_path: Path) -> None:
    ollama = tmp_path / "ollama"
    layers = [
        {"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:abc"},
        {"mediaType": "application/vnd.ollama.image.template", "digest": "sha256:def"},
    ]
    for owner, name, tag in (("library", "llama3.2", "1b"), ("someone", "own", "latest")):
        manifest = ollama / "manifests" / "registry.ollama.ai" / owner / name / tag
        manifest.parent.mkdir(parents=True)
        manifest.write_text(json.dumps({"layers": layers}))
    (ollama / "manifests" / "registry.ollama.ai" / "library" / "llama3.2" / "broken").write_text("{")
    (ollama / "blobs").mkdir()
    (ollama / "blobs" / "sha256-abc").write_bytes(b"GGUF" * 5)
    studio = tmp_path / "studio" / "org" / "repo"
    studio.mkdir(parents=True)
    (studio / "model Q4.gguf").write_bytes(b"GGUF")
    (studio / "mmproj-model.gguf").write_bytes(b"GGUF")
    found = Inventory(tmp_path / "home", scan=(str(ollama), str(tmp_path / "studio"))).foreign()
    assert [(model.name, model.size_bytes, model.suggested_name) for model in found] == [
        ("llama3.2:1b", 20, "llama3.2-1b"),
        ("org/repo/model Q4.gguf", 4, "model-Q4"),
        ("someone/own:latest", 20, "own"),
    ]
    assert found[1].how_to_serve == f"mlx-manager import '{studio / 'model Q4.gguf'}' --name model-Q4"
    assert found[0].how_to_serve == f"mlx-manager import {ollama / 'blobs' / 'sha256-abc'} --name llama3.2-1b"


def test_looking_again_at_two_hundred_models_is_quick(tmp_path: Path) -> None:
    for number in range(200):
        put_snapshot(tmp_path / "hub", f"org/model-{number}", "aaa")
    inventory = Inventory(tmp_path, cache=tmp_path / "hub")
    assert len(inventory.entries()) == 200
    fastest_s = 1.0
    for _ in range(5):
        began_s = time.perf_counter()
        inventory.entries()
        fastest_s = min(fastest_s, time.perf_counter() - began_s)
    assert fastest_s < 0.1
