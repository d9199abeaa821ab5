"""What `show` prints: a model's characteristics, and in one line whether it fits."""

from __future__ import annotations

import msgspec

from mlx_manager.catalog import ModelEntry, Settings, render_size
from mlx_manager.cli.disk import local_inventory
from mlx_manager.cli.models import print_table, render_count
from mlx_manager.errors import MlxManagerError, ModelNotFound
from mlx_manager.hub.access import default_access
from mlx_manager.hub.client import HubClient
from mlx_manager.hub.judge import Fit, judge_fit
from mlx_manager.hub.search import ModelCard, Preview
from mlx_manager.pool import runs_on_linux_cpu


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """The answer, as `--json` prints it."""

    entry: ModelEntry | None
    """None for a model on the hub that cannot be served."""
    card: ModelCard | None
    """None for a model on this machine."""
    fit: Fit | None
    problem: str | None = None
    """Why there is no entry, or no fit."""


def show_model(settings: Settings, name: str, revision: str | None, *, as_json: bool) -> None:
    """Print it. Raises `MlxManagerError`, such as for a model that is neither here nor on the hub."""
    shown = _look(settings, name, revision)
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(shown)).decode())
    else:
        _print(name, shown)


def _look(settings: Settings, name: str, revision: str | None) -> Shown:
    if revision is None:
        try:
            entry = local_inventory(settings).find(name)
        except ModelNotFound:
            # a name that is not here may be one on the hub; a path is not
            if name.count("/") != 1 or name.startswith((".", "/", "~")):
                raise
        else:
            return _judge(settings, entry, None)
    client = HubClient(default_access(settings.hf_token))
    try:
        return client.preview(name, lambda preview: _judge_preview(settings, preview), revision)
    except MlxManagerError as error:
        if error.status != 400:
            raise
        return Shown(entry=None, card=client.card(name, revision), fit=None, problem=error.message)


def _judge_preview(settings: Settings, preview: Preview) -> Shown:
    return _judge(settings, preview.entry, preview.card)


def _judge(settings: Settings, entry: ModelEntry, card: ModelCard | None) -> Shown:
    try:
        fit = judge_fit(entry, settings.load, None, is_cpu_backend=runs_on_linux_cpu())
    except MlxManagerError as error:
        return Shown(entry=entry, card=card, fit=None, problem=error.message)
    return Shown(entry=entry, card=card, fit=fit)


def _print(name: str, shown: Shown) -> None:
    rows: list[tuple[str, str]] = [("name", name)]
    entry, card = shown.entry, shown.card
    if entry is not None:
        context = f"{entry.max_context:,} tokens" if entry.max_context else "?"
        knows = [word for word, holds in (("tools", entry.has_tools), ("thinking", entry.has_thinking)) if holds]
        rows += [
            ("kind", entry.kind.value),
            ("family", entry.architecture),
            ("parameters", render_count(entry.num_parameters)),
            ("quantization", entry.quantization),
            ("size", render_size(entry.size_bytes)),
            ("context", context),
            ("knows", ", ".join(knows) or "neither tools nor thinking, by its template"),
        ]
    if card is not None:
        rows += [
            ("license", card.license or "?"),
            ("made from", ", ".join(card.base_models) or "?"),
            ("download", f"{render_size(card.download_bytes)} in {sum(file.is_wanted for file in card.files)} files"),
            ("gated", "yes: accept its terms on its page" if card.hit.is_gated else "no"),
            ("page", card.page),
        ]
    elif entry is not None:
        rows.append(("folder", entry.path))
    print_table(("", ""), rows)
    print()
    if shown.fit is not None:
        print(f"{shown.fit.verdict.capitalize()}: {shown.fit.reason} (mlx-manager fit says more once it is here)")
    if shown.problem is not None:
        print(f"warning: {shown.problem}")
    if card is not None and entry is not None:
        print(f"Download it: mlx-manager pull {name}")
