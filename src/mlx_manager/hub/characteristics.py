"""What a model folder's files tell beyond its config: parameters, tools, thinking, whether all of it is there."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlx_manager.errors import InvalidRequest
from mlx_manager.hub.safetensors_header import Tensor

_INDEX = "model.safetensors.index.json"
_TOOLS = re.compile(r"\btools\b")
_THINKING = re.compile(
    r"enable_thinking|<(\w+[:_])?think>|reasoning_content|reasoning_effort|thinking_budget|\[THINK\]|START_THINKING"
)
"""What chat templates of models that think say somewhere, whichever way they do it."""
_MOST_PARAMETERS = 2**60
_PACKED_BITS = 32
"""Quantized weights are packed into unsigned numbers of so many bits."""


def check_complete(folder: Path) -> None:
    """Raises `InvalidRequest` when weight files that the index names are missing, as after a broken download."""
    try:
        weight_map = json.loads((folder / _INDEX).read_text(encoding="utf-8"))["weight_map"]
        files = set(weight_map.values())
    except FileNotFoundError:
        return
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidRequest(f"{folder / _INDEX} cannot be read: {error!r}. Download the model again.") from None
    missing = sorted(name for name in files if not (folder / str(name)).is_file())
    if missing:
        raise InvalidRequest(
            f"{folder} is incomplete: {len(missing)} of its {len(files)} weight files are missing "
            f"({missing[0]}{', …' if len(missing) > 1 else ''}). Download the model again."
        )


def count_parameters(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> int | None:
    """The model's parameters, quantized ones counted as what they stand for; None where no file says."""
    try:
        stated = json.loads((folder / _INDEX).read_text(encoding="utf-8"))["metadata"]["total_parameters"]
        if isinstance(stated, int) and 0 < stated < _MOST_PARAMETERS:
            return stated
    except (OSError, ValueError, KeyError, TypeError):
        pass
    quantization = config.get("quantization") or config.get("quantization_config") or {}
    return sum(_num_parameters(name, tensor, tensors, quantization) for name, tensor in tensors.items()) or None


def has_tools(template: str) -> bool:
    """Whether the chat template shows tools to the model."""
    return bool(_TOOLS.search(template))


def has_thinking(template: str) -> bool:
    """Whether the chat template knows a part of an answer in which the model thinks."""
    return bool(_THINKING.search(template))


def read_chat_template(folder: Path) -> str:
    """The chat template's text, all of them where there are several; empty where there is none."""
    try:
        return (folder / "chat_template.jinja").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        pass
    for name in ("chat_template.json", "tokenizer_config.json"):
        try:
            template = json.loads((folder / name).read_text(encoding="utf-8")).get("chat_template")
        except (OSError, ValueError, AttributeError):
            continue
        if isinstance(template, str):
            return template
        if isinstance(template, list):
            return "\n".join(str(part.get("template", "")) for part in template if isinstance(part, dict))
    return ""


def _num_parameters(name: str, tensor: Tensor, tensors: Mapping[str, Tensor], quantization: Mapping[str, Any]) -> int:
    module, _, leaf = name.rpartition(".")
    if f"{module}.scales" not in tensors:
        return tensor.num_elements
    if leaf in ("scales", "biases"):
        return 0
    own = quantization.get(module)
    bits = (own if isinstance(own, dict) else quantization).get("bits") or quantization.get("bits") or 4
    return tensor.num_elements * _PACKED_BITS // int(bits) if leaf == "weight" else tensor.num_elements
