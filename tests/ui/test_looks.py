"""Every page, on a phone and on a desk, light and dark: it fits, and axe finds nothing."""

from __future__ import annotations

import os

from mlx_manager.ui.paths import PLACES
from tests.ui.browser import LOOKS, WINDOWS
from tests.ui.conftest import OpenPage

JUDGED = LOOKS if os.environ.get("PICTURES") else (("phone", "light"), ("desk", "dark"))
"""axe takes half a second: in the suite it looks at both widths and both themes, each once."""


def test_every_page_fits_and_keeps_nobody_out(open_page: OpenPage) -> None:
    watched = open_page()
    found: list[tuple[str, int, object]] = []
    for place in PLACES:
        watched.page.emulate_media(color_scheme="light")
        # what a button's colour passes through would be judged too
        watched.visit(place.path).wait_for_timeout(200)
        for window, theme in LOOKS:
            # the same page in another window and theme: both are followed while it is open
            watched.look(window, theme)
            width = WINDOWS[window]["width"]
            watched.shoot(f"{place.title.lower()}-{width}-{theme}")
            problems = watched.violations() if (window, theme) in JUDGED else []
            found += [(place.title, width, problem) for problem in problems]
            if watched.overflow_px() > 0:
                found.append((place.title, width, "wider than the window"))
    assert found == []


def test_it_is_as_wide_as_a_large_screen_lets_it(open_page: OpenPage) -> None:
    watched = open_page(width=2560)
    watched.visit("/")
    box = watched.page.locator("[data-page]").bounding_box()
    assert box is not None
    assert 1200 < box["width"] <= 1700


def test_the_theme_is_remembered(open_page: OpenPage) -> None:
    page = open_page().visit("/")
    toggle = page.get_by_role("button", name="Theme: auto")
    toggle.click()
    page.get_by_role("button", name="Theme: light").click()
    page.wait_for_selector("body.body--dark")
    page.reload()
    page.wait_for_selector("body.body--dark")


def test_the_pages_are_reached_by_keyboard(open_page: OpenPage) -> None:
    page = open_page().visit("/")
    page.keyboard.press("Tab")
    assert page.evaluate("() => document.activeElement.textContent") == "Skip to the page"
    page.get_by_role("link", name="Pool").focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/pool")
    assert page.get_by_role("heading", name="Pool", level=1).is_visible()
    assert page.get_by_role("link", name="Pool").get_attribute("aria-current") == "page"
