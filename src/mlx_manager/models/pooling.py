"""From the hidden states of a text to its vector, as the sentence-transformers files of a model say."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import mlx.core as mx

from mlx_manager.errors import ModelLoadFailed
from mlx_manager.models.encoder import LoadedEncoder, read_json

_MODES = ("cls_token", "max_tokens", "mean_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
"""Several at once are put one after the other in this order, as sentence-transformers does."""
_ACTIVATIONS: Mapping[str, Callable[[mx.array], mx.array]] = MappingProxyType(
    {"Identity": lambda values: values, "Tanh": mx.tanh}
)


@dataclass(frozen=True)
class Projection:
    """A dense layer behind the pooling. `weight` [out, in]."""

    weight: mx.array
    bias: mx.array | None
    activation: str

    def __call__(self, vectors: mx.array) -> mx.array:
        projected = vectors @ self.weight.T
        return _ACTIVATIONS[self.activation](projected if self.bias is None else projected + self.bias)


@dataclass(frozen=True)
class Pooling:
    """What comes behind the encoder."""

    modes: tuple[str, ...]
    projections: tuple[Callable[[mx.array], mx.array], ...]
    normalizes: bool
    includes_prompt: bool
    """Whether the tokens of a prompt are pooled with those of the text."""
    is_named: bool
    """Whether the model's files name the pooling; else it is the library's for the architecture."""

    def __call__(self, hidden: mx.array, mask: mx.array, pooled: mx.array) -> mx.array:
        """Vectors [B, D'] in float32. `mask` [B, L] has ones at tokens, `pooled` at those that count."""
        hidden = hidden.astype(mx.float32)
        vectors = mx.concatenate([_pool(mode, hidden, mask, pooled) for mode in self.modes], axis=-1)
        for projection in self.projections:
            vectors = projection(vectors).astype(mx.float32)
        if self.normalizes:
            vectors = vectors / mx.maximum(mx.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
        return vectors

    def describe(self) -> str:
        """ "mean pooling, normalized" """
        modes = " and ".join(mode.removesuffix("_tokens").removesuffix("_token") for mode in self.modes)
        origin = "" if self.is_named else " (its files name none: the library's choice)"
        return f"{modes} pooling{origin}, {'normalized' if self.normalizes else 'not normalized'}"


def read_pooling(encoder: LoadedEncoder) -> Pooling:
    """What the model's modules.json and the folders it names say. Raises `ModelLoadFailed` for what is not served."""
    modes: tuple[str, ...] = ()
    includes_prompt, normalizes = True, False
    projections: list[Callable[[mx.array], mx.array]] = list(getattr(encoder.model, "dense", ()))
    has_own_projections = bool(projections)
    modules = _read_modules(encoder.folder)
    for kind, folder in modules:
        if kind == "Pooling":
            written = read_json(folder / "config.json")
            modes, includes_prompt = _modes(written), bool(written.get("include_prompt", True))
        elif kind == "Dense" and not has_own_projections:
            projections.append(_read_projection(folder))
        elif kind == "Normalize":
            normalizes = True
        elif kind not in ("Transformer", "Dense", "Dropout"):
            raise ModelLoadFailed(f"the model's modules.json asks for {kind}, which is not served")
    if not modules:
        # a conversion that kept only the encoder: the library's classes normalize
        modes, normalizes = _modes(read_json(encoder.folder / "1_Pooling" / "config.json")), True
    return Pooling(
        modes=modes or (_default_mode(encoder),),
        projections=tuple(projections),
        normalizes=normalizes,
        includes_prompt=includes_prompt,
        is_named=bool(modes),
    )


def _read_modules(folder: Path) -> list[tuple[str, Path]]:
    """The kind and the folder of each module, in order; [] where there is no modules.json."""
    try:
        modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
        return [(str(module["type"]).rsplit(".", 1)[-1], folder / str(module["path"])) for module in modules]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ModelLoadFailed(f"{folder / 'modules.json'} cannot be read: {error}. Download the model again.") from None


def _modes(written: Mapping[str, Any]) -> tuple[str, ...]:
    if isinstance(named := written.get("pooling_mode"), str):
        wanted = {f"{named}_tokens", f"{named}_token", named}
        return tuple(mode for mode in _MODES if mode in wanted)
    return tuple(mode for mode in _MODES if written.get(f"pooling_mode_{mode}"))


def _default_mode(encoder: LoadedEncoder) -> str:
    own = encoder.config.get("classifier_pooling")
    default = own if own in ("cls", "mean") else encoder.family.default_pooling
    return next(mode for mode in _MODES if mode.startswith(default))


def _read_projection(folder: Path) -> Projection:
    written = read_json(folder / "config.json")
    activation = str(written.get("activation_function", "Identity")).rsplit(".", 1)[-1]
    if activation not in _ACTIVATIONS:
        raise ModelLoadFailed(f"{folder.name} activates with {activation}, which is not served")
    try:
        weights: dict[str, mx.array] = mx.load(str(folder / "model.safetensors"))  # type: ignore[assignment]
        return Projection(weights["linear.weight"].astype(mx.float32), weights.get("linear.bias"), activation)
    except (OSError, RuntimeError, KeyError) as error:
        raise ModelLoadFailed(f"{folder} holds no dense layer in safetensors: {error}") from error


def _pool(mode: str, hidden: mx.array, mask: mx.array, pooled: mx.array) -> mx.array:
    """`hidden` [B, L, D] in float32 to [B, D]."""
    if mode == "cls_token":
        return hidden[:, 0]
    if mode == "lasttoken":
        last = mask.sum(axis=1).astype(mx.int32) - 1
        return mx.take_along_axis(hidden, last[:, None, None], axis=1)[:, 0]
    # what stands at padded places has no meaning, and may be no number at all
    weights = pooled[..., None]
    real = mx.where(weights > 0, hidden, 0.0)
    if mode == "max_tokens":
        return mx.where(weights > 0, hidden, -mx.inf).max(axis=1)
    if mode == "weightedmean_tokens":
        weights = weights * mx.arange(1, hidden.shape[1] + 1, dtype=mx.float32)[None, :, None]
    total = mx.maximum(weights.sum(axis=1), 1e-9)
    if mode == "mean_sqrt_len_tokens":
        total = mx.sqrt(total)
    return (real * weights).sum(axis=1) / total
