"""What the pages are built of: the same badge, tile, dialog and message everywhere."""

from __future__ import annotations

import html
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from nicegui import ui

from mlx_manager.errors import MlxManagerError

Tone = Literal["", "good", "warn", "bad", "accent"]


def box(classes: str = "", tag: str = "div") -> ui.element:
    """A plain element to put others in."""
    return ui.element(tag).classes(classes)


def text(words: str, classes: str = "", tag: str = "span") -> ui.html:
    """Text that may be anything at all: it is never read as HTML. `set_words` changes it."""
    return ui.html(html.escape(words), sanitize=False, tag=tag).classes(classes)


def set_words(element: ui.html, words: str) -> None:
    """Change what `text` made; nothing is sent when nothing changed."""
    element.set_content(html.escape(words))


def badge(words: str, tone: Tone = "", tooltip: str = "") -> ui.html:
    """A short fact."""
    made = text(words, f"badge {tone}")
    if tooltip:
        made.tooltip(tooltip)
    return made


def button(
    label: str,
    on_click: Callable[..., object] | None = None,
    *,
    icon: str | None = None,
    look: Literal["", "main", "danger", "bare", "bare tiny", "tiny"] = "",
    name: str | None = None,
) -> ui.button:
    """A button. Without a label it takes the name that screen readers say, which is its tooltip too."""
    made = ui.button(label, on_click=on_click, icon=icon, color=None)
    made.props("flat no-caps").classes(f"btn {look}")
    if name is not None:
        made.props["aria-label"] = name
        if not label:
            made.tooltip(name)
    return made


def empty_state(icon: str, title: str, words: str) -> ui.element:
    """What a page says where there is nothing yet: what to do next. Put buttons into it."""
    place = box("empty")
    with place:
        ui.icon(icon)
        text(title, tag="h2")
        text(words, tag="p")
    return place


def note(words: str, tone: Literal["bad", "warn", "info"], classes: str = "") -> ui.element:
    """A sentence that stays: an error with its fix, a warning, a hint."""
    icons = {"bad": "error", "warn": "warning", "info": "info"}
    place = box(f"note {tone} {classes}").props(f'role="{"alert" if tone == "bad" else "note"}"')
    with place:
        ui.icon(icons[tone])
        text(words, "grow")
    return place


def figure(label: str, value: str, aside: str = "") -> Callable[[str, str], None]:
    """A large figure under its label. Returns what changes it."""
    with box("figure"):
        text(label, tag="dt")
        with box(tag="dd"):
            shown = text(value)
            beside = text(aside, "aside", "div")

    def change(value: str, aside: str = "") -> None:
        set_words(shown, value)
        set_words(beside, aside)

    return change


def facts(rows: list[tuple[str, str]]) -> Callable[[list[str]], None]:
    """Small facts under their labels. Returns what changes their values, in the same order."""
    with box("facts", "dl"):
        shown = []
        for label, value in rows:
            with box():
                text(label, tag="dt")
                shown.append(text(value, tag="dd"))

    def change(values: list[str]) -> None:
        for element, value in zip(shown, values, strict=True):
            set_words(element, value)

    return change


def tell(words: str, tone: Literal["positive", "negative", "info"] = "info") -> None:
    """Say something in passing, as text."""
    ui.notify(words, type=tone, position="bottom", multi_line=True, timeout=8000 if tone == "negative" else 4000)


@contextmanager
def complaining() -> Iterator[None]:
    """Errors of ours inside are told to whoever clicked; all others are NiceGUI's to log."""
    try:
        yield
    except MlxManagerError as error:
        tell(error.message, "negative")


@contextmanager
def dialog(title: str, *, is_wide: bool = False) -> Iterator[ui.dialog]:
    """A dialog of the page's own, opened when the context ends; it is gone from the page once it is closed."""
    with (
        ui.dialog().props("aria-modal=true") as made,
        box(f"dialog {'wide' if is_wide else ''}").props('role="document"'),
    ):
        made.props["aria-label"] = title
        text(title, tag="h2")
        yield made
    made.on("hide", made.delete)
    made.open()


def ask(
    title: str, words: str, verb: str, act: Callable[[], Awaitable[None]], *, look: Literal["main", "danger"] = "danger"
) -> None:
    """Have a destructive step confirmed before it is taken."""
    with dialog(title) as opened:
        text(words, "soft", "p")

        async def confirmed() -> None:
            opened.close()
            with complaining():
                await act()

        with box("dialog-foot"):
            button("Keep it as it is", opened.close)
            button(verb, confirmed, look=look)


def copy_button(words: str, name: str) -> ui.button:
    """Puts `words` on the clipboard, in the browser alone."""
    made = button("", icon="content_copy", look="bare tiny", name=name)
    made.on("click", js_handler=f"(event) => mlxManager.copy({json.dumps(words)}, event.currentTarget)")
    return made


def snippet(code: str, name: str) -> None:
    """Code to be copied."""
    with box("snippet"):
        ui.html(f"<pre tabindex='0'>{html.escape(code)}</pre>", sanitize=False)
        copy_button(code, f"Copy {name}").classes("copy")
