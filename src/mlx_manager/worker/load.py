"""Loads the model a worker was told to, and builds the engine that serves it."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import msgspec

from mlx_manager.catalog import LoadOptions, ModelEntry, ModelKind
from mlx_manager.engine.blocks import BLOCK_SIZE
from mlx_manager.engine.config import EngineConfig, Lookahead
from mlx_manager.engine.disk_cache import DeviceReader, DiskCache, cache_name
from mlx_manager.engine.draft_model import DraftModel
from mlx_manager.engine.engine import Engine
from mlx_manager.engine.runner import PagedRunner
from mlx_manager.errors import ModelLoadFailed
from mlx_manager.ipc import ServingReport
from mlx_manager.models.loading import LoadedModel, Report, is_cpu_backend, load_text_model
from mlx_manager.worker.drafting import LoadedDraft, find_fault, load_draft
from mlx_manager.worker.embedding import load_embedding
from mlx_manager.worker.leading import load_split_model
from mlx_manager.worker.ranks import Ranks
from mlx_manager.worker.served import ServedModel
from mlx_manager.worker.serving import Serving
from mlx_manager.worker.serving_path import ServingPath, choose_path
from mlx_manager.worker.verdicts import verdict_key

_log = logging.getLogger("mlx_manager.worker")


def load(
    entry: ModelEntry, options: LoadOptions, report: Report, *, paged_runner: type[PagedRunner] = PagedRunner
) -> tuple[ServedModel, ServingReport]:
    """Load `entry` and build what serves it. Raises `ModelLoadFailed`.

    `paged_runner` is another class only where a test plants a fault that the check has to find.
    """
    if options.hostfile is not None and entry.kind is not ModelKind.TEXT:
        raise ModelLoadFailed(f"{entry.name} is no text model, and only those are split: take its hostfile away.")
    if entry.kind in (ModelKind.EMBEDDING, ModelKind.RERANKER):
        return load_embedding(entry, options, report)
    started_s = time.monotonic()
    loaded = _load_model(entry, options, report)
    report("checking the paged path", 0.85)
    draft = load_draft(loaded, options, report)
    path = choose_path(loaded, options, entry, paged_runner, 0 if draft is None else draft.caches.bytes_per_token)
    guesser = None if draft is None else _open_draft(draft, options, path, paged_runner)
    fault = _find_drafting_fault(loaded, options, path)
    if fault:
        _log.warning("%s: nothing is guessed ahead: %s", entry.name, fault)
    engine = Engine(
        path.runner,
        EngineConfig(
            num_blocks=path.num_blocks,
            max_batch_size=1 if path.takes_turns else options.max_batch_size,
            max_step_tokens=max(options.max_step_tokens, loaded.max_context if path.takes_turns else 0),
            priority_ageing_s=options.priority_ageing_s,
            has_prefix_cache=path.name == "paged",
            lookahead=Lookahead.OVERLAP if is_cpu_backend() else Lookahead.LAUNCH,
            num_checkpoints=path.num_checkpoints,
            window=path.window,
            slots=path.slots,
            max_draft_tokens=options.max_draft_tokens if path.name == "paged" else 0,
            drafting_fault=fault,
        ),
        draft_model=guesser,
        disk_cache=open_disk_cache(path, options, entry, loaded.dtype),
    )
    serving = Serving(loaded, engine, options)
    warning = " ".join(filter(None, (loaded.style.warning, path.warning)))
    if warning:
        _log.warning("%s: %s", entry.name, warning)
    return serving, ServingReport(
        path=path.name,
        reason=path.reason,
        attention=path.attention,
        dtype=loaded.dtype,
        max_context=serving.max_context,
        weights_bytes=loaded.weights_bytes + (0 if guesser is None or draft is None else draft.loaded.weights_bytes),
        kv_bytes_per_token=path.bytes_per_token,
        kv_budget_bytes=options.kv_budget_bytes,
        load_s=time.monotonic() - started_s,
        family=loaded.style.family.name,
        warning=warning,
        kv_cache_bits=path.kv_cache_bits,
        draft_model="" if guesser is None or draft is None else draft.entry.name,
    )


def _open_draft(
    draft: LoadedDraft, options: LoadOptions, path: ServingPath, paged_runner: type[PagedRunner]
) -> DraftModel | None:
    """The draft model over an arena of as many blocks as the target's; None where that has none."""
    if path.name != "paged":
        return None
    budget_bytes = path.num_blocks * BLOCK_SIZE * draft.caches.bytes_per_token
    its_options = msgspec.structs.replace(
        options, kv_budget_bytes=budget_bytes, kv_cache_bits=0, shared_prefix_decode="off"
    )
    its_path = choose_path(draft.loaded, its_options, draft.entry, paged_runner, may_split=False)
    return draft.over(its_path.runner, its_path.reason)


def _find_drafting_fault(loaded: LoadedModel, options: LoadOptions, path: ServingPath) -> str:
    """Why nothing is guessed ahead although it was asked for; "" where it is, or was not."""
    if not options.max_draft_tokens:
        return ""
    return find_fault(loaded, options) or ("" if path.name == "paged" else f"it is not paged: {path.reason}")


def open_disk_cache(path: ServingPath, options: LoadOptions, entry: ModelEntry, dtype: str) -> DiskCache | None:
    """Where the prefix cache goes on on disk; None where it does not, or nothing can be written."""
    runner = path.runner
    folder = options.disk_cache_folder if options.disk_cache_bytes else None
    if folder is None or not isinstance(runner, PagedRunner):
        # The library's own caches are not cut into blocks, so there is nothing that could be found again.
        return None
    layers = runner.attention.arena.layers
    has_blocks = any(layer.bytes_per_token for layer in layers)
    reader = DeviceReader(runner.read_blocks if has_blocks else None, runner.read_state)
    name = cache_name(verdict_key(Path(entry.path), dtype), layers)
    try:
        return DiskCache(folder, name, options.disk_cache_bytes, reader)
    except OSError as error:
        _log.warning("the prefix cache is not kept on disk: %s", error)
        return None


def _load_model(entry: ModelEntry, options: LoadOptions, report: Report) -> LoadedModel:
    """The model with what its kind takes."""
    if entry.kind is ModelKind.VISION:
        from mlx_manager.models.vision import load_vision_model  # noqa: PLC0415  # mlx-vlm: seconds of imports

        return load_vision_model(entry, options, report)
    if options.hostfile is not None:
        return load_split_model(entry, options, Ranks.read(Path(options.hostfile)), report)
    return load_text_model(entry, options, report)
