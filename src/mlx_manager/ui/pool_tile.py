"""One model of the pool as a tile: how it stands, what it holds and does, and what can be done with it."""

from __future__ import annotations

from nicegui import ui

from mlx_manager.ipc import EngineStats, ServingReport
from mlx_manager.pool import ModelState, ModelStatus
from mlx_manager.ui.batch_view import BatchView
from mlx_manager.ui.console import Console
from mlx_manager.ui.elements import ask, badge, box, button, complaining, facts, note, set_words, tell, text
from mlx_manager.ui.model_profile import profile_dialog
from mlx_manager.ui.pulse import Rate
from mlx_manager.ui.recording import record
from mlx_manager.ui.words import render_count, render_duration, render_rate, render_size

BLOCK_TOKENS = 32
STATE_TONES = {
    ModelState.READY: "good",
    ModelState.LOADING: "accent",
    ModelState.DRAINING: "warn",
    ModelState.FAILED: "bad",
    ModelState.COLD: "",
}
_FACTS = (
    "Memory",
    "Weights",
    "Held by MLX",
    "Processor",
    "Tokens/s",
    "Prompt tokens/s",
    "In the batch",
    "Queue",
    "Requests",
    "Last use",
    "In memory for",
    "Prefix cache had",
    "Guessed ahead",
    "Computed as",
)
_PRIORITIES = {"high": "High priority", "normal": "Normal priority", "low": "Low priority"}


class PoolTile:
    """Made inside the element that is to hold it; `update` shows how its model stands."""

    def __init__(self, console: Console, status: ModelStatus) -> None:
        self._console = console
        self._name = status.entry.name
        self._status = status
        self._place = box("panel", "article")
        self._place.props["aria-label"] = self._name
        with self._place:
            self._head(status)
            self._progress()
            with box() as self._facts_place:
                self._facts = facts([(label, "") for label in _FACTS])
            with box("stack") as self._kv:
                self._kv_bar = ui.html("", sanitize=False)
                self._kv_words = text("", "soft small num", "p")
            self._batch = BatchView()
            self._actions()

    def delete(self) -> None:
        """Take the tile off the page."""
        self._place.delete()

    def update(self, status: ModelStatus, rate: Rate | None) -> None:
        """Show how the model stands."""
        self._status = status
        set_words(self._state, status.state.value)
        self._state.classes(replace=f"badge {STATE_TONES[status.state]}")
        is_loading = status.state is ModelState.LOADING
        self._loading.set_visibility(is_loading)
        self._bar.set_value(round(status.fraction, 3))
        set_words(self._stage, f"{status.stage or 'starting'} · {status.fraction:.0%}")
        self._show_error(status)
        self._facts(_values(status, rate or Rate()))
        self._kv.set_visibility(status.stats is not None and status.stats.num_blocks_total > 0)
        if status.stats is not None:
            self._show_blocks(status.stats, status.report)
        self._batch.update(status.rows)
        is_failed = status.state is ModelState.FAILED
        self._facts_place.set_visibility(not is_failed)
        self._again.set_visibility(is_failed)
        self._dismiss.set_visibility(is_failed)
        self._unload.set_visibility(not is_failed)
        self._restart.set_visibility(status.state is ModelState.READY)
        self._show_pin(status.overrides.pinned)
        set_words(self._description, status.overrides.description or "")
        self._description.set_visibility(bool(status.overrides.description))

    def _head(self, status: ModelStatus) -> None:
        entry = status.entry
        with box("row-line"):
            text(entry.name, "grow", "h3")
            self._state = badge("")
        with box("row-line"):
            badge(entry.kind.value)
            badge(entry.architecture)
            badge(entry.quantization)
            if entry.num_parameters:
                badge(f"{render_count(entry.num_parameters)} parameters")
            if entry.name == self._console.models.default_model:
                badge("default", "accent", "Requests that name no model go here.")
            self._pinned = badge("pinned", "accent", "It is never evicted.")
        self._description = text("", "soft wrap-anywhere", "p")

    def _progress(self) -> None:
        with box("stack") as self._loading:
            self._bar = ui.linear_progress(0, show_value=False, size="8px").props('rounded aria-label="Loading"')
            self._stage = text("", "soft small", "p")
        self._error_place = box()
        self._error_shown: str | None = None

    def _actions(self) -> None:
        with box("row-line"):
            self._again = button("Try again", self._load, icon="refresh", look="main")
            self._dismiss = button("Dismiss", self._put_away, icon="close")
            self._unload = button("Unload", self._ask_unload, icon="eject")
            self._restart = button("Restart", self._ask_restart, icon="restart_alt")
            self._pin = button("Pin", self._toggle_pin, icon="push_pin")
            button("Profile", lambda: profile_dialog(self._console, self._name), icon="tune")
            priority = ui.select(_PRIORITIES, value=self._status.overrides.priority or "normal", on_change=self._rank)
            priority.props("outlined dense options-dense").classes("end")
            priority.props["aria-label"] = f"Priority of requests to {self._name}"

    def _show_error(self, status: ModelStatus) -> None:
        message = status.error.message if status.error is not None else None
        if message != self._error_shown:
            self._error_shown = message
            self._error_place.clear()
            if message is not None:
                with self._error_place:
                    note(message, "bad")

    def _show_blocks(self, stats: EngineStats, report: ServingReport | None) -> None:
        total = max(stats.num_blocks_total, 1)
        used, cached = stats.num_blocks_used / total, stats.num_blocks_cached / total
        said = f"{stats.num_blocks_used} used, {stats.num_blocks_cached} cached, {stats.num_blocks_free} free"
        self._kv_bar.set_content(
            f'<div class="bar thin" role="img" aria-label="KV blocks: {said}">'
            f'<i class="s1" style="width:{used:.2%}"></i><i class="s2" style="width:{cached:.2%}"></i></div>'
        )
        per_block = (report.kv_bytes_per_token if report else 0) * BLOCK_TOKENS
        sizes = [
            ("KV in use", stats.num_blocks_used * per_block),
            ("prefix cache", stats.num_blocks_cached * per_block),
            ("free", stats.num_blocks_free * per_block),
            ("allowed", report.kv_budget_bytes if report else 0),
        ]
        set_words(self._kv_words, " · ".join(f"{title} {render_size(size)}" for title, size in sizes))

    def _show_pin(self, is_pinned: bool) -> None:
        self._pinned.set_visibility(is_pinned)
        self._pin.set_text("Unpin" if is_pinned else "Pin")

    def _load(self) -> None:
        with complaining():
            self._console.need_pool().begin_load(self._name)
            record(self._console, "model.load", self._name)
            self._refresh()

    async def _put_away(self) -> None:
        with complaining():
            await self._console.need_pool().unload(self._name)
            record(self._console, "model.unload", self._name)
            self._console.pulse.look(is_fresh=True)

    def _ask_unload(self) -> None:
        async def unload() -> None:
            await self._console.need_pool().unload(self._name)
            record(self._console, "model.unload", self._name)
            self._refresh()

        ask(
            f"Unload {self._name}?",
            f"{self._in_flight()}Its memory goes back to the system, its prefix cache with it.",
            "Unload",
            unload,
        )

    def _ask_restart(self) -> None:
        async def restart() -> None:
            pool = self._console.need_pool()
            status = await pool.unload(self._name)
            record(self._console, "model.restart", self._name)
            if status.state is ModelState.DRAINING:
                tell("It goes once its requests are answered. Load it again then.")
            else:
                pool.begin_load(self._name)
            self._refresh()

        ask(
            f"Restart {self._name}?",
            f"{self._in_flight()}It is unloaded and loaded again, with the settings that hold now.",
            "Restart",
            restart,
        )

    def _in_flight(self) -> str:
        num = self._status.num_in_flight
        return f"{num} running request{'' if num == 1 else 's'} may end first. " if num else ""

    def _toggle_pin(self) -> None:
        with complaining():
            values = {"pinned": not self._status.overrides.pinned}
            self._console.need_pool().change(self._name, values)
            record(self._console, "model.change", self._name, values)
            self._refresh()

    def _rank(self, event: object) -> None:
        with complaining():
            value = getattr(event, "value", None)
            self._console.need_pool().change(self._name, {"priority": value})
            record(self._console, "model.change", self._name, {"priority": value})
            tell(f"Requests to {self._name} that name no priority are {value} now.")

    def _refresh(self) -> None:
        beat = self._console.pulse.look(is_fresh=True)
        for status in beat.models:
            if status.entry.name == self._name and status.state is not ModelState.COLD:
                self.update(status, beat.rates.get(self._name))


def _values(status: ModelStatus, rate: Rate) -> list[str]:
    stats, report = status.stats, status.report
    return [
        f"{render_size(status.measured_bytes)} of {render_size(status.planned_bytes)}",
        render_size(report.weights_bytes if report else status.entry.size_bytes),
        render_size(stats.active_memory_bytes) if stats else "not yet",
        f"{rate.cores:.1f} cores",
        render_rate(rate.generated),
        render_rate(rate.prompt),
        str(stats.num_running if stats else 0),
        str((stats.num_waiting if stats else 0) + status.num_waiting),
        str(status.num_uses),
        _last_use(status),
        "not yet" if status.loaded_for_s is None else render_duration(status.loaded_for_s),
        f"{stats.num_cached_tokens / stats.num_prompt_tokens:.0%}"
        if stats and stats.num_prompt_tokens
        else "nothing yet",
        _guesses(stats),
        _render_path(report) if report else "not yet",
    ]


def _last_use(status: ModelStatus) -> str:
    if status.num_in_flight:
        return "now"
    return "not yet" if status.idle_s is None or not status.num_uses else f"{render_duration(status.idle_s)} ago"


def _guesses(stats: EngineStats | None) -> str:
    """How many tokens that were guessed ahead came true, and whether none are guessed now."""
    if stats is None or not (stats.num_drafted_tokens or stats.drafting_off):
        return "none"
    came_true = f"{stats.num_accepted_drafts} of {stats.num_drafted_tokens} came true"
    return f"{came_true}; off now ({stats.drafting_off})" if stats.drafting_off else came_true


def _render_path(report: ServingReport) -> str:
    kept = f", {report.kv_cache_bits}-bit keys and values" if report.kv_cache_bits else ""
    return f"{report.path}, {report.dtype}{kept}"
