"""Loads the model a worker was told to, chooses the path it is served by, and builds its engine."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import msgspec

from mlx_manager.catalog import LoadOptions, ModelEntry, ModelKind
from mlx_manager.engine.attach import wrap_attention
from mlx_manager.engine.attention import DecodeAttention
from mlx_manager.engine.blocks import BLOCK_SIZE
from mlx_manager.engine.caches import UnknownCache
from mlx_manager.engine.disk_cache import DeviceReader, DiskCache, cache_name
from mlx_manager.engine.draft_model import DraftModel
from mlx_manager.engine.engine import Engine, EngineConfig, Lookahead
from mlx_manager.engine.plan import MIN_SHARED_BLOCKS
from mlx_manager.engine.probe import probe_caches
from mlx_manager.engine.runner import PagedRunner, Runner, no_arguments
from mlx_manager.engine.sequential import SequentialRunner, bytes_per_token
from mlx_manager.engine.timing import NUM_TIMED_BLOCKS, is_sharing_faster, time_candidates
from mlx_manager.engine.verify import NUM_CANARY_BLOCKS, check_paged
from mlx_manager.engine.windows import longest_window
from mlx_manager.errors import ModelLoadFailed
from mlx_manager.ipc import ServingReport
from mlx_manager.models.loading import LoadedModel, Report, is_cpu_backend, load_text_model
from mlx_manager.models.sight_check import check_sight
from mlx_manager.worker.drafting import LoadedDraft, find_fault, load_draft
from mlx_manager.worker.embedding import load_embedding
from mlx_manager.worker.leading import load_split_model
from mlx_manager.worker.ranks import Ranks
from mlx_manager.worker.served import ServedModel
from mlx_manager.worker.serving import Serving
from mlx_manager.worker.verdicts import StoredVerdict, VerdictStore, verdict_key

_log = logging.getLogger("mlx_manager.worker")
_MAX_CHECKPOINT_SHARE = 0.25
"""Part of the KV budget that copies of recurrent states may take, beside the arena."""
_NUM_CHECK_BLOCKS = max(NUM_CANARY_BLOCKS, NUM_TIMED_BLOCKS)


@dataclass(frozen=True)
class _Path:
    """How the model is going to be served."""

    runner: Runner
    num_blocks: int
    bytes_per_token: int
    name: str
    reason: str
    attention: str
    num_checkpoints: int | None = None
    """Copies of recurrent states to keep; None where the model has no recurrent layers."""
    window: int | None = None
    """The longest window where every attention layer has one; None where one has none."""
    takes_turns: bool = False
    """One request at a time, its prompt in one piece: the library keeps something of it that is in nobody's cache."""


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
            max_draft_tokens=options.max_draft_tokens if path.name == "paged" else 0,
            drafting_fault=fault,
        ),
        draft_model=guesser,
        disk_cache=open_disk_cache(path, options, entry, loaded.dtype),
    )
    serving = Serving(loaded, engine, options)
    if loaded.style.warning:
        _log.warning("%s: %s", entry.name, loaded.style.warning)
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
        warning=loaded.style.warning,
        draft_model="" if guesser is None or draft is None else draft.entry.name,
    )


def _open_draft(
    draft: LoadedDraft, options: LoadOptions, path: _Path, paged_runner: type[PagedRunner]
) -> DraftModel | None:
    """The draft model over an arena of as many blocks as the target's; None where that has none."""
    if path.name != "paged":
        return None
    budget_bytes = path.num_blocks * BLOCK_SIZE * draft.caches.bytes_per_token
    its_options = msgspec.structs.replace(options, kv_budget_bytes=budget_bytes, shared_prefix_decode="off")
    its_path = choose_path(draft.loaded, its_options, draft.entry, paged_runner)
    return draft.over(its_path.runner, its_path.reason)


def _find_drafting_fault(loaded: LoadedModel, options: LoadOptions, path: _Path) -> str:
    """Why nothing is guessed ahead although it was asked for; "" where it is, or was not."""
    if not options.max_draft_tokens:
        return ""
    return find_fault(loaded, options) or ("" if path.name == "paged" else f"it is not paged: {path.reason}")


def open_disk_cache(path: _Path, options: LoadOptions, entry: ModelEntry, dtype: str) -> DiskCache | None:
    """Where the prefix cache goes on on disk; None where it does not, or nothing can be written."""
    runner = path.runner
    if not (options.disk_cache_bytes and options.state_folder and isinstance(runner, PagedRunner)):
        # The library's own caches are not cut into blocks, so there is nothing that could be found again.
        return None
    layers = runner.attention.arena.layers
    has_blocks = any(layer.bytes_per_token for layer in layers)
    reader = DeviceReader(runner.read_blocks if has_blocks else None, runner.read_state)
    name = cache_name(verdict_key(Path(entry.path), dtype), layers)
    try:
        return DiskCache(Path(options.state_folder) / "prefix-cache", name, options.disk_cache_bytes, reader)
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


def choose_path(
    loaded: LoadedModel,
    options: LoadOptions,
    entry: ModelEntry,
    paged_runner: type[PagedRunner],
    draft_bytes_per_token: int = 0,
) -> _Path:
    """The kept verdict's path; without one, the path that the check finds, and keep that.

    The KV budget is for the blocks of a draft model too, which keeps `draft_bytes_per_token`.
    """
    if options.hostfile is not None:
        return _sequential(loaded, options, entry.name, "it is split over several ranks, which replay each call")
    store = VerdictStore(Path(options.state_folder) / "verdicts") if options.state_folder else None
    key = verdict_key(Path(entry.path), loaded.dtype)
    verdict = store.get(key) if store else None
    if verdict is not None and not verdict.is_paged:
        return _sequential(loaded, options, entry.name, verdict.reason)
    wrap_attention(loaded.model)
    try:
        caches = probe_caches(loaded.model)
    except UnknownCache as error:
        return _sequential(loaded, options, entry.name, f"a layer keeps a {error}, which is not paged")
    except (ValueError, TypeError, AttributeError, IndexError) as error:
        # The model's own code wants more of its cache than to hand in keys and values.
        return _sequential(loaded, options, entry.name, f"its attention is not plain: {error}")
    num_blocks = _num_free_blocks(loaded, options)
    if caches.bytes_per_token:
        num_bytes = caches.bytes_per_token + draft_bytes_per_token
        num_blocks = _num_blocks(options, num_bytes, entry.name, at_least=_NUM_CHECK_BLOCKS)
    attention = DecodeAttention(verdict.attention) if verdict else DecodeAttention.GATHER_MM
    # What keeps nothing per token has an arena of no bytes, however many blocks it counts.
    arguments = no_arguments if loaded.sight is None else loaded.sight.arguments
    runner = paged_runner(loaded.model, caches, max(num_blocks, _NUM_CHECK_BLOCKS), attention, arguments)
    if verdict is None:
        verdict = _check(loaded, runner, entry.name)
        if store:
            store.put(key, verdict)
    if not verdict.is_paged:
        return _sequential(loaded, options, entry.name, verdict.reason)
    is_sharing = {"on": runner.attention.can_share, "off": False}.get(
        options.shared_prefix_decode, verdict.shares_prefixes
    )
    runner.attention.min_shared_blocks = MIN_SHARED_BLOCKS if is_sharing else None
    return _Path(
        runner=runner,
        num_blocks=num_blocks,
        bytes_per_token=caches.bytes_per_token + draft_bytes_per_token,
        num_checkpoints=_num_checkpoints(options, caches.state_bytes),
        window=longest_window(caches.layout.windows),
        name="paged",
        reason=verdict.reason,
        attention=verdict.attention,
    )


def _check(loaded: LoadedModel, runner: PagedRunner, name: str) -> StoredVerdict:
    """Time the candidate attentions, then compare the fastest with the library's cache."""
    timings, shares_prefixes = "", False
    if any(layer.num_kv_heads for layer in runner.attention.arena.layers):
        config = loaded.config.get("text_config", loaded.config)
        num_heads = int(config.get("num_attention_heads", 1))
        times_s = time_candidates(runner.attention, num_heads)
        runner.attention.decode_attention = min(times_s, key=lambda candidate: times_s[candidate])
        shares_prefixes = is_sharing_faster(runner.attention, num_heads)
        each = ", ".join(f"{candidate} {seconds * 1e6:.0f} µs" for candidate, seconds in times_s.items())
        timings = f" (decode attention per layer: {each})"
    verdict = check_paged(loaded.model, runner, loaded.vocabulary_size)
    if verdict.is_equal and loaded.sight is not None:
        verdict = check_sight(loaded, runner)
    return StoredVerdict(
        model=name,
        is_paged=verdict.is_equal,
        attention=runner.attention.decode_attention.value,
        shares_prefixes=shares_prefixes,
        reason=f"{verdict.reason}{timings}",
    )


def _sequential(loaded: LoadedModel, options: LoadOptions, name: str, reason: str) -> _Path:
    num_bytes = bytes_per_token(loaded.model)
    mx.clear_cache()
    if loaded.sight is not None:
        loaded.sight.leave_to_library()
    return _Path(
        runner=SequentialRunner(loaded.model, None if loaded.sight is None else loaded.sight.begin),
        takes_turns=loaded.sight is not None,
        num_blocks=_num_blocks(options, num_bytes, name) if num_bytes else _num_free_blocks(loaded, options),
        bytes_per_token=num_bytes,
        name="sequential",
        reason=reason,
        attention="the library's own",
    )


def _num_blocks(options: LoadOptions, num_bytes_per_token: int, name: str, *, at_least: int = 1) -> int:
    """Blocks that the KV budget holds. Raises `ModelLoadFailed` for fewer than `at_least`."""
    block_bytes = BLOCK_SIZE * num_bytes_per_token
    num_blocks = options.kv_budget_bytes // block_bytes
    if num_blocks < at_least:
        raise ModelLoadFailed(
            f"the KV budget of {options.kv_budget_bytes} bytes holds {num_blocks * BLOCK_SIZE} tokens of {name}, "
            f"and it takes room for {at_least * BLOCK_SIZE}; raise kv_budget to at least {at_least * block_bytes}"
        )
    return num_blocks


def _num_free_blocks(loaded: LoadedModel, options: LoadOptions) -> int:
    """Blocks of a model that keeps nothing per token: they cost nothing, so the batch and the context bound them."""
    return -(-loaded.max_context // BLOCK_SIZE) * options.max_batch_size


def _num_checkpoints(options: LoadOptions, state_bytes: int) -> int | None:
    """How many copies of recurrent states fit into their part of the KV budget."""
    return int(options.kv_budget_bytes * _MAX_CHECKPOINT_SHARE) // state_bytes if state_bytes else None
