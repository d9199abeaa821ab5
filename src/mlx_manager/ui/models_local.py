"""The models on this machine: searched, filtered, opened, deleted."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from nicegui import ui
from nicegui.events import GenericEventArguments

from mlx_manager.catalog import ModelEntry
from mlx_manager.pool import ModelState, ModelStatus, refuse_loaded
from mlx_manager.ui.console import Console
from mlx_manager.ui.elements import ask, box, button, complaining, empty_state, set_words, tell, text
from mlx_manager.ui.model_dialog import ModelDialog
from mlx_manager.ui.pool_tile import STATE_TONES
from mlx_manager.ui.recording import record
from mlx_manager.ui.words import render_count, render_size

_PAGE_SIZE = 25
_ANY = ""
_SIZES: dict[object, str] = {_ANY: "any", **{gib: f"up to {gib} GiB" for gib in (1, 4, 8, 16, 32, 64)}}
_CONTEXTS: dict[object, str] = {_ANY: "any", **{num * 1024: f"from {num}k" for num in (4, 8, 32, 128, 256)}}


@dataclass
class _Filter:
    """What is to be shown. Empty fields leave everything."""

    words: str = ""
    kind: str = _ANY
    architecture: str = _ANY
    quantization: str = _ANY
    most_gib: float | str = _ANY
    least_context: int | str = _ANY
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
            and (not self.most_gib or entry.size_bytes <= float(self.most_gib) * 1024**3)
            and (not self.least_context or (entry.max_context or 0) >= int(self.least_context))
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
                for field, title, bounds in (("most_gib", "Size", _SIZES), ("least_context", "Context", _CONTEXTS)):
                    self._select(field, title).set_options(dict(bounds), value=_ANY)
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
                    row = _Row(self._console, status)
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
    """One element for all of a row: a page of models has many."""

    def __init__(self, console: Console, status: ModelStatus) -> None:
        self._console = console
        self._entry = status.entry
        self.place = ui.html("", sanitize=False, tag="article").classes("row-item")
        self.place.props["aria-label"] = status.entry.name
        self.place.on("click", self._act, js_handler=_ACT)

    def update(self, status: ModelStatus) -> None:
        """Show where the model stands; nothing is sent when nothing changed."""
        self.place.set_content(_row(status))

    async def _act(self, event: GenericEventArguments) -> None:
        match event.args:
            case "load":
                self._load_it()
            case "open":
                await ModelDialog(self._console, self._entry.name).open()
            case "delete":
                self._ask_delete()

    def _load_it(self) -> None:
        with complaining():
            self._console.need_pool().begin_load(self._entry.name)
            record(self._console, "model.load", self._entry.name)
            self.update(
                next(s for s in self._console.pulse.look(is_fresh=True).models if s.entry.name == self._entry.name)
            )
            tell(f"{self._entry.name} is being loaded: the pool shows how far it is.")

    def _ask_delete(self) -> None:
        async def delete() -> None:
            refuse_loaded(self._console.models, self._entry.name, "deleted")
            removed = await self._console.need_hub().delete(self._entry.name)
            record(self._console, "model.delete", self._entry.name)
            self._console.pulse.look(is_fresh=True)
            tell(f"{self._entry.name} is deleted: {render_size(removed.size_bytes)} are free again.", "positive")

        ask(
            f"Delete {self._entry.name}?",
            f"Its folder is removed from the disk, about {render_size(self._entry.size_bytes)}. It can be downloaded "
            "again where it came from the hub.",
            "Delete it",
            delete,
        )


_ACT = "(event) => { const act = event.target.closest('[data-act]'); if (act) emit(act.dataset.act); }"


def _row(status: ModelStatus) -> str:
    name = html.escape(status.entry.name)
    state = "" if status.state is ModelState.COLD else _badge(status.state.value, STATE_TONES[status.state])
    delete = (
        f'<button class="plain-button bare" data-act="delete" aria-label="Delete {name}">{_icon("delete")}</button>'
    )
    load = _button("load", "play_arrow", "Load") if status.state in (ModelState.COLD, ModelState.FAILED) else ""
    told = html.escape(status.overrides.description or "")
    description = f'<p class="soft small wrap-anywhere">{told}</p>' if told else ""
    return (
        f'<div class="stack grow row-words"><div class="row-line"><h3>{name}</h3>{state}</div>{description}'
        f'<div class="row-line">{"".join(_badges(status.entry))}</div></div>'
        f'<div class="row-line end">{load}{_button("open", "info", "Details")}{delete}</div>'
    )


def _badges(entry: ModelEntry) -> Iterator[str]:
    """What is known of a model from its files."""
    yield _badge(entry.kind.value, "accent")
    for words in (entry.architecture, entry.quantization, render_size(entry.size_bytes)):
        yield _badge(words)
    if entry.num_parameters:
        yield _badge(f"{render_count(entry.num_parameters)} parameters")
    if entry.max_context:
        yield _badge(f"{entry.max_context:,} context")
    if entry.has_tools:
        yield _badge("tools", "good", "Its chat template shows tools to the model.")
    if entry.has_thinking:
        yield _badge("thinking", "good", "It can think before it answers.")


def _badge(words: str, tone: str = "", hint: str = "") -> str:
    return f'<span class="badge {tone}" title="{html.escape(hint)}">{html.escape(words)}</span>'


def _button(act: str, icon: str, label: str) -> str:
    return f'<button class="plain-button" data-act="{act}">{_icon(icon)}{label}</button>'


def _icon(name: str) -> str:
    return f'<i class="q-icon material-icons" aria-hidden="true">{name}</i>'
