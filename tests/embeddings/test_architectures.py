"""Padding never leaks: in every architecture a text has the same vector alone and beside longer ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlx_manager.errors import ModelLoadFailed
from mlx_manager.ir import EmbeddingRequest, TextRole
from mlx_manager.models.embedding import Embedder
from mlx_manager.models.encoder import Item
from tests.embeddings.tiny import CONFIGS, config_of, load_embedder, pooled_by, random_weights, write_model

Make = Callable[..., Path]
LENGTHS = (1, 3, 17, 60)
MODES = ("cls_token", "max_tokens", "mean_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")


@pytest.fixture
def make(tmp_path: Path, minilm_folder: Path) -> Make:
    """Makes the folder of a random model."""

    def new(model_type: str, files: dict[str, object] | None = None, **config: Any) -> Path:
        written = config_of(model_type, **config)
        return write_model(tmp_path / model_type, minilm_folder, written, random_weights(written), files)

    return new


def items() -> list[Item]:
    random = np.random.default_rng(3)
    return [Item([int(token_id) for token_id in random.integers(1000, 30_000, size)]) for size in LENGTHS]


def check_batch_equals_alone(embedder: Embedder, atol: float = 1e-5) -> None:
    together = embedder.compute(items())
    assert np.isfinite(together).all()
    for item, vector in zip(items(), together, strict=True):
        (alone,) = embedder.compute([item])
        np.testing.assert_allclose(vector, alone, atol=atol)
    assert np.abs(together[2] - together[3]).max() > 0.01


@pytest.mark.parametrize("model_type", list(CONFIGS))
def test_a_text_has_one_vector_alone_and_in_a_batch(make: Make, model_type: str) -> None:
    embedder = load_embedder(make(model_type))
    check_batch_equals_alone(embedder)
    assert "its files name none" in embedder.describe()
    assert "normalized" in embedder.describe()


@pytest.mark.parametrize("mode", MODES)
def test_each_pooling_is_that_of_its_formula(make: Make, mode: str) -> None:
    embedder = load_embedder(make("bert", pooled_by(mode, normalize=False)))
    check_batch_equals_alone(embedder, atol=1e-4)
    item = items()[2]
    hidden = np.array(embedder.encoder.hidden_states([item])[0][0], dtype=np.float64)
    places = np.arange(1, len(hidden) + 1)[:, None]
    expected = {
        "cls_token": hidden[0],
        "max_tokens": hidden.max(axis=0),
        "mean_tokens": hidden.mean(axis=0),
        "mean_sqrt_len_tokens": hidden.sum(axis=0) / np.sqrt(len(hidden)),
        "weightedmean_tokens": (hidden * places).sum(axis=0) / places.sum(),
        "lasttoken": hidden[-1],
    }[mode]
    np.testing.assert_allclose(embedder.compute([item])[0], expected, atol=1e-4)


def test_several_poolings_stand_side_by_side(make: Make) -> None:
    embedder = load_embedder(make("bert", pooled_by("mean_tokens", "cls_token")))
    assert embedder.num_dimensions == 64
    assert "cls and mean pooling" in embedder.describe()


@pytest.mark.parametrize("model_type", ["bert", "xlm-roberta", "qwen3", "llama_bidirec"])
def test_unpadded_vectors_are_the_librarys_own(make: Make, model_type: str) -> None:
    embedder = load_embedder(make(model_type))
    item = items()[2]
    own = embedder.encoder.model(mx.array([item.token_ids])).text_embeds
    np.testing.assert_allclose(embedder.compute([item])[0], np.array(own[0]), atol=1e-5)


def test_local_layers_see_only_what_is_near(make: Make) -> None:
    embedder = load_embedder(make("gemma3_text", num_hidden_layers=1, sliding_window_pattern=2))
    token_ids = list(items()[3].token_ids)

    def first_hidden_after_changing(place: int) -> np.ndarray[Any, Any]:
        changed = list(token_ids)
        changed[place] = 1234
        return np.array(embedder.encoder.hidden_states([Item(changed)])[0][0, 0])

    # a window of 8: four to either side
    same = first_hidden_after_changing(len(token_ids) - 1)
    assert np.abs(first_hidden_after_changing(4) - same).max() > 1e-4
    np.testing.assert_array_equal(first_hidden_after_changing(5), same)


def test_half_precision_keeps_padding_out_too(make: Make) -> None:
    embedder = load_embedder(make("modernbert"), dtype="float16")
    assert embedder.encoder.dtype_name == "float32"
    check_batch_equals_alone(embedder)
    embedder = load_embedder(make("bert"), dtype="float16")
    assert embedder.encoder.dtype_name == "float16"
    check_batch_equals_alone(embedder, atol=5e-3)


def test_quantized_weights_are_read(tmp_path: Path, minilm_folder: Path) -> None:
    config = config_of("qwen3", quantization={"group_size": 32, "bits": 8})
    plain = random_weights(config)
    weights = {}
    for name, array in plain.items():
        if array.ndim == 2 and array.shape[1] % 32 == 0:
            weights[name], scales, biases = mx.quantize(array, group_size=32, bits=8)
            weights |= {
                name.replace("weight", "scales"): scales,
                name.replace("weight", "biases"): biases,
            }
        else:
            weights[name] = array
    quantized = load_embedder(write_model(tmp_path / "quantized", minilm_folder, config, weights))
    unquantized = load_embedder(write_model(tmp_path / "plain", minilm_folder, config_of("qwen3"), plain))
    both = (embedder.compute(items()) for embedder in (quantized, unquantized))
    for one, other in zip(*both, strict=True):
        assert float(one @ other) > 0.99


def test_prompts_stand_before_the_text_and_may_be_left_out_of_the_pooling(make: Make) -> None:
    prompts = {"prompts": {"query": "search for: ", "passage": "passage: "}, "default_prompt_name": "passage"}
    files = {**pooled_by("mean_tokens", include_prompt=False), "config_sentence_transformers.json": prompts}
    embedder = load_embedder(make("bert", files))

    def item(text: str, role: TextRole | None) -> Item:
        (tokenized,) = embedder.tokenize(EmbeddingRequest(request_id="r", model="m", inputs=(text,), role=role), 0, 1)
        return tokenized

    query, passage, default = (item("cats", role) for role in (TextRole.QUERY, TextRole.DOCUMENT, None))
    words = embedder.encoder.tokenizer.convert_ids_to_tokens(list(query.token_ids))
    assert words == ["[CLS]", "search", "for", ":", "cats", "[SEP]"]
    assert default == passage
    assert query.num_unpooled == 4
    hidden = np.array(embedder.encoder.hidden_states([query])[0][0])[4:].mean(axis=0)
    np.testing.assert_allclose(embedder.compute([query])[0], hidden / np.linalg.norm(hidden), atol=1e-5)


def test_dense_layers_behind_the_pooling_are_applied(make: Make, tmp_path: Path) -> None:
    files = pooled_by("mean_tokens", normalize=False)
    modules = files["modules.json"]
    assert isinstance(modules, list)
    modules.append({"path": "2_Dense", "type": "sentence_transformers.models.Dense"})
    files["2_Dense/config.json"] = {"activation_function": "torch.nn.modules.activation.Tanh"}
    folder = make("gemma3_text", files)
    weight = mx.random.normal((5, 32))
    mx.save_safetensors(str(folder / "2_Dense" / "model.safetensors"), {"linear.weight": weight})
    embedder = load_embedder(folder)
    assert embedder.num_dimensions == 5
    item = items()[2]
    mean = np.array(embedder.encoder.hidden_states([item])[0][0]).mean(axis=0)
    np.testing.assert_allclose(embedder.compute([item])[0], np.tanh(np.array(weight) @ mean), atol=1e-5)


@pytest.mark.parametrize(
    ("config", "files", "reason"),
    [
        ({"hidden_act": "relu"}, {}, "activates with 'relu'; only gelu"),
        ({"position_embedding_type": "relative_key"}, {}, "relative positions"),
        ({"num_hidden_layers": 3}, {"config.json": config_of("bert", num_hidden_layers=3)}, "lack 16 weights"),
        ({}, {"modules.json": [{"path": "", "type": "sentence_transformers.models.LSTM"}]}, "asks for LSTM"),
        ({}, {"modules.json": {"not": "a list"}}, "modules.json cannot be read"),
    ],
)
def test_what_cannot_be_served_is_refused_with_the_reason(
    tmp_path: Path, minilm_folder: Path, config: dict[str, Any], files: dict[str, object], reason: str
) -> None:
    weights = random_weights(config_of("bert"))
    folder = write_model(tmp_path / "model", minilm_folder, config_of("bert", **config), weights, files)
    with pytest.raises(ModelLoadFailed, match=reason):
        load_embedder(folder)


def test_an_architecture_of_which_there_is_no_encoder_is_named(tmp_path: Path, minilm_folder: Path) -> None:
    config = {**config_of("bert"), "model_type": "mpnet"}
    folder = write_model(tmp_path / "mpnet", minilm_folder, config, random_weights(config_of("bert")))
    with pytest.raises(ModelLoadFailed, match=r"architecture 'mpnet'.*These can: bert, "):
        load_embedder(folder)
