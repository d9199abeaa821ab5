"""Loads a text model for serving: weights in the right type for the device, tokenizer, limits from its config."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import psutil
from mlx import nn
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.models.switch_layers import QuantizedSwitchLinear
from mlx_lm.tokenizer_utils import TokenizerWrapper
from mlx_lm.utils import dequantize_model, load_model, load_tokenizer

from mlx_manager.catalog import LoadOptions, ModelEntry, served_context
from mlx_manager.errors import ModelLoadFailed
from mlx_manager.models.families.adapters import adapt
from mlx_manager.models.sight import Sight
from mlx_manager.models.style import ModelStyle, stop_token_ids

Report = Callable[[str, float], None]
"""Takes what is being done, for people, and the fraction of the whole load."""

_DTYPES = {"float32": mx.float32, "float16": mx.float16, "bfloat16": mx.bfloat16}
_MAX_MEMORY_SHARE = 0.7
"""Weights may be dequantized when they then take at most this part of the memory that is available."""
_PIECE_BYTES = 8 * 1024**2
"""Of a large matrix that is dequantized piece by piece: MLX's CPU backend takes several times of what comes out."""
_PROBE_TEXT = "The quick brown fox jumps over 13 lazy dogs."


@dataclass
class LoadedModel:
    """A text model ready to run."""

    model: nn.Module
    tokenizer: TokenizerWrapper
    config: dict[str, Any]
    style: ModelStyle
    eos_token_ids: frozenset[int]
    sampling_defaults: dict[str, Any]
    """The model's own generation_config.json, {} without one."""
    max_context: int
    vocabulary_size: int
    dtype: str
    weights_bytes: int
    sight: Sight | None = None
    """What makes it see; None for a text model."""

    @property
    def layers(self) -> list[nn.Module]:
        """The model's layers, in the order of their caches."""
        return list(self.model.layers)


def is_cpu_backend() -> bool:
    """Whether MLX computes on the CPU here."""
    return bool(mx.default_device() == mx.Device(mx.DeviceType.cpu))


_ADVICE = "Download it again if its files may be incomplete, or choose one that was converted for MLX."


def load_text_model(
    entry: ModelEntry, options: LoadOptions, report: Report, *, split: Callable[[nn.Module], None] = lambda model: None
) -> LoadedModel:
    """Load the model folder `entry.path`. `split` may keep a part of the model, before its weights are read.

    Raises `ModelLoadFailed` with the reason when mlx-lm does not know the architecture or the folder is damaged.
    """
    path = Path(entry.path)
    report("reading the weights", 0.05)
    # The tokenizer is half a second of work without any MLX call: it is read while the weights are computed.
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="tokenizer") as beside:
        try:
            model, config = _read_model(path)
            reading = beside.submit(load_tokenizer, path, eos_token_ids=config.get("eos_token_id"))
            model, dtype = with_dtype(model, options.dtype)
            split(model)
            evaluate(model, report)
            tokenizer = reading.result()
        except (KeyError, TypeError) as error:
            # from the constructors of mlx-lm's model classes, which take their arguments from the config
            reason = f"its config.json does not say what its architecture needs ({error})"
            raise ModelLoadFailed(f"mlx-lm cannot load {entry.name}: {reason}. {_ADVICE}") from error
        except (ValueError, OSError, RuntimeError, ImportError) as error:
            said = str(error).rstrip(".")
            raise ModelLoadFailed(f"mlx-lm cannot load {entry.name}: {said}. {_ADVICE}") from error
    weights: list[tuple[str, mx.array]] = tree_flatten(model.parameters())  # type: ignore[assignment]
    model_type = str(config.get("model_type", ""))
    adapt(model, model_type)
    text_config = config.get("text_config", config)
    vocabulary_size = int(text_config.get("vocab_size", len(tokenizer)))
    _check_tokenizer(entry, tokenizer, vocabulary_size)
    return LoadedModel(
        model=model,
        tokenizer=tokenizer,
        config=config,
        style=ModelStyle.of(tokenizer, model_type, options),
        eos_token_ids=frozenset(tokenizer.eos_token_ids) | stop_token_ids(tokenizer, model_type),
        sampling_defaults=read_json(path / "generation_config.json"),
        max_context=served_context(config, options.max_context),
        vocabulary_size=vocabulary_size,
        dtype=dtype,
        weights_bytes=sum(array.nbytes for _, array in weights),
    )


def _check_tokenizer(entry: ModelEntry, tokenizer: TokenizerWrapper, vocabulary_size: int) -> None:
    """Raise `ModelLoadFailed` for the tokenizer of another model: what is behind the embedding would be read."""
    highest = max(tokenizer.encode(_PROBE_TEXT), default=0)
    if highest >= vocabulary_size:
        raise ModelLoadFailed(
            f"{entry.name} has the tokenizer of another model: it makes token {highest} of plain text, and the model "
            f"has {vocabulary_size} tokens"
        )


def _read_model(path: Path) -> tuple[nn.Module, dict[str, Any]]:
    """The model with its weights still to be computed, and its config. Raises `ImportError` and what mlx-lm raises."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            model, config = load_model(path, lazy=True)
    except SystemExit as error:
        # mlx-lm's olmo prints which package it needs and ends the interpreter.
        reason = said.getvalue().strip() or f"its code ended the interpreter with {error.code!r}"
        raise ImportError(reason) from error
    sys.stdout.write(said.getvalue())
    return model, config


def with_dtype(model: nn.Module, wanted: str) -> tuple[nn.Module, str]:
    """Bring the weights to `wanted`. On a CPU `auto` means float32, dequantized when that fits into memory.

    MLX's CPU backend computes half precision and quantized products many times slower than float32 with a BLAS.
    """
    weights: list[tuple[str, mx.array]] = tree_flatten(model.parameters())  # type: ignore[assignment]
    own = next((a.dtype for _, a in weights if mx.issubdtype(a.dtype, mx.floating)), mx.float32)
    is_quantized = any(
        isinstance(m, nn.QuantizedLinear | nn.QuantizedEmbedding | QuantizedSwitchLinear) for m in model.modules()
    )
    if wanted == "auto" and not is_cpu_backend():
        return model, f"{_name(own)}{', quantized' if is_quantized else ''}"
    target = mx.float32 if wanted == "auto" else _DTYPES[wanted]
    # Scales first: dequantizing half-precision scales on a CPU takes seven times as long as float32 ones (measured).
    model.set_dtype(target)
    fits = _dequantized_bytes(model) < _MAX_MEMORY_SHARE * psutil.virtual_memory().available
    if is_quantized and wanted == "auto" and fits:
        _dequantize_large(model, target)
        model = dequantize_model(model)
        is_quantized = False
    return model, f"{_name(target)}{', quantized' if is_quantized else ''}"


def _dequantized_bytes(model: nn.Module) -> int:
    total = 0
    for module in model.modules():
        if isinstance(module, nn.QuantizedLinear | nn.QuantizedEmbedding | QuantizedSwitchLinear):
            total += module.weight.size * 32 // module.bits * mx.float32.size
    return total


def _dequantize_large(model: nn.Module, dtype: mx.Dtype) -> None:
    """Dequantize the largest matrices, a few rows at a time, so that a load takes little more than the model will."""
    whole: list[tuple[str, nn.Module]] = []
    for name, module in model.named_modules():
        if not isinstance(module, nn.QuantizedLinear | nn.QuantizedEmbedding):
            continue
        num_rows, num_columns = module.weight.shape[0], module.weight.shape[1] * 32 // module.bits
        rows_each = max(1, _PIECE_BYTES // (num_columns * dtype.size))
        if num_rows < 4 * rows_each:
            continue
        plain = nn.Embedding(1, 1) if isinstance(module, nn.QuantizedEmbedding) else nn.Linear(1, 1, bias=False)
        plain.weight = mx.zeros((num_rows, num_columns), dtype)
        for start in range(0, num_rows, rows_each):
            rows = slice(start, start + rows_each)
            biases = None if module.biases is None else module.biases[rows]
            # alone in the module, the array is written in place
            plain.weight[rows] = mx.dequantize(
                module.weight[rows], module.scales[rows], biases, module.group_size, module.bits, module.mode
            )
            mx.eval(plain.weight)
        if "bias" in module:
            plain.bias = module.bias
        whole.append((name, plain))
    if whole:
        model.update_modules(tree_unflatten(whole))


def evaluate(model: nn.Module, report: Report) -> None:
    """Bring the weights into memory layer by layer, so that the progress can be told."""
    layers = list(model.layers)
    for index, layer in enumerate(layers):
        mx.eval(layer.parameters())
        report("loading the weights", 0.1 + 0.7 * (index + 1) / len(layers))
    mx.eval(model.parameters())


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; {} where there is none."""
    try:
        content = json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return content if isinstance(content, dict) else {}


def _name(dtype: mx.Dtype) -> str:
    return str(dtype).rsplit(".", 1)[-1]
