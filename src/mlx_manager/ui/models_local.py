"""The models on this machine: searched, filtered, opened, deleted."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

from nicegui import ui

from mlx_manager.catalog import ModelEntry
from mlx_manager.pool import ModelState, ModelStatus, refuse_loaded
from mlx_manager.ui.console import Console
from mlx_manager.ui.elements import ask, badge, box, button, complaining, empty_state, set_words, tell, text
from mlx_manager.ui.model_dialog import ModelDialog
from mlx_manager.ui.pool_tile import STATE_TONES
from mlx_manager.ui.words import render_count, render_size

_PAGE_SIZE = 25
_ANY = ""


@dataclass
class _Filter:
    """What is to be shown. Empty fields leave everything."""

    words: str = ""
    kind: str = _ANY
    architecture: str = _ANY
    quantization: str = _ANY
    has_tools: bool = False
    has_thinking: bool = False
    page: int = 0

    def passes(self, entry: ModelEntry) -> bool:
        """Whether the model is one of those."""
        return (
            all(word in entry.name.lower() for word in self.words.lower().split())
            and self.kind in (_ANY, entry.kind.value)
            and self.architecture in (_ANY, entry.architecture)
            and self.quantization in (_ANY, entry.quantization)
            and (entry.has_tools or not self.has_tools)
            and (entry.has_thinking or not self.has_thinking)
        )


class LocalView:
    """Rows are kept while they change, so that what is open or focused stays so."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._filter = _Filter()
        self._rows: dict[str, _Row] = {}
        self._selects: dict[str, ui.select] = {}
        with box("sticky-bar"):
            search = ui.input(
                placeholder="Search the models on this machine", on_change=lambda e: self._set("words", e.value)
            )
            search.props('outlined dense clearable debounce=100 aria-label="Search the models on this machine"')
            with search.add_slot("prepend"):
                ui.icon("search")
            with box("row-line"):
                for field, title in (
                    ("kind", "Kind"),
                    ("architecture", "Architecture"),
                    ("quantization", "Quantization"),
                ):
                    self._selects[field] = self._select(field, title)
                ui.checkbox("Tools", on_change=lambda e: self._set("has_tools", e.value)).props("dense")
                ui.checkbox("Thinking", on_change=lambda e: self._set("has_thinking", e.value)).props("dense")
                self._count = text("", "soft small end num")
        self._place = box("list")
        self._nothing = empty_state(
            "inventory_2", "Nothing here", "No model matches. Loosen the filters, or look for one on Hugging Face."
        )
        with box("row-line"):
            self._previous = button("Previous", lambda: self._turn(-1), icon="chevron_left")
            self._next = button("Next", lambda: self._turn(1), icon="chevron_right")

    def update(self) -> None:
        """Show what is on the disk now."""
        statuses = self._console.pulse.look().models
        self._fill_selects(statuses)
        matching = [status for status in statuses if self._filter.passes(status.entry)]
        num_pages = max(-(-len(matching) // _PAGE_SIZE), 1)
        self._filter.page = min(self._filter.page, num_pages - 1)
        begin = self._filter.page * _PAGE_SIZE
        shown = matching[begin : begin + _PAGE_SIZE]
        names = [status.entry.name for status in shown]
        if list(self._rows) != names:
            self._arrange(shown)
        for status in shown:
            self._rows[status.entry.name].update(status)
        page = f", page {self._filter.page + 1} of {num_pages}" if num_pages > 1 else ""
        set_words(self._count, f"{len(matching)} of {len(statuses)}{page}")
        self._nothing.set_visibility(not shown)
        self._previous.set_visibility(begin > 0)
        self._next.set_visibility(begin + _PAGE_SIZE < len(matching))

    def _arrange(self, shown: Sequence[ModelStatus]) -> None:
        """Keep the rows that stay, in the order of `shown`."""
        names = [status.entry.name for status in shown]
        for name in [name for name in self._rows if name not in names]:
            self._rows.pop(name).place.delete()
        arranged: dict[str, _Row] = {}
        for index, status in enumerate(shown):
            row = self._rows.get(status.entry.name)
            if row is None:
                with self._place:
                    row = _Row(self._console, status, self.update)
                row.place.move(target_index=index)
            arranged[status.entry.name] = row
        self._rows = arranged

    def _set(self, field: str, value: object) -> None:
        setattr(self._filter, field, value if value is not None else _ANY)
        self._filter.page = 0
        self.update()

    def _turn(self, step: int) -> None:
        self._filter.page += step
        self.update()

    def _select(self, field: str, title: str) -> ui.select:
        made = ui.select({_ANY: "any"}, value=_ANY, label=title, on_change=lambda e: self._set(field, e.value))
        return made.props("outlined dense options-dense").style("min-width: 128px")

    def _fill_selects(self, statuses: Sequence[ModelStatus]) -> None:
        for field, select in self._selects.items():
            found = sorted({str(getattr(status.entry, field)) for status in statuses})
            options = {_ANY: "any", **{value: value for value in found}}
            if select.options != options and not select.is_showing_popup:
                select.set_options(options, value=select.value if select.value in options else _ANY)


class _Row:
    def __init__(self, console: Console, status: ModelStatus, on_change: object) -> None:
        self._console = console
        self._entry = status.entry
        self._on_change = on_change
        self.place = box("row-item", "article")
        self.place.props["aria-label"] = status.entry.name
        with self.place:
            with box("stack grow").style("flex-basis: 300px; gap: 6px"):
                with box("row-line"):
                    text(status.entry.name, "", "h3")
                    self._state = badge("")
                entry_badges(status.entry)
            with box("row-line end"):
                self._load = button("Load", self._load_it, icon="play_arrow")
                button("Details", self._open, icon="info")
                delete = button("", self._ask_delete, icon="delete", look="bare")
                delete.props["aria-label"] = f"Delete {status.entry.name}"

    def update(self, status: ModelStatus) -> None:
        """Show where the model stands."""
        is_cold = status.state is ModelState.COLD
        set_words(self._state, status.state.value)
        self._state.classes(replace=f"badge {STATE_TONES[status.state]} {'hidden' if is_cold else ''}")
        self._load.set_visibility(status.state in (ModelState.COLD, ModelState.FAILED))

    def _load_it(self) -> None:
        with complaining():
            self._console.need_pool().begin_load(self._entry.name)
            self.update(
                next(s for s in self._console.pulse.look(is_fresh=True).models if s.entry.name == self._entry.name)
            )
            tell(f"{self._entry.name} is being loaded: the pool shows how far it is.")

    async def _open(self) -> None:
        await ModelDialog(self._console, self._entry.name).open()

    def _ask_delete(self) -> None:
        async def delete() -> None:
            refuse_loaded(self._console.models, self._entry.name, "deleted")
            removed = await self._console.need_hub().delete(self._entry.name)
            self._console.pulse.look(is_fresh=True)
            tell(f"{self._entry.name} is deleted: {render_size(removed.size_bytes)} are free again.", "positive")

        ask(
            f"Delete {self._entry.name}?",
            f"Its folder is removed from the disk, about {render_size(self._entry.size_bytes)}. It can be downloaded "
            "again where it came from the hub.",
            "Delete it",
            delete,
        )


def entry_badges(entry: ModelEntry) -> None:
    """What is known of a model from its files. One element for all of them: a list of models has many."""
    badges = [
        (entry.kind.value, "accent", ""),
        (entry.architecture, "", ""),
        (entry.quantization, "", ""),
        (render_size(entry.size_bytes), "", ""),
    ]
    if entry.num_parameters:
        badges.append((f"{render_count(entry.num_parameters)} parameters", "", ""))
    if entry.max_context:
        badges.append((f"{entry.max_context:,} context", "", ""))
    if entry.has_tools:
        badges.append(("tools", "good", "Its chat template shows tools to the model."))
    if entry.has_thinking:
        badges.append(("thinking", "good", "It can think before it answers."))
    content = "".join(
        f'<span class="badge {tone}" title="{html.escape(hint)}">{html.escape(words)}</span>'
        for words, tone, hint in badges
    )
    ui.html(content, sanitize=False).classes("row-line")
