"""What `fit` answers: a footprint held against a memory, and the tables that say so."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec
import psutil

from mlx_manager.catalog import Settings, render_size
from mlx_manager.cli.models import print_table
from mlx_manager.hub import Footprint, Inventory, predict_footprint
from mlx_manager.hub.fit import MEMORY_SHARE
from mlx_manager.pool import runs_on_linux_cpu

_NUMS_REQUESTS = (1, 2, 4, 8, 16)


class Fit(msgspec.Struct, frozen=True, kw_only=True):
    """The answer, as `--json` prints it."""

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


def check_fit(settings: Settings, model: str, memory_bytes: int | None) -> Fit:
    """Hold the model against `memory_bytes`; None is this machine's memory.

    Raises `ModelNotFound` and `InvalidRequest`.
    """
    entry = Inventory(settings.home).find(model)
    is_cpu = runs_on_linux_cpu()
    footprint = predict_footprint(entry, settings.load, is_cpu_backend=is_cpu, available_bytes=memory_bytes)
    memory = memory_bytes or int(psutil.virtual_memory().total)
    budget = int(memory * MEMORY_SHARE)
    contexts = {num: footprint.largest_context(budget, num) for num in _NUMS_REQUESTS}
    verdict, reason = _judge(footprint, budget, contexts[1])
    room = budget - footprint.fixed_bytes - footprint.step_bytes(contexts[1]) - footprint.state_bytes_per_sequence
    return Fit(
        model=entry.name,
        backend="cpu" if is_cpu else "metal",
        memory_bytes=memory,
        budget_bytes=budget,
        footprint=footprint,
        verdict=verdict,
        reason=reason,
        largest_context=contexts,
        most_full_requests=footprint.most_requests(budget, footprint.max_context),
        kv_budget_bytes=settings.load.kv_budget_bytes,
        full_kv_budget_bytes=max(
            0, int((room - footprint.state_bytes_per_sequence) / (1 + footprint.checkpoint_share))
        ),
    )


def describe_fit(found: Fit) -> None:
    """Print the answer as tables."""
    footprint = found.footprint
    print(
        f"{found.model} in {footprint.dtype} on {found.backend}, with {render_size(found.memory_bytes)} of memory, "
        f"of which models may take {MEMORY_SHARE:.0%}: {render_size(found.budget_bytes)}"
    )
    print()
    print_table(("takes", "bytes", ""), list(_parts(footprint)))
    print()
    rows = [
        (str(num), f"{context:,}" if context else "does not fit", _share(context, footprint.max_context))
        for num, context in found.largest_context.items()
    ]
    print_table(("requests at once", "tokens each", ""), rows)
    print(f"Requests of full context ({footprint.max_context:,} tokens) at once: {found.most_full_requests}")
    print()
    print(f"{found.verdict.capitalize()}: {found.reason}")
    for sentence in (*_budget_advice(found), *footprint.notes):
        print(f"- {sentence}")


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


def _parts(footprint: Footprint) -> Iterator[tuple[str, str, str]]:
    guess = "" if footprint.is_known else ", a guess"
    yield "weights", render_size(footprint.weights_bytes), footprint.dtype
    yield "keys and values", render_size(footprint.kv_bytes_per_token), f"per token{guess}"
    yield "recurrent state", render_size(footprint.state_bytes_per_sequence), f"per sequence{guess}"
    yield (
        "activations",
        render_size(footprint.step_bytes(footprint.max_context)),
        f"one step at full context; {render_size(footprint.activation_bytes)} of it at any",
    )
    yield "process", render_size(footprint.process_bytes), "libraries and tokenizer, as measured on Linux"


def _share(context: int, most: int) -> str:
    return "" if not context else "the model's whole context" if context == most else f"{context / most:.0%} of it"


def _budget_advice(found: Fit) -> Iterator[str]:
    """What the setting kv_budget does to the table, which takes the whole memory for granted."""
    if found.verdict == "does not fit" or not found.footprint.kv_bytes_per_token:
        return
    asked, most = render_size(found.kv_budget_bytes), render_size(found.full_kv_budget_bytes)
    if found.kv_budget_bytes > found.full_kv_budget_bytes:
        yield f"With kv_budget at {asked} the prefix cache would outgrow this memory in time: set it to at most {most}."
    else:
        num_tokens = found.kv_budget_bytes // found.footprint.kv_bytes_per_token
        yield (
            f"The table uses all of the memory. kv_budget at {asked} keeps {num_tokens:,} tokens of all requests "
            f"together; the memory allows {most}."
        )
