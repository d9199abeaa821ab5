"""Loads a vision model of mlx-vlm: its language model for the engine, its tower and its processor to see with."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_flatten
from mlx_lm.tokenizer_utils import TokenizerWrapper
from mlx_lm.utils import load_tokenizer
from mlx_vlm.utils import load_image_processor, load_model, load_processor

from mlx_manager.catalog import LoadOptions, ModelEntry, served_context
from mlx_manager.errors import ModelLoadFailed
from mlx_manager.models.families.vision import exact_context
from mlx_manager.models.language import LanguagePart
from mlx_manager.models.loading import LoadedModel, Report, evaluate, read_json, with_dtype
from mlx_manager.models.own_code import NO_OWN_CODE, refuse_own_code
from mlx_manager.models.pieces import SeeingTokenizer
from mlx_manager.models.sight import Sight
from mlx_manager.models.style import ModelStyle, stop_token_ids

_LIBRARY_ERRORS = (ValueError, OSError, KeyError, RuntimeError, ImportError, TypeError, AttributeError)
"""What mlx-vlm raises for a folder or an architecture that it cannot take."""


def load_vision_model(entry: ModelEntry, options: LoadOptions, report: Report) -> LoadedModel:
    """Load the model folder `entry.path`. Raises `ModelLoadFailed` with the reason."""
    path = Path(entry.path)
    report("reading the weights", 0.05)
    try:
        config = read_json(path / "config.json")
        refuse_own_code(config)
        model = load_model(path, lazy=True)
        model, dtype = with_dtype(model, options.dtype)
        evaluate(model.language_model, report)
        mx.eval(model.parameters())
        processor = load_processor(path, add_detokenizer=False, **NO_OWN_CODE)
        image_processor = load_image_processor(path, **NO_OWN_CODE)
        if image_processor is not None:
            processor.image_processor = image_processor
        tokenizer = _load_tokenizer(path, config, processor)
    except _LIBRARY_ERRORS as error:
        raise ModelLoadFailed(f"mlx-vlm cannot load {entry.name}: {type(error).__name__}: {error}") from error
    language = LanguagePart(model.language_model)
    sight = Sight(model, processor, language, cache_bytes=options.image_cache_bytes)
    if sight.image_token_id is None:
        raise ModelLoadFailed(f"{entry.name} names no token for images in its config.json")
    model_type = str(config.get("model_type", ""))
    text_config = {**config, **(config.get("text_config") or {})}
    own = [getattr(processor, name, None) for name in ("image_token", "video_token")]
    seeing = SeeingTokenizer(tokenizer, *(str(one or token) for one, token in zip(own, sight.tokens, strict=False)))
    return LoadedModel(
        model=language,
        tokenizer=cast(TokenizerWrapper, seeing),
        config=config,
        style=ModelStyle.of(cast(TokenizerWrapper, seeing), model_type, options),
        eos_token_ids=frozenset(tokenizer.eos_token_ids) | stop_token_ids(tokenizer, model_type),
        sampling_defaults=read_json(path / "generation_config.json"),
        max_context=min(served_context(config, options.max_context), exact_context(text_config) or sys.maxsize),
        vocabulary_size=int(text_config.get("vocab_size") or len(tokenizer)),
        dtype=dtype,
        weights_bytes=_num_bytes(model),
        sight=sight,
    )


def _load_tokenizer(path: Path, config: dict[str, Any], processor: Any) -> TokenizerWrapper:
    """The tokenizer as text models have it, with the template of the processor where it has none of its own."""
    ends = config.get("eos_token_id") or (config.get("text_config") or {}).get("eos_token_id")
    own = read_json(path / "generation_config.json").get("eos_token_id")
    tokenizer = load_tokenizer(path, eos_token_ids=own or ends)
    if not tokenizer.has_chat_template:
        template = getattr(processor, "chat_template", None) or _template_file(path)
        if template:
            tokenizer.chat_template = template
            tokenizer.has_chat_template = True
    return tokenizer


def _template_file(path: Path) -> str | None:
    try:
        written = json.loads((path / "chat_template.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    found = written.get("chat_template") if isinstance(written, dict) else None
    return found if isinstance(found, str) else None


def _num_bytes(model: nn.Module) -> int:
    weights: list[tuple[str, mx.array]] = tree_flatten(model.parameters())  # type: ignore[assignment]
    return sum(array.nbytes for _, array in weights)
