"""Models to measure draft models with where no two real ones of one tokenizer can be had: made from one.

None of them is a pair that anybody would serve; each takes one thing to its end, and the results say which.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx import nn

from benchmarks.grammar_cost import load_model
from mlx_manager.models.loading import LoadedModel


def first_layers(folder: Path, num_layers: int) -> LoadedModel:
    """The model's own first layers under its head: fast, and nobody taught it to guess."""
    loaded = load_model(folder)
    backbone: Any = loaded.model.model
    backbone.layers = backbone.layers[:num_layers]
    return loaded


def rounded(folder: Path, bits: int) -> LoadedModel:
    """The model with the weights of its layers rounded to so many bits, computed as the model itself is: as slow, and
    wrong about as often as a much smaller model of its family may be."""
    loaded = load_model(folder)
    backbone: Any = loaded.model.model
    for layer in backbone.layers:
        for _, module in layer.named_modules():
            if isinstance(module, nn.Linear):
                packed, scales, biases = mx.quantize(module.weight, group_size=64, bits=bits)
                module.weight = mx.dequantize(packed, scales, biases, group_size=64, bits=bits)
                mx.eval(module.weight)
    return loaded


def deepened(folder: Path, times: int) -> LoadedModel:
    """The model with so many times its layers. Those that are added cost what the others do and add nothing, so that it
    says what the model says, as slowly as a model of that size."""
    loaded = load_model(folder)
    backbone: Any = loaded.model.model
    args = loaded.model.args
    added = []
    for index in range((times - 1) * len(backbone.layers)):
        layer = type(backbone.layers[index % len(backbone.layers)])(args)
        layer.self_attn.o_proj.weight = mx.zeros_like(layer.self_attn.o_proj.weight)
        layer.mlp.down_proj.weight = mx.zeros_like(layer.mlp.down_proj.weight)
        mx.eval(layer.parameters())
        added.append(layer)
    backbone.layers = [*backbone.layers, *added]
    return loaded
