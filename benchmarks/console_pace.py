"""How quickly the console's pages answer when there is much to show: 5,000 requests in the audit, 500 models.

    python -m benchmarks.console_pace [--tries 5]

The real app in this process, none of whose models is loaded, and a real Chromium (`CHROMIUM` names another). Of each
step two figures, over some tries: from the input until what it asks for is shown, the pause after typing included, and
the longest interaction by the browser's own measure (Event Timing: delay, work, next paint).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx
from playwright.sync_api import Page, sync_playwright

from benchmarks.folders import import_starter
from mlx_manager.api.who import SESSION_COOKIE
from mlx_manager.app import build_server, create_app
from mlx_manager.catalog.settings import Settings, load_settings
from mlx_manager.ir import RequestRecord
from mlx_manager.storage.audit import AuditLog
from mlx_manager.storage.store import Store

NUM_REQUESTS, NUM_MODELS = 5_000, 500
_FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run")
_WATCH = """() => { window.slowest = 0; new PerformanceObserver((list) => { for (const entry of list.getEntries())
    if (entry.interactionId) window.slowest = Math.max(window.slowest, entry.duration); })
    .observe({ type: "event", durationThreshold: 16, buffered: true }); }"""


def make_models(home: Path) -> None:
    """Five hundred models, the starter under as many names: hard links take no room."""
    starter = import_starter(home)
    models = home / "home" / "models"
    for number in range(NUM_MODELS - 1):
        folder = models / f"model-{number:03d}-{'instruct' if number % 3 else 'base'}"
        shutil.copytree(starter, folder, copy_function=os.link)


@dataclass
class Step:
    """One thing that somebody does, tried some times."""

    name: str
    shown_ms: list[float] = field(default_factory=list)
    slowest_ms: list[float] = field(default_factory=list)

    def try_it(self, page: Page, act: Callable[[], object], shown: str) -> None:
        """`act`, then wait until the JavaScript expression `shown` holds."""
        page.evaluate("() => { window.slowest = 0; window.begun = performance.now(); }")
        act()
        page.wait_for_function(f"() => ({shown}) && (window.ended = performance.now())")
        self.shown_ms.append(page.evaluate("() => window.ended - window.begun"))
        page.wait_for_timeout(150)
        self.slowest_ms.append(page.evaluate("() => window.slowest"))

    def __str__(self) -> str:
        shown, slowest = self.shown_ms, self.slowest_ms
        return (
            f"{self.name:<28} {len(shown):>2} times: shown after {statistics.median(shown):4.0f} ms (at most "
            f"{max(shown):4.0f}); longest interaction {statistics.median(slowest):3.0f} ms (at most {max(slowest):.0f})"
        )


async def fill_audit(home: Path) -> None:
    """Five thousand requests within the last hour."""
    store = await Store.open(None, home)
    audit = AuditLog(store.database, max_rows=10**6, max_age_s=10**9)
    audit.open()
    for number in range(NUM_REQUESTS):
        audit.put(
            RequestRecord(
                request_id=f"req_{number:024x}",
                answer_id=f"chatcmpl-{number}",
                arrived_unix_s=time.time() - 3000 + number / 2,
                path="/v1/chat/completions",
                model=f"org/model-{number % NUM_MODELS:03d}",
                target="local",
                user="ada",
                client_address="127.0.0.1",
                status=200 if number % 50 else 503,
                error_code=None if number % 50 else "queue_full",
                duration_s=1.5,
                ttft_s=0.2,
                num_prompt_tokens=900,
                num_cached_tokens=600,
                num_completion_tokens=120,
            )
        )
    await audit.close()
    await store.close()


@contextmanager
def serving(settings: Settings) -> Iterator[str]:
    """The app on loopback until the context ends: its address."""

    server = build_server(create_app(settings), settings)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            while not server.started:
                time.sleep(0.02)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(20)


def visit(page: Page, url: str) -> None:
    """Open a page and begin to watch its interactions."""
    page.goto(url)
    page.wait_for_selector("[data-page]")
    page.wait_for_function("() => window.socket && window.socket.connected")
    page.evaluate(_WATCH)
    page.wait_for_timeout(500)


def requests_steps(page: Page, url: str, tries: int) -> list[Step]:
    """The audit: searched, gone through, opened."""
    search, older, details = Step("requests: search"), Step("requests: older"), Step("requests: details")
    visit(page, f"{url}/requests")
    rows = "[...document.querySelectorAll('tbody tr')]"
    box = page.get_by_label("Search the requests")
    for number in range(tries):
        model = f"model-{100 + number}"
        search.try_it(
            page,
            partial(box.press_sequentially, model),
            f"{rows}.every((row) => row.innerText.includes('{model}'))",
        )
        box.fill("")
        page.wait_for_function(f"() => {rows}.length === 100")
        first = page.locator("tbody tr [data-row]").first.get_attribute("data-row")
        older.try_it(
            page,
            page.get_by_role("button", name="Older").click,
            f"document.querySelector('tbody [data-row]').dataset.row !== '{first}'",
        )
        details.try_it(page, page.locator("tbody [data-row]").nth(3).click, "document.querySelector('.dialog')")
        page.get_by_role("button", name="Close").click()
        page.wait_for_selector(".dialog", state="detached")
    return [search, older, details]


def models_steps(page: Page, url: str, tries: int) -> list[Step]:
    """The models: shown fifty by fifty, searched, filtered."""
    more, search, tools = Step("models: next page"), Step("models: search among all"), Step("models: filter")
    rows = "document.querySelectorAll('[data-page] article')"
    box = page.get_by_label("Search the models on this machine")
    for number in range(tries):
        visit(page, f"{url}/models")
        for _ in range(tries):
            first = page.locator("[data-page] article").first.get_attribute("aria-label")
            more.try_it(
                page,
                page.get_by_role("button", name="Next").click,
                f"{rows}.length === 25 && {rows}[0].ariaLabel !== '{first}'",
            )
        search.try_it(page, partial(box.press_sequentially, f"model-12{number}"), f"{rows}.length === 1")
        tools.try_it(page, page.get_by_role("checkbox", name="Tools").click, f"{rows}.length === 0")
    return [more, search, tools]


def main() -> None:
    """Fill the audit, start the server and the browser, and print the figures."""
    parser = argparse.ArgumentParser(description="How quickly the console's pages answer.")
    parser.add_argument("--tries", type=int, default=5)
    tries = parser.parse_args().tries
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        make_models(Path(folder))
        home = Path(folder) / "home"
        settings = load_settings(
            {}, {"shutdown_timeout": 1, "home": str(home), "port": 0, "log_level": "error", "use_spare": False}
        )
        # in a thread of its own: this one has Playwright's event loop
        filling = threading.Thread(target=lambda: asyncio.run(fill_audit(home)))
        filling.start()
        filling.join()
        with serving(settings) as url:
            account = {"name": "ada", "password": "long enough to be one"}
            with httpx.Client(base_url=url) as http:
                http.post("/auth/register", json=account).raise_for_status()
                cookie = http.cookies[SESSION_COOKIE]
            browser = playwright.chromium.launch(executable_path=chromium, args=list(_FLAGS))
            context = browser.new_context(viewport={"width": 1440, "height": 900})
            context.add_cookies([{"name": SESSION_COOKIE, "value": cookie, "url": url}])
            page = context.new_page()
            for steps in (requests_steps, models_steps):
                for step in steps(page, url, tries):
                    print(step, flush=True)
            browser.close()


if __name__ == "__main__":
    main()
