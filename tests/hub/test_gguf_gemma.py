"""GGUF files of Gemma 3: norms, windows and the sentencepiece vocabulary come out as they went in."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx_lm
import numpy as np
import pytest
import sentencepiece
from gguf import GGMLQuantizationType as Kind
from mlx.utils import tree_flatten
from mlx_lm.models.gemma3_text import Model, ModelArgs

from mlx_manager.errors import InvalidRequest
from mlx_manager.hub import import_gguf
from mlx_manager.models import gguf as gguf_models
from tests.hub.gguf_writer import TinyGguf

HIDDEN, HEADS, KV_HEADS, HEAD_DIM, INNER, LAYERS, WINDOW = 64, 2, 1, 32, 96, 3, 8
SENTENCES = [
    "The harbour was quiet in the morning, and the boats lay still.",
    "def add(a, b):\n    return a + b",
    "Größe, naïve, façade: 12 + 30 = 42!",
    "She said:  two  spaces,   three   spaces.",
]
NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "post_feedforward_layernorm": "post_ffw_norm",
}


@pytest.fixture(scope="module")
def pieces() -> sentencepiece.SentencePieceProcessor:
    """A vocabulary trained as Gemma's is: BPE, bytes for what it lacks, no space put before a text."""
    return train(has_prefix=False)


def train(*, has_prefix: bool) -> sentencepiece.SentencePieceProcessor:
    trained = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 20),
        model_writer=trained,
        model_type="bpe",
        vocab_size=400,
        byte_fallback=True,
        add_dummy_prefix=has_prefix,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        user_defined_symbols=["<start_of_turn>", "<end_of_turn>", "▁▁", "▁▁▁"],
        minloglevel=2,
    )
    return sentencepiece.SentencePieceProcessor(model_proto=trained.getvalue())


def metadata(pieces: sentencepiece.SentencePieceProcessor) -> dict[str, Any]:
    size = pieces.get_piece_size()
    kinds = [
        2 if pieces.is_unknown(i) else 3 if pieces.is_control(i) else 6 if pieces.is_byte(i) else 1 for i in range(size)
    ]
    tokens = [pieces.id_to_piece(i) for i in range(size)]
    for index, token in enumerate(tokens):
        if token in ("<start_of_turn>", "<end_of_turn>"):
            kinds[index] = 3
        elif set(token) == {"▁"} and len(token) > 1:
            # GGUF writes user-defined pieces as text
            kinds[index], tokens[index] = 4, token.replace("▁", " ")
    return {
        "general.architecture": "gemma3",
        "gemma3.block_count": LAYERS,
        "gemma3.context_length": 128,
        "gemma3.embedding_length": HIDDEN,
        "gemma3.feed_forward_length": INNER,
        "gemma3.attention.head_count": HEADS,
        "gemma3.attention.head_count_kv": KV_HEADS,
        "gemma3.attention.key_length": HEAD_DIM,
        "gemma3.attention.value_length": HEAD_DIM,
        "gemma3.attention.layer_norm_rms_epsilon": 1e-6,
        "gemma3.attention.sliding_window": WINDOW,
        "gemma3.attention.sliding_window_pattern": 3,
        "gemma3.rope.freq_base": 1000000.0,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [pieces.get_score(i) for i in range(size)],
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_space_prefix": False,
    }


def tiny_gemma(pieces: sentencepiece.SentencePieceProcessor) -> tuple[TinyGguf, Model]:
    """A file, and the model that it was made of."""
    mx.random.seed(5)
    model = Model(
        ModelArgs(
            model_type="gemma3_text",
            hidden_size=HIDDEN,
            num_hidden_layers=LAYERS,
            intermediate_size=INNER,
            num_attention_heads=HEADS,
            num_key_value_heads=KV_HEADS,
            head_dim=HEAD_DIM,
            query_pre_attn_scalar=HEAD_DIM,
            vocab_size=pieces.get_piece_size(),
            sliding_window=WINDOW,
            sliding_window_pattern=3,
        )
    )
    model.tie_word_embeddings = True
    tensors = {}
    parameters: list[tuple[str, mx.array]] = tree_flatten(model.parameters())  # type: ignore[assignment]
    for name, array in parameters:
        weight = mx.random.normal(array.shape) * (0.3 if array.ndim == 1 else 0.1)
        model.load_weights([(name, weight)], strict=False)
        stem = name.removesuffix(".weight")
        told = {"model.embed_tokens": "token_embd", "model.norm": "output_norm"}.get(stem)
        if told is None and stem.startswith("model.layers."):
            _, _, layer, part = stem.split(".", 3)
            told = f"blk.{layer}.{NAMES[part]}"
        if told is not None:
            tensors[f"{told}.weight"] = np.array(weight) + (weight.ndim == 1)
    return TinyGguf(metadata(pieces), tensors), model


def test_the_folder_computes_what_the_model_did(tmp_path: Path, pieces: sentencepiece.SentencePieceProcessor) -> None:
    """Longer than the window, so that the layers with one and those without have to be told apart."""
    tiny, model = tiny_gemma(pieces)
    entry = import_gguf(
        tmp_path, tiny.write(tmp_path / "tiny.gguf"), name="tiny", force=False, report=lambda stage, fraction: None
    )
    assert (entry.architecture, entry.quantization, entry.max_context) == ("gemma3_text", "fp32", 128)
    prompt = mx.array([[1, *range(10, 40)]])
    imported, tokenizer = mlx_lm.load(entry.path)
    np.testing.assert_allclose(np.array(imported(prompt)), np.array(model(prompt)), atol=1e-4)
    # the file holds no template: the family's
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
    rendered = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert rendered == "<s><start_of_turn>user\nBe brief.\n\nHello<end_of_turn>\n<start_of_turn>model\n"


def test_quantized_tensors_are_kept_quantized(tmp_path: Path, pieces: sentencepiece.SentencePieceProcessor) -> None:
    tiny, _ = tiny_gemma(pieces)
    tiny.types = {name: Kind.Q5_0 for name, array in tiny.tensors.items() if array.ndim == 2}
    gguf_models.import_gguf(
        tiny.write(tmp_path / "tiny.gguf"), tmp_path / "tiny", force=False, report=lambda stage, fraction: None
    )
    config = json.loads((tmp_path / "tiny" / "config.json").read_text())
    assert config["quantization"] == {"group_size": 32, "bits": 5}
    assert config["query_pre_attn_scalar"] == HEAD_DIM


@pytest.mark.parametrize("has_prefix", [False, True], ids=["as Gemma", "as Llama 2"])
def test_texts_are_tokenized_as_sentencepiece_does(tmp_path: Path, has_prefix: bool) -> None:
    pieces = train(has_prefix=has_prefix)
    tiny, _ = tiny_gemma(pieces)
    tiny.metadata["tokenizer.ggml.add_space_prefix"] = has_prefix
    gguf_models.import_gguf(
        tiny.write(tmp_path / "tiny.gguf"),
        tmp_path / "tiny",
        force=False,
        report=lambda stage, fraction: None,
        chat_template="{{ messages[0]['content'] }}",
    )
    tokenizer = mlx_lm.utils.load_tokenizer(tmp_path / "tiny")
    assert tokenizer.chat_template == "{{ messages[0]['content'] }}"
    drawn = np.random.default_rng(1)
    alphabet = [*"abcdefgh ,.\n  ü東🌧"]
    texts = [
        *SENTENCES,
        " leading",
        "trailing ",
        "tabs\tand 日本",
        "",
        *("".join(drawn.choice(alphabet, 40)) for _ in range(200)),
    ]
    for text in texts:
        ids = tokenizer.encode(text)
        assert ids == [1, *pieces.encode(text)], text
        assert tokenizer.decode(ids[1:]) == text
    turn = tokenizer.encode("<start_of_turn>user", add_special_tokens=False)
    assert tokenizer.convert_ids_to_tokens(turn)[0] == "<start_of_turn>"


def test_a_model_that_caps_its_logits_is_refused(tmp_path: Path, pieces: sentencepiece.SentencePieceProcessor) -> None:
    tiny, _ = tiny_gemma(pieces)
    tiny.metadata["gemma3.final_logit_softcapping"] = 30.0
    with pytest.raises(InvalidRequest, match=r"gemma3\.final_logit_softcapping = 30\.0 is not supported"):
        gguf_models.import_gguf(
            tiny.write(tmp_path / "tiny.gguf"), tmp_path / "tiny", force=False, report=lambda stage, fraction: None
        )
