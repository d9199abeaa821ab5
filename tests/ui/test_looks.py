"""Every page, on a phone and on a desk, light and dark: it fits, axe finds nothing, and a picture of it is kept."""

from __future__ import annotations

import pytest

from mlx_manager.ui.paths import PLACES
from tests.ui.conftest import OpenPage, Theme


@pytest.mark.parametrize(("width", "judged"), [(390, "light"), (1440, "dark")])
def test_every_page_fits_and_keeps_nobody_out(open_page: OpenPage, width: int, judged: Theme) -> None:
    watched = open_page(width=width)
    found: dict[str, object] = {}
    for place in PLACES:
        watched.page.emulate_media(color_scheme="light")
        watched.visit(place.path)
        watched.page.wait_for_timeout(200)
        problems = [] if watched.overflow_px() <= 0 else ["wider than the window"]
        themes: tuple[Theme, ...] = ("light", "dark")
        for theme in themes:
            # the same page in the other theme: the system's is followed while it is open
            watched.page.emulate_media(color_scheme=theme)
            watched.page.wait_for_selector(f"body.body--{theme}")
            watched.shoot(f"{place.title.lower()}-{width}-{theme}")
            # axe takes a second for a page: it looks at both widths and both themes, each once
            problems += watched.violations() if theme == judged else []
        if problems:
            found[place.title] = problems
    assert found == {}


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
