"""A model that is in memory already, put on the path that the worker chooses for it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_flatten
from mlx_lm.tokenizer_utils import TokenizerWrapper
from msgspec.structs import replace

from mlx_manager.catalog import LoadOptions, ModelEntry
from mlx_manager.engine.arena import LayerShape
from mlx_manager.engine.config import EngineConfig, Lookahead
from mlx_manager.engine.drafts import Drafter
from mlx_manager.engine.engine import Engine
from mlx_manager.engine.runner import PagedRunner
from mlx_manager.engine.windows import Window, WindowSlots
from mlx_manager.models.families.adapters import adapt
from mlx_manager.models.loading import LoadedModel
from mlx_manager.models.style import ModelStyle
from mlx_manager.worker import load
from mlx_manager.worker.serving_path import ServingPath, choose_path

_OPTIONS = LoadOptions(dtype="float32")


class EngineMaker(Protocol):
    """Makes engines that have nothing in common but the runner."""

    def __call__(
        self,
        *,
        num_blocks: int = 64,
        max_step_tokens: int = 512,
        lookahead: Lookahead = Lookahead.NONE,
        min_shared_blocks: int | None = None,
        new_drafter: Callable[[list[int], int], Drafter] | None = None,
        disk: Path | None = None,
    ) -> Engine:
        """A new engine with these bounds. Rows read `min_shared_blocks` or more common blocks together.

        With `disk`, a folder, its prefix cache goes on there, as the worker opens it.
        """
        ...


@dataclass(frozen=True)
class Served:
    """The worker's choice for a model."""

    path: str
    reason: str
    new_engine: EngineMaker
    whole: ServingPath
    """All of it."""


def serve(model: nn.Module, config: dict[str, Any], vocabulary_size: int, options: LoadOptions = _OPTIONS) -> Served:
    """Choose the path for `model` with the worker's own code: probe its caches, compare, else fall back."""
    adapt(model, str(config["model_type"]))
    weights: list[tuple[str, mx.array]] = tree_flatten(model.parameters())  # type: ignore[assignment]
    loaded = LoadedModel(
        model=model,
        # Text is no business of the engine's.
        tokenizer=cast(TokenizerWrapper, None),
        style=cast(ModelStyle, None),
        config=config,
        eos_token_ids=frozenset(),
        sampling_defaults={},
        max_context=1024,
        vocabulary_size=vocabulary_size,
        dtype="float32",
        weights_bytes=sum(array.nbytes for _, array in weights),
    )
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(config))
        entry = ModelEntry(
            name=str(config["model_type"]),
            path=folder,
            created_unix_s=0,
            size_bytes=loaded.weights_bytes,
            architecture=str(config["model_type"]),
            quantization="float32",
            max_context=loaded.max_context,
        )
        path = choose_path(loaded, options, entry, PagedRunner)

    def new_engine(
        *,
        num_blocks: int = 64,
        max_step_tokens: int = 512,
        lookahead: Lookahead = Lookahead.NONE,
        min_shared_blocks: int | None = None,
        new_drafter: Callable[[list[int], int], Drafter] | None = None,
        disk: Path | None = None,
    ) -> Engine:
        slots = None
        if isinstance(path.runner, PagedRunner):
            layers = path.runner.attention.arena.layers
            slots = None if disk is not None else fewest_slots(layers, max_step_tokens)
            path.runner.lay_out(layers, max(num_blocks, 64), None if slots is None else slots.num_slots)
            path.runner.attention.min_shared_blocks = min_shared_blocks
        engine_config = EngineConfig(
            num_blocks=num_blocks,
            max_step_tokens=max_step_tokens,
            lookahead=lookahead,
            has_prefix_cache=path.name == "paged",
            num_checkpoints=path.num_checkpoints,
            window=path.window,
            slots=slots,
            max_draft_tokens=0 if new_drafter is None or path.name != "paged" else 4,
        )
        disk_cache = None
        if disk is not None:
            (disk / "config.json").write_text(json.dumps(config))
            options = LoadOptions(disk_cache_bytes=64 * 1024**2, state_folder=str(disk))
            disk_cache = load.open_disk_cache(path, options, replace(entry, path=str(disk)), loaded.dtype)
        return Engine(path.runner, engine_config, new_drafter=new_drafter or Drafter, disk_cache=disk_cache)

    return Served(path.name, path.reason, new_engine, path)


def fewest_slots(layers: list[LayerShape], max_step_tokens: int) -> WindowSlots | None:
    """As few slots as the engine takes, so that they are soon given to others; None unless only some have windows."""
    kept = [layer.window for layer in layers if layer.bytes_per_token]
    windows = [window for window in kept if window is not None]
    if not windows or len(windows) == len(kept):
        return None
    return WindowSlots(Window(max(windows), max_step_tokens).max_held_blocks, max(windows))
