"""A real Chromium, driven by Playwright, that notes everything a page complains about."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import axe_playwright_python
import pytest
from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
SHOTS = Path(__file__).parents[2] / "build" / "console"
"""Where `make pictures` has the pictures."""
Theme = Literal["light", "dark"]
WINDOWS: Mapping[str, ViewportSize] = {"phone": {"width": 390, "height": 844}, "desk": {"width": 1440, "height": 900}}
"""In CSS pixels."""
LOOKS: tuple[tuple[str, Theme], ...] = (("phone", "light"), ("phone", "dark"), ("desk", "light"), ("desk", "dark"))
"""Windows and themes; a page follows both while it is open."""
_DRAWER_FITS = """() => {
    const drawer = document.querySelector(".q-drawer--left");
    const isBehind = document.querySelector(".q-dialog") !== null;
    return isBehind || !drawer || window.innerWidth >= 1024 || drawer.getBoundingClientRect().right <= 0;
}"""
_CUT_OFF = """(dialog) => [...dialog.querySelectorAll(".q-field__label, .q-field__messages, .btn")]
    .filter((part) => part.scrollWidth > part.clientWidth + 1 || part.scrollHeight > part.clientHeight + 2)
    .map((part) => `cut off: ${part.textContent}`)"""
_AXE = Path(axe_playwright_python.__file__).parent / "axe.min.js"
_AXE_RUN = """(within) => axe.run(within, {
    runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"],
}).then((found) =>
    found.violations.flatMap((one) => one.nodes.map((node) =>
        `${one.id}: ${node.html.slice(0, 160)} ${(node.any[0] || {}).message}`)))"""


@dataclass
class Watched:
    """A page and what went wrong on it."""

    page: Page
    url: str
    """The server's."""
    theme: Theme = "light"
    complaints: list[str] = field(default_factory=list)
    """Console errors, failed requests and error statuses, scripts that threw."""

    def watch(self) -> None:
        """Begin to note."""
        page = self.page
        page.on("console", lambda said: self.complaints.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("requestfailed", lambda request: self.complaints.append(f"failed: {request.url}"))
        page.on("response", lambda answer: self._note_status(answer.status, answer.url))

    def _note_status(self, status: int, url: str) -> None:
        if status >= 400:
            self.complaints.append(f"{status}: {url}")

    def visit(self, path: str) -> Page:
        """Go to a page of the console and wait until it is alive."""
        # a page that is left closes its connection in the middle of whatever it was told
        self.page.goto(self.url + path)
        self.page.wait_for_selector("[data-page]")
        self.page.wait_for_function("() => window.socket && window.socket.connected")
        return self.page

    def shoot(self, name: str) -> None:
        """Keep a picture of the whole page, where pictures are asked for."""
        if not os.environ.get("PICTURES"):
            return
        SHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SHOTS / f"{name}.png", full_page=True)

    def look(self, window: str, theme: Theme) -> None:
        """Change the window's size and the system's theme."""
        self.page.set_viewport_size(WINDOWS[window])
        self.page.emulate_media(color_scheme=theme)
        self.page.wait_for_selector(f"body.body--{theme}")
        # the navigation goes
        self.page.wait_for_function(_DRAWER_FITS)

    def judge_dialog(self, name: str) -> list[str]:
        """What is wrong with the dialog that is open: axe's findings, and labels and hints that are cut off.

        Where pictures are asked for, it is kept and judged in every look.
        """
        # it fades in
        self.page.wait_for_timeout(150)
        found = [*self.violations(".q-dialog"), *self._cut_off()]
        if os.environ.get("PICTURES"):
            size = self.page.viewport_size
            for window, theme in LOOKS:
                self.look(window, theme)
                self.shoot(f"dialog-{name}-{WINDOWS[window]['width']}-{theme}")
                found += [*self.violations(".q-dialog"), *self._cut_off()]
            self.look("desk", self.theme)
            self.page.set_viewport_size(size or WINDOWS["desk"])
        return found

    def _cut_off(self) -> list[str]:
        found: list[str] = self.page.get_by_role("dialog").evaluate(_CUT_OFF)
        return found

    def violations(self, within: str = "html") -> list[str]:
        """What axe finds against WCAG, levels A and AA, `within` an element: a CSS selector."""
        if not self.page.evaluate("() => Boolean(window.axe)"):
            self.page.evaluate(_AXE.read_text(encoding="utf-8"))
        found: list[str] = self.page.evaluate(_AXE_RUN, within)
        return found

    def overflow_px(self) -> int:
        """How much wider than the window the page is."""
        wider: int = self.page.evaluate("() => document.documentElement.scrollWidth - window.innerWidth")
        return wider


def find_chromium() -> str:
    """The browser's path; skips the test where there is none."""
    found = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.skip("there is no Chromium: apt-get install chromium, or name one in CHROMIUM")
    return found


@contextmanager
def running_browser() -> Iterator[Browser]:
    """Chromium with a profile of its own, until the context ends."""
    path = find_chromium()
    with tempfile.TemporaryDirectory() as home, sync_playwright() as playwright:
        # crash reports and caches would go to the user's home
        environment: dict[str, str | float | bool] = {
            **os.environ,
            **dict.fromkeys(("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"), home),
        }
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS), env=environment)
        try:
            yield browser
        finally:
            browser.close()
