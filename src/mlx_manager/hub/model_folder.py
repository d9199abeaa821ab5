"""What the files of one MLX model folder say about the model."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from mlx_manager.catalog import ModelEntry, ModelKind, find_context
from mlx_manager.errors import InvalidRequest
from mlx_manager.hub.characteristics import (
    check_complete,
    count_parameters,
    has_thinking,
    has_tools,
    read_chat_template,
)
from mlx_manager.hub.kind import find_kind
from mlx_manager.hub.safetensors_header import Tensor, read_tensors
from mlx_manager.models.families import find_family

_FORMAT_NAMES = {"BF16": "bf16", "F16": "fp16", "F32": "fp32"}
_DTYPE_NAMES = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}


def read_entry(folder: Path, name: str) -> ModelEntry:
    """The model in `folder`, under `name`. Raises `InvalidRequest` that says what is missing or broken."""
    config_file = folder / "config.json"
    try:
        config = json.loads(config_file.read_text(encoding="utf-8"))
        written_s = int(config_file.stat().st_mtime)
    except (FileNotFoundError, NotADirectoryError):
        raise InvalidRequest(f"{folder} is not an MLX model folder: it has no config.json.") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InvalidRequest(f"{config_file} cannot be read: {error}. Download the model again.") from None
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise InvalidRequest(f"{config_file} is not the config of a model: it names no model_type.")
    if config.get("is_encoder_decoder"):
        raise InvalidRequest(
            f"{folder} holds an encoder with a decoder ({config['model_type']}): those are not served."
        )
    check_complete(folder)
    # in the shared cache files are links, which may lead nowhere
    size_bytes = sum(file.stat().st_size for file in folder.glob("*.safetensors") if file.is_file())
    if not size_bytes:
        raise InvalidRequest(f"{folder} holds no weights: it has no *.safetensors. Download the model again.")
    template = read_chat_template(folder)
    kind = find_kind(folder, name, config)
    chats = kind in (ModelKind.TEXT, ModelKind.VISION)
    tensors = _tensors_of(folder)
    return ModelEntry(
        name=name,
        path=str(folder),
        created_unix_s=written_s,
        size_bytes=size_bytes,
        architecture=config["model_type"],
        quantization=describe_quantization(config, tensors),
        max_context=find_context(config) if chats else _find_input_length(folder, config),
        kind=kind,
        num_parameters=count_parameters(folder, config, tensors),
        family=find_family(config["model_type"], template).name if chats else "",
        has_tools=has_tools(template),
        has_thinking=has_thinking(template),
    )


def describe_quantization(config: Mapping[str, object], tensors: Mapping[str, Tensor]) -> str:
    """ "4-bit", "mixed 4/8-bit", or the type of weights that are not quantized: "bf16".

    Where the config does not say which, it is that of most of the weights.
    """
    quantization = config.get("quantization") or config.get("quantization_config")
    if isinstance(quantization, dict):
        settings = [quantization, *(value for value in quantization.values() if isinstance(value, dict))]
        widths = sorted({setting["bits"] for setting in settings if isinstance(setting.get("bits"), int)})
        if widths:
            return ("mixed " if len(widths) > 1 else "") + "/".join(map(str, widths)) + "-bit"
        if isinstance(method := quantization.get("quant_method"), str):
            return method
    dtype = _first(config, "torch_dtype") or _first(config, "dtype")
    if dtype:
        return _DTYPE_NAMES.get(str(dtype), str(dtype))
    sizes = Counter[str]()
    for tensor in tensors.values():
        sizes[tensor.dtype] += tensor.nbytes
    return _FORMAT_NAMES.get(most := sizes.most_common(1)[0][0], most.lower()) if sizes else "unknown"


def _tensors_of(folder: Path) -> Mapping[str, Tensor]:
    """Those of its files; none where they cannot be read, which its load will tell."""
    try:
        return read_tensors(folder)
    except InvalidRequest:
        return {}


def _find_input_length(folder: Path, config: Mapping[str, object]) -> int | None:
    """The longest text that an encoder takes, in tokens, as `models.embedding` and `models.reranking` have it: what
    sentence-transformers and the tokenizer say lowers what the config does."""
    stated = [find_context(config)]
    for file, key in (("sentence_bert_config.json", "max_seq_length"), ("tokenizer_config.json", "model_max_length")):
        try:
            written = json.loads((folder / file).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        value = written.get(key) if isinstance(written, dict) else None
        stated.append(value if isinstance(value, int) and value > 0 else None)
    return min((length for length in stated if length is not None), default=None)


def _first(config: Mapping[str, object], key: str) -> object:
    """`key` of the text model inside a vision model's config, else of the config itself."""
    nested = config.get("text_config")
    if isinstance(nested, dict) and nested.get(key) is not None:
        return nested[key]
    return config.get(key)
