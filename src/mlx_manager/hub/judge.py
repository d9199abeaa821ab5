"""A model's footprint held against a memory: does it fit, and with how much context for how many requests?"""

from __future__ import annotations

from typing import Literal

import msgspec
import psutil

from mlx_manager.catalog import LoadOptions, ModelEntry, render_size
from mlx_manager.hub.fit import MEMORY_SHARE, predict_footprint
from mlx_manager.hub.footprint import Footprint

_NUMS_REQUESTS = (1, 2, 4, 8, 16)


class Fit(msgspec.Struct, frozen=True, kw_only=True):
    """The answer, as it goes out in JSON."""

    model: str
    backend: Literal["cpu", "metal"]
    memory_bytes: int
    budget_bytes: int
    """The part of the memory that models may take."""
    footprint: Footprint
    verdict: Literal["fits", "fits with less context", "does not fit"]
    reason: str
    largest_context: dict[int, int]
    """Tokens that each request can have, by the number of requests at the same time; 0 where so many do not fit."""
    most_full_requests: int
    """Requests of full context at the same time."""
    kv_budget_bytes: int
    """The setting kv_budget that was asked about."""
    full_kv_budget_bytes: int
    """The kv_budget that would use all of the memory."""


def judge_fit(entry: ModelEntry, options: LoadOptions, memory_bytes: int | None, *, is_cpu_backend: bool) -> Fit:
    """Hold the model against `memory_bytes`; None is this machine's memory. Raises `InvalidRequest`."""
    footprint = predict_footprint(entry, options, is_cpu_backend=is_cpu_backend, available_bytes=memory_bytes)
    memory = memory_bytes or int(psutil.virtual_memory().total)
    budget = int(memory * MEMORY_SHARE)
    contexts = {num: footprint.largest_context(budget, num) for num in _NUMS_REQUESTS}
    verdict, reason = _judge(footprint, budget, contexts[1])
    room = budget - footprint.fixed_bytes - footprint.step_bytes(contexts[1]) - footprint.state_bytes_per_sequence
    return Fit(
        model=entry.name,
        backend="cpu" if is_cpu_backend else "metal",
        memory_bytes=memory,
        budget_bytes=budget,
        footprint=footprint,
        verdict=verdict,
        reason=reason,
        largest_context=contexts,
        most_full_requests=footprint.most_requests(budget, footprint.max_context),
        kv_budget_bytes=options.kv_budget_bytes,
        full_kv_budget_bytes=max(
            0, int((room - footprint.state_bytes_per_sequence) / (1 + footprint.checkpoint_share))
        ),
    )


def _judge(
    footprint: Footprint, budget: int, context: int
) -> tuple[Literal["fits", "fits with less context", "does not fit"], str]:
    full = footprint.total_bytes(1, footprint.max_context)
    needed = f"one request of full context needs {render_size(full)}"
    if full <= budget:
        return "fits", f"{needed} of {render_size(budget)}."
    if context:
        return "fits with less context", f"{needed}; {render_size(budget)} hold one of {context:,} tokens."
    if footprint.fixed_bytes > budget:
        what = f"weights and process alone take {render_size(footprint.fixed_bytes)}"
    else:
        what = f"with one step of one token it takes {render_size(footprint.total_bytes(1, 1))}"
    return "does not fit", f"{what}, and there are {render_size(budget)}."
