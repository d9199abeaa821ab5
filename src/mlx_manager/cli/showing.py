"""What `show` prints: a model's characteristics, and in one line whether it fits."""

from __future__ import annotations

from collections.abc import Iterator

from mlx_manager.catalog import ModelEntry, Settings, render_size
from mlx_manager.cli.disk import hub_desk
from mlx_manager.cli.models import print_json, print_table, render_count
from mlx_manager.hub.search import ModelCard


def show_model(settings: Settings, name: str, revision: str | None, *, as_json: bool) -> None:
    """Print it. Raises `MlxManagerError`, such as for a model that is neither here nor on the hub."""
    shown = hub_desk(settings).show_now(name, revision, asks_hub=False)
    if as_json:
        print_json(shown)
        return
    rows = [("name", name)]
    rows += _of_entry(shown.entry) if shown.entry else ()
    rows += _of_card(shown.card) if shown.card else ()
    if shown.entry is not None and shown.is_on_disk:
        rows.append(("folder", shown.entry.path))
    print_table(("", ""), rows)
    print()
    if shown.fit is not None:
        print(f"{shown.fit.verdict.capitalize()}: {shown.fit.reason}")
    if shown.problem is not None:
        print(f"warning: {shown.problem}")
    if shown.entry is not None and not shown.is_on_disk:
        print(f"Download it: mlx-manager pull {name}")


def _of_entry(entry: ModelEntry) -> Iterator[tuple[str, str]]:
    knows = [word for word, holds in (("tools", entry.has_tools), ("thinking", entry.has_thinking)) if holds]
    yield "kind", entry.kind.value
    if entry.family:
        yield "family", entry.family
    yield "architecture", entry.architecture
    yield "parameters", render_count(entry.num_parameters)
    yield "quantization", entry.quantization
    yield "size", render_size(entry.size_bytes)
    yield "context", f"{entry.max_context:,} tokens" if entry.max_context else "?"
    yield "knows", ", ".join(knows) or "neither tools nor thinking, by its template"


def _of_card(card: ModelCard) -> Iterator[tuple[str, str]]:
    num_files = sum(file.is_wanted for file in card.files)
    yield "license", card.license or "?"
    yield "made from", ", ".join(card.base_models) or "?"
    yield "download", f"{render_size(card.download_bytes)} in {num_files} files"
    yield "gated", "yes: accept its terms on its page" if card.hit.is_gated else "no"
    yield "page", card.page
