"""Loads the model a worker was told to, and builds its engine."""

from __future__ import annotations

import time

from mlx_manager.catalog import LoadOptions, ModelEntry
from mlx_manager.engine.attention import DecodeAttention
from mlx_manager.engine.engine import Engine, EngineConfig
from mlx_manager.engine.runner import PagedRunner, num_blocks_in, probe_layers
from mlx_manager.errors import ModelLoadFailed
from mlx_manager.ipc import ServingReport
from mlx_manager.models.loading import LoadedModel, Report, is_cpu_backend, load_text_model
from mlx_manager.worker.serving import Serving


def load(entry: ModelEntry, options: LoadOptions, report: Report) -> tuple[Serving, ServingReport]:
    """Load `entry` and build what serves it. Raises `ModelLoadFailed`."""
    started_s = time.monotonic()
    loaded = load_text_model(entry, options, report)
    report("warming up", 0.85)
    engine, layer_bytes, attention = _paged_engine(loaded, options, entry.name)
    serving = Serving(loaded, engine, options)
    return serving, ServingReport(
        path="paged",
        reason="every layer is plain attention",
        attention=attention,
        dtype=loaded.dtype,
        max_context=serving.max_context,
        weights_bytes=loaded.weights_bytes,
        kv_bytes_per_token=layer_bytes,
        kv_budget_bytes=options.kv_budget_bytes,
        load_s=time.monotonic() - started_s,
    )


def _paged_engine(loaded: LoadedModel, options: LoadOptions, name: str) -> tuple[Engine, int, str]:
    try:
        layers = probe_layers(loaded.model, len(loaded.layers))
    except (ValueError, TypeError, AttributeError) as error:
        raise ModelLoadFailed(
            f"{name} is not made of plain attention layers, which is all this version runs: {error}"
        ) from error
    num_blocks = num_blocks_in(options.kv_budget_bytes, layers)
    bytes_per_token = sum(layer.bytes_per_token for layer in layers)
    if num_blocks < 1:
        raise ModelLoadFailed(
            f"the KV budget of {options.kv_budget_bytes} bytes holds not even one block of {name}, "
            f"which takes {32 * bytes_per_token}; raise kv_budget"
        )
    runner = PagedRunner(loaded.model, layers, num_blocks, DecodeAttention.GATHER_MM)
    engine = Engine(
        runner,
        EngineConfig(
            num_blocks=num_blocks,
            max_batch_size=options.max_batch_size,
            max_step_tokens=options.max_step_tokens,
            priority_ageing_s=options.priority_ageing_s,
            is_pipelined=not is_cpu_backend(),
        ),
    )
    return engine, bytes_per_token, DecodeAttention.GATHER_MM.value
