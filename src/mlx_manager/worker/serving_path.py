"""Chooses the path a loaded model is served by: paged, over a quantized arena or not, or the library's own cache."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import mlx.core as mx

from mlx_manager.catalog import LoadOptions, ModelEntry, split_kv_budget
from mlx_manager.engine.attach import wrap_attention
from mlx_manager.engine.attention import DecodeAttention
from mlx_manager.engine.blocks import BLOCK_SIZE, num_blocks_for
from mlx_manager.engine.caches import UnknownCache
from mlx_manager.engine.plan import MIN_SHARED_BLOCKS
from mlx_manager.engine.probe import ModelCaches, probe_caches
from mlx_manager.engine.runner import PagedRunner, Runner, no_arguments
from mlx_manager.engine.sequential import SequentialRunner, bytes_per_token
from mlx_manager.engine.timing import NUM_TIMED_BLOCKS, is_sharing_faster, time_candidates
from mlx_manager.engine.verdict import is_out_of_memory
from mlx_manager.engine.verify import NUM_CANARY_BLOCKS, check_paged, check_quantized, goes_on_alike
from mlx_manager.engine.windows import Window, WindowSlots, longest_window
from mlx_manager.errors import ModelLoadFailed
from mlx_manager.models.loading import LoadedModel
from mlx_manager.models.sight_check import check_sight
from mlx_manager.worker.verdicts import StoredVerdict, VerdictStore, verdict_key

_log = logging.getLogger("mlx_manager.worker")
_MAX_CHECKPOINT_SHARE = 0.25
"""Part of the KV budget that copies of recurrent states may take, beside the arena."""
_NOT_QUANTIZED = "Its keys and values are not quantized, although kv_cache_bits asks for it"
_NUM_CHECK_BLOCKS = max(NUM_CANARY_BLOCKS, NUM_TIMED_BLOCKS)


@dataclass(frozen=True)
class ServingPath:
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
    slots: WindowSlots | None = None
    """An arena of their own for the layers with windows, beside others without; None: all layers share one."""
    kv_cache_bits: int = 0
    """Of an entry of the arena; 0: it is kept as it is computed."""
    warning: str = ""
    """What was asked for and cannot be had, for the operator."""
    takes_turns: bool = False
    """One request at a time, its prompt in one piece: the library keeps something of it that is in nobody's cache."""


def choose_path(
    loaded: LoadedModel,
    options: LoadOptions,
    entry: ModelEntry,
    paged_runner: type[PagedRunner],
    draft_bytes_per_token: int = 0,
    *,
    may_split: bool = True,
) -> ServingPath:
    """The kept verdict's path; without one, the path that the check finds, and keep that.

    The KV budget is for the blocks of a draft model too, which keeps `draft_bytes_per_token`. Unless `may_split`, all
    layers share one arena.
    """
    if options.hostfile is not None:
        return _sequential(loaded, options, entry.name, "it is split over several ranks, which replay each call")
    verdicts = _Verdicts(loaded, options, entry)
    verdict = verdicts.kept()
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
    # What keeps nothing per token has an arena of no bytes, however many blocks it counts.
    arguments = no_arguments if loaded.sight is None else loaded.sight.arguments
    max_blocks = max(num_blocks, _NUM_CHECK_BLOCKS)
    runner = paged_runner(loaded.model, caches, max_blocks, DecodeAttention.GATHER_MM, arguments)
    verdict = verdict or verdicts.find(runner)
    runner.attention.decode_attention = DecodeAttention(verdict.attention)
    if not verdict.is_paged:
        return _sequential(loaded, options, entry.name, verdict.reason)
    path = ServingPath(
        runner=runner,
        num_blocks=num_blocks,
        bytes_per_token=caches.bytes_per_token + draft_bytes_per_token,
        num_checkpoints=_num_checkpoints(options, caches.state_bytes),
        window=longest_window(caches.layout.windows),
        name="paged",
        reason=verdict.reason,
        attention=verdict.attention,
    )
    if options.kv_cache_bits and caches.bytes_per_token:
        path, verdict = _quantized(path, runner, caches, verdicts, verdict)
    if may_split and not options.disk_cache_bytes:
        path = _split(path, runner, loaded.max_context, options)
    is_sharing = {"on": runner.attention.can_share, "off": False}.get(
        options.shared_prefix_decode, verdict.shares_prefixes
    )
    runner.attention.min_shared_blocks = MIN_SHARED_BLOCKS if is_sharing else None
    return path


class _Verdicts:
    """What was found out about one model, kept between loads: over a plain arena, and over quantized ones."""

    def __init__(self, loaded: LoadedModel, options: LoadOptions, entry: ModelEntry) -> None:
        self.loaded = loaded
        self.options = options
        self.entry = entry
        self._store = VerdictStore(Path(options.state_folder) / "verdicts") if options.state_folder else None
        self._key = verdict_key(Path(entry.path), loaded.dtype)

    def kept(self, bits: int = 0) -> StoredVerdict | None:
        """Of an earlier load; `bits` of a quantized arena, 0 of a plain one."""
        return self._store.get(self._key_of(bits)) if self._store else None

    def find(self, runner: PagedRunner, bits: int = 0) -> StoredVerdict:
        """What the check finds over the arena of `runner`, kept from now on if it is about the model.

        Raises `ModelLoadFailed` where the check has not enough memory.
        """
        try:
            verdict, is_final = _check(self.loaded, runner, self.entry.name)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise ModelLoadFailed(
                f"there was not enough memory to check how {self.entry.name} can be served: {error}. Unload another "
                "model, or lower kv_budget."
            ) from error
        if self._store and is_final:
            self._store.put(self._key_of(bits), verdict)
        return verdict

    def _key_of(self, bits: int) -> str:
        return f"{self._key}-{bits}" if bits else self._key


def _quantized(
    path: ServingPath, runner: PagedRunner, plain: ModelCaches, verdicts: _Verdicts, verdict: StoredVerdict
) -> tuple[ServingPath, StoredVerdict]:
    """`path` over a quantized arena with the verdict on that; both as they were, with a warning, where it cannot be."""
    bits = verdicts.options.kv_cache_bits
    try:
        layers = plain.quantized(bits)
    except ValueError as error:
        return replace(path, warning=f"{_NOT_QUANTIZED}: {error}."), verdict
    num_draft_bytes = path.bytes_per_token - plain.bytes_per_token
    num_bytes = sum(layer.bytes_per_token for layer in layers) + num_draft_bytes
    num_blocks = _num_blocks(verdicts.options, num_bytes, verdicts.entry.name, at_least=_NUM_CHECK_BLOCKS)
    runner.lay_out(layers, num_blocks)
    found = verdicts.kept(bits) or verdicts.find(runner, bits)
    runner.attention.decode_attention = DecodeAttention(found.attention)
    if not found.is_paged:
        runner.lay_out(plain.layers, path.num_blocks)
        runner.attention.decode_attention = DecodeAttention(verdict.attention)
        return replace(path, warning=f"{_NOT_QUANTIZED}: {found.reason}."), verdict
    quantized = replace(
        path,
        num_blocks=num_blocks,
        bytes_per_token=num_bytes,
        attention="gather_qmm" if found.attention == DecodeAttention.GATHER_MM else found.attention,
        kv_cache_bits=bits,
    )
    return quantized, found


def _split(path: ServingPath, runner: PagedRunner, max_context: int, options: LoadOptions) -> ServingPath:
    """`path` with an arena of their own for the layers with windows, where that holds more."""
    layers = runner.attention.arena.layers
    windows = [layer.window for layer in layers if layer.window is not None and layer.bytes_per_token]
    has_latents = any(layer.window is not None and layer.latent_dim is not None for layer in layers)
    if path.window is not None or not windows or has_latents:
        return path
    slot_bytes = BLOCK_SIZE * sum(layer.bytes_per_token for layer in layers if layer.window is not None)
    found = split_kv_budget(
        options.kv_budget_bytes,
        block_bytes=BLOCK_SIZE * path.bytes_per_token - slot_bytes,
        slot_bytes=slot_bytes,
        num_held=Window(max(windows), options.max_step_tokens).max_held_blocks,
        max_batch_size=options.max_batch_size,
        num_wanted=num_blocks_for(max_context),
    )
    if found is None:
        return path
    runner.lay_out(layers, found.num_blocks, found.num_slots)
    return replace(path, num_blocks=found.num_blocks, slots=WindowSlots(found.num_slots, max(windows)))


def _check(loaded: LoadedModel, runner: PagedRunner, name: str) -> tuple[StoredVerdict, bool]:
    """Time the candidate attentions, then compare the fastest with the library's cache, or a quantized arena's rows.

    Also whether what was found is final.
    """
    timings, shares_prefixes = "", False
    if any(layer.num_kv_heads for layer in runner.attention.arena.layers):
        config = loaded.config.get("text_config", loaded.config)
        num_heads = int(config.get("num_attention_heads", 1))
        times_s = time_candidates(runner.attention, num_heads)
        runner.attention.decode_attention = min(times_s, key=lambda candidate: times_s[candidate])
        shares_prefixes = is_sharing_faster(runner.attention, num_heads)
        each = ", ".join(f"{candidate} {seconds * 1e6:.0f} µs" for candidate, seconds in times_s.items())
        timings = f" (decode attention per layer: {each})"
    is_quantized = any(layer.bits for layer in runner.attention.arena.layers)
    if is_quantized:
        verdict = check_quantized(runner, loaded.vocabulary_size)
    else:
        verdict = check_paged(loaded.model, runner, loaded.vocabulary_size)
    if verdict.is_equal and loaded.sight is not None and not is_quantized:
        verdict = check_sight(loaded, runner)
    found = StoredVerdict(
        model=name,
        is_paged=verdict.is_equal,
        attention=runner.attention.decode_attention.value,
        shares_prefixes=shares_prefixes,
        reason=f"{verdict.reason}{timings}",
    )
    return found, verdict.is_final


def _sequential(loaded: LoadedModel, options: LoadOptions, name: str, reason: str) -> ServingPath:
    num_bytes = bytes_per_token(loaded.model)
    # of a split model every rank would have to keep the same
    is_kept = options.hostfile is None and loaded.sight is None and goes_on_alike(loaded.model, loaded.vocabulary_size)
    mx.clear_cache()
    if loaded.sight is not None:
        loaded.sight.leave_to_library()
    return ServingPath(
        runner=SequentialRunner(
            loaded.model,
            None if loaded.sight is None else loaded.sight.begin,
            kept_bytes=options.kv_budget_bytes if is_kept else 0,
        ),
        takes_turns=loaded.sight is not None,
        num_blocks=_num_blocks(options, num_bytes, name) if num_bytes else _num_free_blocks(loaded, options),
        bytes_per_token=num_bytes,
        name="sequential",
        reason=reason,
        attention="the library's own",
        warning=f"{_NOT_QUANTIZED}: it is served through the library's own cache." if options.kv_cache_bits else "",
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
