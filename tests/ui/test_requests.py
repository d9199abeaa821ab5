"""Requests: seen as they come, found, opened and exported."""

from __future__ import annotations

import csv

from playwright.sync_api import expect

from mlx_manager.ir import PrefixReason, RequestRecord
from mlx_manager.ui.request_detail import why_no_more
from tests.e2e.server_process import ServerProcess
from tests.ui.conftest import ADMIN, EVIL, OpenPage


def test_a_request_is_seen_found_and_exported(open_page: OpenPage, console_server: ServerProcess) -> None:
    watched = open_page()
    page = watched.visit("/requests")
    with console_server.http() as http:
        for model in (f"={EVIL}", "=no-such-model"):
            body = {"model": model, "messages": [{"role": "user", "content": "Hi"}]}
            assert http.post("/v1/chat/completions", json=body).status_code == 404
    page.get_by_label("Search the requests").fill("no-such-model 404")
    expect(page.get_by_text("No request matches.")).to_be_visible()
    page.get_by_label("Search the requests").fill("NO-such MODEL_not_found")
    rows = page.get_by_role("row")
    row = rows.filter(has_text="=no-such-model")
    expect(row).to_have_count(1)
    expect(row.get_by_text("404")).to_be_visible()
    expect(rows).to_have_count(2)
    with page.expect_download() as saved:
        page.get_by_role("button", name="CSV").click()
    with saved.value.path().open(encoding="utf-8") as table:
        assert [one["model"] for one in csv.DictReader(table)] == ["'=no-such-model"]
    row.get_by_role("button").click()
    dialog = page.get_by_role("dialog", name="One request")
    expect(dialog.get_by_text("404 model_not_found")).to_be_visible()
    dialog.get_by_role("button", name="Close").click()

    page.get_by_label("Search the requests").fill("javascript:window.evil")
    expect(rows.filter(has_text=EVIL)).to_have_count(1)
    rows.filter(has_text=EVIL).get_by_role("button").click()
    expect(dialog.get_by_text(f"={EVIL}").first).to_be_visible()
    assert page.evaluate("() => window.evil") is None
    dialog.get_by_role("button", name="Close").click()

    page.get_by_role("button", name="Filters").click()
    page.get_by_label("Outcome").click()
    page.get_by_role("option", name="answered").click()
    expect(page.get_by_text("No request matches.")).to_be_visible()
    assert watched.violations() == []


def test_the_trace_of_an_answer_is_drawn(open_page: OpenPage, console_server: ServerProcess) -> None:
    model = console_server.model
    for _ in range(2):
        prompt = "Why is the sky blue, and why is it red in the evening? Say it in a few words, please. " * 3
        console_server.sdk.chat.completions.create(
            model=model, messages=[{"role": "user", "content": prompt}], max_tokens=4, temperature=0, user=ADMIN
        )
    watched = open_page(width=390, theme="dark")
    page = watched.visit("/requests")
    page.get_by_role("button", name="Filters").click()
    page.get_by_label("Model", exact=True).fill(model)
    page.get_by_label("When").click()
    page.get_by_role("option", name="between").click()
    page.get_by_label("Until").fill("2020-01-01T10:00")
    expect(page.get_by_text("No request matches.")).to_be_visible()
    page.get_by_label("Until").fill("")
    row = page.get_by_role("row").filter(has_text=model).first
    expect(row).to_be_visible()
    row.get_by_role("cell", name=model).first.click()
    dialog = page.get_by_role("dialog", name="One request")
    for name in ("queue", "prefix lookup", "prefill", "decode", "parse"):
        expect(dialog.get_by_role("listitem").filter(has_text=name).first).to_be_visible()
    expect(dialog.get_by_text("All of it was there but the last token")).to_be_visible()
    assert watched.judge_dialog("request") == []
    assert watched.overflow_px() <= 0


def test_a_beginning_that_only_the_template_shares_is_told_from_none() -> None:
    def why(num_agreed: int) -> str:
        reason = PrefixReason.UNSEEN
        return why_no_more(
            RequestRecord(
                request_id="r", status=200, prefix_reason=reason, num_agreed_tokens=num_agreed, num_cached_tokens=0
            )
        )

    assert why(0).startswith("No earlier prompt")
    assert why(24).startswith("Only what the chat template writes first is shared")
