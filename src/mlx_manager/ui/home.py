"""Home: what runs, how fast, what it takes of the memory, how the last hour went, and how to call it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nicegui import ui
from starlette.requests import Request

from mlx_manager.pool import ModelState
from mlx_manager.ui.charts import bar_chart
from mlx_manager.ui.console import Console, console_of, viewer_of
from mlx_manager.ui.elements import badge, box, empty_state, figure, set_words, snippet, text
from mlx_manager.ui.frame import frame
from mlx_manager.ui.memory_bar import MemoryBar
from mlx_manager.ui.paths import HOME, MODELS, POOL, PROFILE
from mlx_manager.ui.pulse import Beat
from mlx_manager.ui.recent import Minute
from mlx_manager.ui.snippets import KEY_VARIABLE, client_snippets
from mlx_manager.ui.words import render_duration, render_rate


def home_page(request: Request) -> None:
    """Builds the page."""
    console = console_of(request)
    with frame(console, request, HOME):
        text("Home", tag="h1")
        updates = [_figures(console)]
        with box("grid-2"):
            with box("panel"):
                text("Memory", tag="h2")
                updates.append(MemoryBar().update)
            with box("panel"):
                text("In memory now", tag="h2")
                updates.append(_running(viewer_of(request).is_admin))
        with box("panel"):
            text("The last hour", tag="h2")
            update_charts = _charts(console)
        _call_it(console, request)

    def update() -> None:
        beat = console.pulse.look()
        for update_part in updates:
            update_part(beat)

    update()
    update_charts()
    ui.timer(1.0, update)
    ui.timer(5.0, update_charts)


def _figures(console: Console) -> Callable[[Beat], None]:
    with box("grid-figures", "dl"):
        speed = figure("Tokens per second", "0")
        running = figure("Requests running", "0")
        waiting = figure("Requests waiting", "0")
        loaded = figure("Models in memory", "0")

    def update(beat: Beat) -> None:
        books = [status.stats for status in beat.models if status.stats is not None]
        prompt_per_s = sum(rate.prompt for rate in beat.rates.values())
        speed(render_rate(beat.generated_per_s), f"and {render_rate(prompt_per_s)} prompt tokens")
        running(str(sum(stats.num_running for stats in books)), "in the batch")
        num_for_load = sum(status.num_waiting for status in beat.models)
        waiting(str(sum(stats.num_waiting for stats in books) + num_for_load), "in the queue")
        loaded(str(len(beat.in_memory)), f"of {len(beat.models)} on this machine")

    return update


def _running(is_admin: bool) -> Callable[[Beat], None]:
    """The models in memory, one line each."""
    place = box("list")
    shown: dict[str, tuple[ui.element, ui.html, ui.html]] = {}
    nothing: list[ui.element] = []

    def update(beat: Beat) -> None:
        names = [status.entry.name for status in beat.in_memory]
        for name in [name for name in shown if name not in names]:
            shown.pop(name)[0].delete()
        if not names and not nothing:
            with place:
                empty = empty_state("bedtime", "No model is in memory", "The first request to a model loads it.")
                with empty:
                    if is_admin:
                        ui.link("Load one in the pool", POOL.path)
                nothing.append(empty)
        while names and nothing:
            nothing.pop().delete()
        for status in beat.in_memory:
            name = status.entry.name
            if name not in shown:
                with place, box("row-line") as line:
                    text(name, "strong wrap-anywhere")
                    state = badge("")
                    said = text("", "soft small num end")
                shown[name] = (line, state, said)
            _, state, said = shown[name]
            set_words(state, status.state.value)
            state.classes(replace=f"badge {_TONES[status.state]}")
            if status.state is ModelState.LOADING:
                set_words(said, f"{status.stage} · {status.fraction:.0%}")
            else:
                rate = beat.rates.get(name)
                busy = f"{status.num_in_flight} running" if status.num_in_flight else _idle(status.idle_s)
                set_words(said, f"{render_rate(rate.generated) if rate else 0} tokens/s · {busy}")

    return update


_TONES = {
    ModelState.READY: "good",
    ModelState.LOADING: "accent",
    ModelState.DRAINING: "warn",
    ModelState.FAILED: "bad",
    ModelState.COLD: "",
}


def _idle(idle_s: float | None) -> str:
    return "not used yet" if idle_s is None else f"idle for {render_duration(idle_s)}"


def _charts(console: Console) -> Callable[[], None]:
    with box("grid-2"):
        requests = bar_chart("Requests per minute", "Failed ones in red.", lambda top: f"{top:.0f}")
        waits = bar_chart("Time to the first token", "The median of each minute.", lambda top: f"{top:.2f} s")

    def update() -> None:
        minutes = console.recent.minutes()
        num = sum(minute.num_requests for minute in minutes)
        num_failed = sum(minute.num_failed for minute in minutes)
        requests(
            [float(minute.num_requests) for minute in minutes],
            [float(minute.num_failed) for minute in minutes],
            f"{num} requests, {num_failed} failed",
        )
        waits([minute.ttft_s or 0.0 for minute in minutes], [], _describe_waits(minutes))

    return update


def _describe_waits(minutes: Sequence[Minute]) -> str:
    waits = [minute.ttft_s for minute in minutes if minute.ttft_s is not None]
    return f"{min(waits):.2f} to {max(waits):.2f} s" if waits else "no answers yet"


def _call_it(console: Console, request: Request) -> None:
    """Snippets for the clients, with this server's own address in them."""
    base = str(request.base_url).rstrip("/")
    beat = console.pulse.look()
    name = console.models.default_model or next((status.entry.name for status in beat.models), None)
    with box("panel"):
        text("Call it", tag="h2")
        if name is None:
            is_admin = viewer_of(request).is_admin
            words = "Download one to begin." if is_admin else "An admin can download one."
            with empty_state("inventory_2", "There is no model on this machine yet", words):
                if is_admin:
                    ui.link("Find a model", MODELS.path)
            return
        needs_key = not console.door.is_open
        if needs_key:
            with box("row-line small", "p"):
                text("Requests need an API key: make one in your")
                ui.link("profile", PROFILE.path)
                text(f"and put it into the variable {KEY_VARIABLE}.")
        snippets = client_snippets(base, name, console.find_api_paths(), needs_key=needs_key)
        with ui.tabs().props("align=left no-caps dense inline-label outside-arrows mobile-arrows") as tabs:
            for title in snippets:
                ui.tab(title)
        with ui.tab_panels(tabs, value=next(iter(snippets))).props("animated=false"):
            for title, code in snippets.items():
                with ui.tab_panel(title):
                    snippet(code, f"the snippet for {title}")
        text(f"The address for OpenAI clients is {base}/v1.", "small soft", "p")
