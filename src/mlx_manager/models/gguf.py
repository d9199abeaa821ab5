"""A GGUF file made into an ordinary MLX model folder, its quantization kept. Which families: `families.gguf`.

What would change the answers and is not understood here is refused by name, before anything is written.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import cast

import mlx.core as mx
import psutil

from mlx_manager.errors import InvalidRequest
from mlx_manager.models.gguf_blocks import BITS, GROUP_SIZE, read_tensor
from mlx_manager.models.gguf_config import ROPE_DIVISORS, ModelShape, find_llama3_scaling, read_shape
from mlx_manager.models.gguf_file import BLOCK_LAYOUTS, GgufHeader, TensorHeader, read_header
from mlx_manager.models.gguf_tokenizer import ConvertedTokenizer, convert_tokenizer

Report = Callable[[str, float], None]
"""Takes what is being done, for people, and how much of the whole is done, 0 to 1."""

_TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


def import_gguf(source: Path, target: Path, *, force: bool, report: Report, chat_template: str = "") -> None:
    """Write the model of the GGUF file `source` as the folder `target`, whole or not at all.

    `chat_template` stands in the place of the file's own; where that has none, the family's is taken. An existing
    `target` is replaced only with `force`. Raises `InvalidRequest`, and `OSError` from the disk.
    """
    report("reading the header", 0.0)
    header = read_header(source)
    shape = read_shape(header)
    _check_tensors(header, shape)
    _check_target(source, target, force=force)
    report("building the tokenizer", 0.05)
    tokenizer = convert_tokenizer(header.metadata, shape.num_embeddings)
    template = chat_template or tokenizer.config.get("chat_template") or shape.family.chat_template
    if template:
        tokenizer.config["chat_template"] = template
    report("reading the weights", 0.3)
    weights, shape = _load_weights(source, header, shape)
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(target)
    partial = target.parent / f".{target.name}.{os.getpid()}.partial"
    try:
        partial.mkdir()
        report("writing the weights", 0.5)
        mx.save_safetensors(str(partial / "model.safetensors"), weights, metadata={"format": "mlx"})
        report("writing the tokenizer", 0.9)
        _write_texts(partial, header, shape, tokenizer, dtype=_dtype_of(weights))
        _put_in_place(partial, target, force=force)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    report("done", 1.0)


def _check_tensors(header: GgufHeader, shape: ModelShape) -> None:
    """Refuse any tensor that is missing, unknown, misshapen, or of a type that MLX cannot keep."""
    expected = shape.tensor_shapes()
    counts = Counter(tensor.name for tensor in header.tensors)
    for tensor in header.tensors:
        if tensor.name not in expected:
            raise InvalidRequest(
                f"Tensor {tensor.name!r} is not part of a plain {shape.architecture} model of {shape.num_layers} "
                "layers, which alone can be imported. Use an MLX model folder of this model instead."
            )
        if tensor.shape != expected[tensor.name] or counts[tensor.name] > 1:
            raise InvalidRequest(
                f"This file is damaged: it has {counts[tensor.name]} tensors {tensor.name!r} of shape {tensor.shape}; "
                f"by its metadata it is one of shape {expected[tensor.name]}."
            )
        _check_type(tensor)
    missing = sorted(set(expected) - set(counts))
    if missing:
        raise InvalidRequest(f"This file is incomplete: it lacks {len(missing)} tensors, among them {missing[0]!r}.")


def _check_type(tensor: TensorHeader) -> None:
    if tensor.type not in BLOCK_LAYOUTS:
        raise InvalidRequest(
            f"Tensor {tensor.name!r} is stored as {tensor.type}, which MLX cannot keep; it keeps "
            f"{', '.join(BLOCK_LAYOUTS)}. Use a GGUF of this model in one of these, usually named Q4_K_M, Q8_0 or F16."
        )
    if tensor.type in BITS and (len(tensor.shape) != 2 or tensor.shape[0] % BLOCK_LAYOUTS[tensor.type][0]):
        raise InvalidRequest(f"This file is damaged: tensor {tensor.name!r} of shape {tensor.shape} is {tensor.type}.")


def _check_target(source: Path, target: Path, *, force: bool) -> None:
    if target.exists() and not force:
        raise InvalidRequest(f"{target} exists already. Choose another name with --name, or replace it with --force.")
    folder = target.parent
    while not folder.exists():
        folder = folder.parent
    free_bytes, needed_bytes = shutil.disk_usage(folder).free, source.stat().st_size
    if free_bytes < needed_bytes * 1.1:
        raise InvalidRequest(
            f"There is too little room in {folder}: {free_bytes / 1e9:.1f} GB free, {needed_bytes / 1e9:.1f} GB "
            "needed. Make room on that disk."
        )


def _remove_leftovers(target: Path) -> None:
    """Remove what imports that were killed left beside `target`: folders of processes that are no more."""
    for leftover in target.parent.glob(f".{target.name}.*.partial"):
        pid = leftover.name.rsplit(".", 2)[1]
        if pid.isdecimal() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(leftover, ignore_errors=True)


def _load_weights(source: Path, header: GgufHeader, shape: ModelShape) -> tuple[dict[str, mx.array], ModelShape]:
    """The weights by mlx-lm's names, and the shape with the rotary scaling that only a tensor tells."""
    family = shape.family
    num_rotated_heads = {"attn_q": shape.num_heads, "attn_k": shape.num_kv_heads} if family.is_rotary_permuted else {}
    weights: dict[str, mx.array] = {}
    for tensor in header.tensors:
        parts = read_tensor(source, header, tensor)
        if tensor.name == ROPE_DIVISORS:
            values = cast(list[float], parts["weight"].astype(mx.float32).tolist())
            shape = replace(shape, rope_scaling=find_llama3_scaling(values, shape))
            continue
        stem = tensor.name.removesuffix(".weight")
        num_heads = num_rotated_heads.get(stem.rsplit(".", 1)[-1])
        if family.norm_offset and stem.endswith("norm"):
            parts = {"weight": parts["weight"] - family.norm_offset}
        for suffix, array in parts.items():
            name = f"{_mlx_name(stem, family.layer)}.{suffix}"
            weights[name] = _unpermute(array, num_heads) if num_heads else array
    # GGUF keeps vectors in float32; in a folder of one type they do not lift every activation after them to float32.
    dtype = _dtype_of(weights)
    weights = {name: array.astype(dtype) if array.ndim == 1 else array for name, array in weights.items()}
    return weights, shape


def _unpermute(rows: mx.array, num_heads: int) -> mx.array:
    """Undo llama.cpp's order of the rows of q and k, which pairs neighbours; MLX's rotary pairs the halves of a head.

    Rows are whole in packed weights, scales and biases alike: [heads · head_dim, …].
    """
    split = rows.reshape(num_heads, rows.shape[0] // num_heads // 2, 2, *rows.shape[1:])
    return split.swapaxes(1, 2).reshape(rows.shape)


def _mlx_name(tensor: str, layer: Mapping[str, str]) -> str:
    if tensor in _TOP:
        return _TOP[tensor]
    _, index, part = tensor.split(".")
    return f"model.layers.{index}.{layer[part]}"


def _dtype_of(weights: dict[str, mx.array]) -> mx.Dtype:
    """The type that the model computes in: that of its embedding, or of the scales of it."""
    name = "model.embed_tokens"
    return weights.get(f"{name}.scales", weights[f"{name}.weight"]).dtype


def _quantization(header: GgufHeader, layer: Mapping[str, str]) -> dict[str, object] | None:
    """As mlx-lm writes it: the commonest width for all, then each layer that differs by name."""
    bits = {
        _mlx_name(tensor.name.removesuffix(".weight"), layer): BITS[tensor.type]
        for tensor in header.tensors
        if tensor.type in BITS
    }
    if not bits:
        return None
    ((commonest, _),) = Counter(bits.values()).most_common(1)
    exceptions = {name: {"group_size": GROUP_SIZE, "bits": width} for name, width in bits.items() if width != commonest}
    return {"group_size": GROUP_SIZE, "bits": commonest, **exceptions}


def _write_texts(
    folder: Path, header: GgufHeader, shape: ModelShape, tokenizer: ConvertedTokenizer, *, dtype: mx.Dtype
) -> None:
    ids = {f"{role}_token_id": token_id for role, token_id in tokenizer.special_ids.items() if role != "unk"}
    config = {**shape.as_config(), **ids, "torch_dtype": str(dtype).removeprefix("mlx.core.")}
    quantization = _quantization(header, shape.family.layer)
    if quantization is not None:
        config |= {"quantization": quantization, "quantization_config": quantization}
    generation: dict[str, object] = dict(ids)
    if tokenizer.end_ids:
        generation["eos_token_id"] = tokenizer.end_ids[0] if len(tokenizer.end_ids) == 1 else list(tokenizer.end_ids)
    _write_json(folder / "config.json", config)
    _write_json(folder / "generation_config.json", generation)
    _write_json(folder / "tokenizer_config.json", tokenizer.config)
    tokenizer.tokenizer.save(str(folder / "tokenizer.json"))


def _write_json(file: Path, content: dict[str, object]) -> None:
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _put_in_place(partial: Path, target: Path, *, force: bool) -> None:
    """Rename the finished folder to its place. A folder that came to be there meanwhile is kept, unless `force`."""
    replaced = partial.with_suffix(".replaced")
    if force and target.exists():
        target.rename(replaced)
    try:
        partial.rename(target)
    except OSError:
        if replaced.exists():
            replaced.rename(target)
        raise InvalidRequest(
            f"{target} exists already: it was made meanwhile. Look at it before you import again."
        ) from None
    shutil.rmtree(replaced, ignore_errors=True)
