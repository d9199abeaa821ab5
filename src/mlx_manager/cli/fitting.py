"""What `fit` answers, as tables. The arithmetic is the hub's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from mlx_manager.catalog import MODEL_SETTINGS, ModelOverrides, Settings, render_size
from mlx_manager.catalog.settings.table import ROWS
from mlx_manager.cli.disk import local_inventory
from mlx_manager.cli.models import print_table
from mlx_manager.hub import Footprint
from mlx_manager.hub.fit import MEMORY_SHARE
from mlx_manager.hub.judge import Fit, judge_fit
from mlx_manager.pool import runs_on_linux_cpu

_SHARED = frozenset(row.name for row in MODEL_SETTINGS) & frozenset(ROWS)
"""Settings that a model has of its own beside the server's."""


def check_fit(settings: Settings, model: str, memory_bytes: int | None, flags: Mapping[str, str]) -> Fit:
    """Hold the model against `memory_bytes`, together with its draft model; None is this machine's memory.

    It is served with its own settings in config.toml, before those of the server, but for what the `flags` given say.
    Raises `ModelNotFound` and `InvalidRequest`.
    """
    inventory = local_inventory(settings)
    entry = inventory.find(model)
    own = settings.models.get(entry.name, ModelOverrides())
    left = msgspec.structs.replace(own, **{ROWS[name].field: None for name in flags if name in _SHARED})
    draft = flags.get("draft_model") or own.draft_model
    draft_entry = None if draft is None else inventory.find(draft)
    options = msgspec.structs.replace(left.load_options(settings.load), draft_model=draft, draft_entry=draft_entry)
    return judge_fit(entry, options, memory_bytes, is_cpu_backend=runs_on_linux_cpu())


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
