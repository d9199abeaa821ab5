"""A GGUF file becomes an MLX model folder that computes the same; what cannot is refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import gguf.quants
import mlx.core as mx
import mlx_lm
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind

from mlx_manager.catalog import ModelEntry
from mlx_manager.errors import InvalidRequest
from mlx_manager.hub import Inventory, import_gguf
from mlx_manager.models import gguf as gguf_models
from tests.hub.gguf_writer import HEAD_DIM, HIDDEN, TOKENS, TinyGguf, llama_reference, tiny_llama

PROMPT = [1, 40, 41, 42, 260, 7, 90, 33, 12, 200]


def imported(home: Path, source: Path, *, force: bool = False) -> ModelEntry:
    """By a process of its own, as the server does."""
    return import_gguf(home, source, name="tiny", force=force, report=lambda stage, fraction: None)


def converted(home: Path, source: Path, *, force: bool = False) -> ModelEntry:
    """The conversion inside this process: what it makes and refuses is the same, and sooner known."""
    gguf_models.import_gguf(source, home / "models" / "tiny", force=force, report=lambda stage, fraction: None)
    return Inventory(home).find("tiny")


def logits_of(entry: ModelEntry) -> np.ndarray:
    model, _ = mlx_lm.load(entry.path)
    return np.array(model(mx.array([PROMPT]))[0].astype(mx.float32))


@pytest.mark.parametrize("is_tied", [True, False], ids=["tied", "untied"])
def test_the_folder_computes_what_the_file_says(tmp_path: Path, is_tied: bool) -> None:
    tiny = tiny_llama(is_tied=is_tied)
    entry = imported(tmp_path, tiny.write(tmp_path / "tiny.gguf"))
    assert (entry.architecture, entry.quantization, entry.max_context) == ("llama", "fp32", 256)
    np.testing.assert_allclose(logits_of(entry), llama_reference(tiny, PROMPT), atol=2e-4)


@pytest.mark.parametrize(("kind", "described"), [(Kind.F16, "fp16"), (Kind.BF16, "bf16"), (Kind.Q8_0, "8-bit")])
def test_a_file_of_one_type_keeps_it(tmp_path: Path, kind: Kind, described: str) -> None:
    tiny = tiny_llama()
    tiny.types = {name: kind for name, array in tiny.tensors.items() if array.ndim == 2}
    entry = converted(tmp_path, tiny.write(tmp_path / "tiny.gguf"))
    assert entry.quantization == described
    expected = {Kind.BF16: mx.bfloat16}.get(kind, mx.float16)
    weights = mx.load(str(Path(entry.path) / "model.safetensors"))
    assert isinstance(weights, dict)
    assert {array.dtype for array in weights.values()} <= {expected, mx.uint32}
    reference = llama_reference(dequantized(tiny), PROMPT)
    np.testing.assert_allclose(logits_of(entry), reference, atol=0.05 if kind is Kind.BF16 else 0.02)


@pytest.mark.parametrize("narrow", [Kind.Q4_0, Kind.Q4_1])
def test_mixed_widths_are_kept_layer_by_layer(tmp_path: Path, narrow: Kind) -> None:
    tiny = tiny_llama(is_tied=False)
    tiny.types = {name: narrow for name, array in tiny.tensors.items() if array.ndim == 2}
    tiny.types |= {"token_embd.weight": Kind.Q8_0, "blk.1.ffn_down.weight": Kind.Q8_0, "output.weight": Kind.F16}
    entry = converted(tmp_path, tiny.write(tmp_path / "tiny.gguf"))
    assert entry.quantization == "mixed 4/8-bit"
    config = json.loads((Path(entry.path) / "config.json").read_text())
    wide = {"group_size": 32, "bits": 8}
    assert config["quantization"] == {
        "group_size": 32,
        "bits": 4,
        "model.embed_tokens": wide,
        "model.layers.1.mlp.down_proj": wide,
    }
    np.testing.assert_allclose(logits_of(entry), llama_reference(dequantized(tiny), PROMPT), atol=0.02)


def dequantized(tiny: TinyGguf) -> TinyGguf:
    """The tensors as they are after their types have rounded them."""
    rounded = {
        name: gguf.quants.dequantize(gguf.quants.quantize(array, kind), kind).reshape(array.shape)
        for name, array in tiny.tensors.items()
        for kind in [tiny.types.get(name, Kind.F32)]
    }
    return TinyGguf(tiny.metadata, rounded)


def test_llama_3_rotary_scaling_is_found_again(tmp_path: Path) -> None:
    tiny = tiny_llama()
    tiny.metadata |= {"llama.rope.freq_base": 500000.0, "llama.context_length": 131072}
    tiny.tensors["rope_freqs.weight"] = np.array(llama3_divisors(factor=32.0, base=500000.0), np.float32)
    entry = converted(tmp_path, tiny.write(tmp_path / "tiny.gguf"))
    config = json.loads((Path(entry.path) / "config.json").read_text())
    assert config["rope_scaling"] == {
        "rope_type": "llama3",
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    model, _ = mlx_lm.load(entry.path)
    frequencies = 500000.0 ** (np.arange(0, HEAD_DIM, 2) / HEAD_DIM) * tiny.tensors["rope_freqs.weight"]
    np.testing.assert_allclose(np.array(model.layers[0].self_attn.rope._freqs), frequencies, rtol=1e-3)


def llama3_divisors(*, factor: float, base: float) -> list[float]:
    """As the converter of llama.cpp computes them, written down once more."""
    divisors = []
    for wavelength in 2 * np.pi * base ** (np.arange(0, HEAD_DIM, 2) / HEAD_DIM):
        share = np.clip((8192 / wavelength - 1) / 3, 0, 1)
        divisors.append(1 / ((1 - share) / factor + share))
    return divisors


def test_the_starter_model_is_converted_as_it_is_known_to_work(starter_folder: Path) -> None:
    entry = Inventory(starter_folder.parents[1]).find(starter_folder.name)
    assert (entry.quantization, entry.max_context, entry.architecture) == ("mixed 4/8-bit", 8192, "llama")
    config = json.loads((starter_folder / "config.json").read_text())
    assert config["quantization"]["model.embed_tokens"] == {"group_size": 32, "bits": 8}
    assert (config["rope_theta"], config["rms_norm_eps"], config["tie_word_embeddings"]) == (100000.0, 1e-05, True)


def metadata(**changed: object) -> Callable[[TinyGguf], None]:
    return lambda tiny: tiny.metadata.update({key.replace("__", "."): value for key, value in changed.items()})


def add_tensor(name: str, *shape: int) -> Callable[[TinyGguf], None]:
    return lambda tiny: tiny.tensors.update({name: np.full(shape, 3, np.float32)})


def in_type(name: str, kind: Kind) -> Callable[[TinyGguf], None]:
    return lambda tiny: tiny.types.update({name: kind})


REFUSALS = {
    "another architecture": (metadata(general__architecture="mamba"), "architecture of this file is 'mamba'"),
    "experts": (metadata(llama__expert_count=8), "llama.expert_count = 8"),
    "scaled logits": (metadata(llama__logit_scale=0.25), "llama.logit_scale = 0.25"),
    "yarn": (metadata(llama__rope__scaling__type="yarn"), "llama.rope.scaling.type = 'yarn'"),
    "heads that differ by layer": (
        metadata(llama__attention__head_count_kv=[2, 1]),
        "llama.attention.head_count_kv differs from layer to layer",
    ),
    "partial rotary": (metadata(llama__rope__dimension_count=8), "llama.rope.dimension_count differs"),
    "no context": (metadata(llama__context_length=None), "llama.context_length is missing"),
    "one part of several": (metadata(split__count=3), "one of 3 parts"),
    "a type MLX cannot keep": (
        in_type("blk.1.attn_v.weight", Kind.MXFP4),
        "'blk.1.attn_v.weight' is stored as MXFP4, which MLX cannot keep",
    ),
    "an unknown tensor": (add_tensor("blk.0.attn_q.bias", 64), "'blk.0.attn_q.bias' is not part of a plain llama"),
    "a missing tensor": (lambda tiny: tiny.tensors.pop("blk.1.ffn_up.weight"), "among them 'blk.1.ffn_up.weight'"),
    "a misshapen tensor": (add_tensor("blk.0.attn_k.weight", HIDDEN, HIDDEN), "'blk.0.attn_k.weight' of shape"),
    "unknown rotary frequencies": (add_tensor("rope_freqs.weight", HEAD_DIM // 2), "are not scaled as Llama 3"),
    "a wordpiece vocabulary": (metadata(tokenizer__ggml__model="bert"), "tokenizer of this file is of the kind 'bert'"),
    "a sentencepiece vocabulary without bytes": (metadata(tokenizer__ggml__model="llama"), "a token for each byte"),
    "an unknown pre-tokenizer": (metadata(tokenizer__ggml__pre="viking"), "pre-tokenizer 'viking'"),
    "no pre-tokenizer": (metadata(tokenizer__ggml__pre=None), "tokenizer.ggml.pre is missing"),
    "no vocabulary": (metadata(tokenizer__ggml__tokens=None), "tokenizer.ggml.tokens is missing"),
    "too long a vocabulary": (
        metadata(tokenizer__ggml__tokens=[*TOKENS, "more"]),
        "vocabulary of this file is damaged",
    ),
    "a merge of one": (metadata(tokenizer__ggml__merges=["he"]), "'he' is not a merge of two tokens"),
    "eos outside": (metadata(tokenizer__ggml__eos_token_id=9999), "tokenizer.ggml.eos_token_id is 9999"),
}


@pytest.mark.parametrize("flaw", REFUSALS)
def test_what_is_not_supported_is_refused_by_name(tmp_path: Path, flaw: str) -> None:
    change, message = REFUSALS[flaw]
    tiny = tiny_llama()
    change(tiny)
    source = tiny.write(tmp_path / "flawed.gguf")
    with pytest.raises(InvalidRequest) as refusal:
        converted(tmp_path, source)
    assert message in refusal.value.message
    assert not list((tmp_path / "models").glob("*"))


def test_a_quantization_that_is_not_known_is_refused_with_a_way_out(tmp_path: Path) -> None:
    source = tiny_llama().write(tmp_path / "tiny.gguf")
    content = bytearray(source.read_bytes())
    name = b"blk.0.ffn_gate.weight"
    # after the name: the number of dimensions, two lengths, then the type
    at = content.index(name) + len(name) + 4 + 8 + 8
    content[at : at + 4] = int(Kind.Q3_K).to_bytes(4, "little")
    source.write_bytes(content)
    with pytest.raises(InvalidRequest, match=r"stored as Q3_K, which MLX cannot keep.*Use a GGUF of this model in"):
        converted(tmp_path, source)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.05, 0.3, 0.999])
def test_a_file_cut_short_is_refused(tmp_path: Path, share: float) -> None:
    source = tiny_llama().write(tmp_path / "tiny.gguf")
    content = source.read_bytes()
    source.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(InvalidRequest, match=r"cut short|cannot be read as a GGUF"):
        converted(tmp_path, source)


def test_what_is_no_gguf_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "notes.gguf"
    source.write_text("these are not the weights")
    with pytest.raises(InvalidRequest, match="does not begin with the letters GGUF"):
        imported(tmp_path, source)
    source.write_bytes(b"GGUF\x01\0\0\0" + bytes(64))
    with pytest.raises(InvalidRequest, match="version 1"):
        converted(tmp_path, source)
    with pytest.raises(InvalidRequest, match="There is no file"):
        imported(tmp_path, tmp_path / "missing.gguf")


def test_a_damaged_byte_never_ends_in_anything_but_a_refusal_or_a_model(tmp_path: Path) -> None:
    """One byte of the header changed, at places spread over it: never a crash, a hang or half a folder."""
    source = tiny_llama().write(tmp_path / "tiny.gguf")
    content = source.read_bytes()
    header_bytes = content.index(b"blk.1.ffn_norm.weight") + 60
    random = np.random.default_rng(7)
    for place in random.integers(4, header_bytes, 12):
        damaged = bytearray(content)
        damaged[place] ^= 0x80
        source.write_bytes(damaged)
        try:
            entry = converted(tmp_path, source, force=True)
        except InvalidRequest:
            assert not list((tmp_path / "models").glob(".*"))
        else:
            assert (Path(entry.path) / "model.safetensors").exists()


def test_an_existing_model_is_replaced_only_when_asked(tmp_path: Path) -> None:
    source = tiny_llama(seed=1).write(tmp_path / "one.gguf")
    first = logits_of(converted(tmp_path, source))
    other = tiny_llama(seed=2).write(tmp_path / "two.gguf")
    with pytest.raises(InvalidRequest, match=r"exists already.*--force"):
        converted(tmp_path, other)
    assert np.array_equal(logits_of(Inventory(tmp_path).find("tiny")), first)
    assert not np.array_equal(logits_of(imported(tmp_path, other, force=True)), first)
    assert [folder.name for folder in (tmp_path / "models").iterdir()] == ["tiny"]


def test_leftovers_of_a_killed_import_are_removed(tmp_path: Path) -> None:
    leftover = tmp_path / "models" / ".tiny.4194305.partial"
    leftover.mkdir(parents=True)
    (leftover / "model.safetensors").write_bytes(b"half")
    converted(tmp_path, tiny_llama().write(tmp_path / "tiny.gguf"))
    assert not leftover.exists()


@pytest.mark.parametrize("name", ["", "../up", "/absolute", "a/b/c", ".hidden", "a b"])
def test_a_name_that_would_leave_the_inventory_is_refused(tmp_path: Path, name: str) -> None:
    source = tiny_llama().write(tmp_path / "tiny.gguf")
    with pytest.raises(InvalidRequest, match="cannot be a model's name"):
        import_gguf(tmp_path, source, name=name, force=False, report=lambda stage, fraction: None)
