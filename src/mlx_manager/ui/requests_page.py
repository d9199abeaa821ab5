"""Requests: what was asked within the last hour, how it went and what it took; followed live, filtered, exported."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
from nicegui import ui
from starlette.requests import Request

from mlx_manager.ir import RequestRecord
from mlx_manager.ui.console import Console, console_of
from mlx_manager.ui.elements import badge, box, button, copy_button, dialog, empty_state, facts, set_words, text
from mlx_manager.ui.frame import frame
from mlx_manager.ui.paths import REQUESTS
from mlx_manager.ui.recent import Seen

_MOST_SHOWN = 100
_OUTCOMES = {"": "any outcome", "ok": "answered", "failed": "failed", "closed": "client gone"}
_CLIENT_CLOSED = 499
_SPREADSHEET_SIGNS = ("=", "+", "-", "@", "\t", "\r")


def requests_page(request: Request) -> None:
    """Builds the page."""
    console = console_of(request)
    with frame(console, request, REQUESTS):
        view = _RequestsView(console)
    view.update()
    ui.timer(1.0, view.update)


@dataclass
class _Filter:
    """What is to be shown. Empty fields leave everything."""

    words: str = ""
    outcome: str = ""

    def passes(self, record: RequestRecord) -> bool:
        """Whether the request is one of those."""
        said = (record.model, record.user, record.key, record.path, record.request_id, record.error_code, record.target)
        haystack = " ".join(part.lower() for part in said if part)
        return self.outcome in ("", _outcome(record)) and all(word in haystack for word in self.words.lower().split())


class _RequestsView:
    """Rows are drawn anew only when there is a new request."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._filter = _Filter()
        self._drawn: list[Seen] | None = None
        with box("page-head"):
            text("Requests", "grow", "h1")
            button("CSV", lambda: self._export("csv"), icon="download")
            button("JSONL", lambda: self._export("jsonl"), icon="download")
        with box("sticky-bar"), box("row-line"):
            words = ui.input(placeholder="Model, user, key, path, error or id").classes("grow")
            words.props('outlined dense clearable debounce=150 aria-label="Search the requests"')
            words.on_value_change(lambda event: self._set("words", event.value or ""))
            outcome = ui.select(_OUTCOMES, value="", label="Outcome").props("outlined dense options-dense")
            outcome.style("min-width: 140px").on_value_change(lambda event: self._set("outcome", event.value))
            self._follow = ui.switch("Follow", value=True).props("dense")
        self._sums = text("", "soft small num", "p")
        self._place = box("panel tight scroll-x").props('tabindex="0" role="region" aria-label="Requests"')
        self._nothing = empty_state("receipt_long", "Nothing to show", "No request of the last hour matches.")

    def update(self) -> None:
        """Show what is new, unless somebody holds the list still."""
        if self._drawn is not None and not self._follow.value:
            return
        matching = [seen for seen in self._console.recent.last(20_000) if self._filter.passes(seen.record)]
        if matching == self._drawn:
            return
        self._drawn = matching
        set_words(self._sums, _sum(matching))
        self._nothing.set_visibility(not matching)
        self._place.set_visibility(bool(matching))
        self._place.clear()
        with self._place, box("plain", "table"):
            with box(tag="thead"), box(tag="tr"):
                for title in ("When", "Model", "By", "Status", "Prompt", "Cached", "Written", "First", "Whole", ""):
                    text(title, "num" if title in ("Prompt", "Cached", "Written", "First", "Whole") else "", "th")
            with box(tag="tbody"):
                for seen in matching[:_MOST_SHOWN]:
                    _row(seen.record)

    def _set(self, field: str, value: str) -> None:
        setattr(self._filter, field, value)
        self._drawn = None
        self.update()

    def _export(self, kind: str) -> None:
        records = [seen.record for seen in self._drawn or ()]
        if kind == "jsonl":
            content = b"".join(msgspec.json.encode(record) + b"\n" for record in records)
        else:
            content = _csv(records)
        ui.download.content(content, f"requests.{kind}", "text/csv" if kind == "csv" else "application/jsonl")


def _row(record: RequestRecord) -> None:
    with box(tag="tr"):
        text(time.strftime("%H:%M:%S", time.localtime(record.arrived_unix_s)), "num", "td")
        text(record.model or record.path, tag="td")
        text(record.key or record.user or "anybody", tag="td")
        with box(tag="td"):
            outcome = _outcome(record)
            badge(str(record.status), "good" if outcome == "ok" else "bad" if outcome == "failed" else "warn")
        for number in (record.num_prompt_tokens, record.num_cached_tokens, record.num_completion_tokens):
            text("" if number is None else f"{number:,}", "num", "td")
        for seconds in (record.ttft_s, record.duration_s):
            text("" if seconds is None else f"{seconds:.2f} s", "num", "td")
        with box(tag="td"):
            look = button("", lambda: _show(record), icon="chevron_right", look="bare tiny")
            look.props["aria-label"] = f"Details of {record.request_id}"


def _show(record: RequestRecord) -> None:
    with dialog("One request", is_wide=True) as opened:
        facts(
            [
                ("Path", record.path),
                ("Model", record.model or "not read"),
                ("Answered by", record.target or "nobody"),
                ("By", record.key or record.user or "anybody"),
                ("From", record.client_address or "this server"),
                ("Status", f"{record.status} {record.error_code or ''}"),
                ("Priority", record.priority or ""),
                ("Attempts", str(record.num_attempts)),
            ]
        )
        _waterfall(record)
        if record.prefix_reason is not None:
            words = (
                f"Prefix cache: {record.num_cached_tokens or 0} of {record.num_prompt_tokens or 0} tokens were there; "
            )
            text(words + f"no more because of: {record.prefix_reason.value}.", "soft", "p")
        with box("row-line"):
            text(record.request_id, "mono wrap-anywhere")
            copy_button(record.request_id, "Copy the id")
        with box("dialog-foot"):
            button("Close", opened.close)


def _waterfall(record: RequestRecord) -> None:
    """How the time was spent: in the queue, until the first text, and until the end."""
    whole = record.duration_s or 0.0
    if not whole:
        return
    queue = record.queue_s or 0.0
    first = max((record.ttft_s or whole) - queue, 0.0)
    parts = [("queue", queue, "s3"), ("prompt, until the first text", first, "s1")]
    parts.append(("decode", max(whole - queue - first, 0.0), "s2"))
    bars = "".join(f'<i class="{colour}" style="width:{seconds / whole:.2%}"></i>' for _, seconds, colour in parts)
    rows = "".join(
        f'<li><span class="swatch {colour}"></span>{title} {seconds:.3f} s</li>' for title, seconds, colour in parts
    )
    said = ", ".join(f"{title} {seconds:.3f} s" for title, seconds, _ in parts)
    ui.html(f'<div class="bar" role="img" aria-label="{said}">{bars}</div>', sanitize=False)
    ui.html(f'<ul class="legend num">{rows}</ul>', sanitize=False)


def _outcome(record: RequestRecord) -> str:
    if record.status == _CLIENT_CLOSED:
        return "closed"
    return "failed" if record.status >= 400 else "ok"


def _sum(seen: Sequence[Seen]) -> str:
    records = [one.record for one in seen]
    prompt = sum(record.num_prompt_tokens or 0 for record in records)
    cached = sum(record.num_cached_tokens or 0 for record in records)
    written = sum(record.num_completion_tokens or 0 for record in records)
    shown = f", the last {_MOST_SHOWN} shown" if len(records) > _MOST_SHOWN else ""
    return f"{len(records)} requests{shown} · {prompt:,} prompt tokens, {cached:,} of them cached · {written:,} written"


def _csv(records: Sequence[RequestRecord]) -> bytes:
    """Texts that a spreadsheet would take for a formula are quoted."""
    table = io.StringIO()
    names = [field.name for field in msgspec.structs.fields(RequestRecord)]
    writer = csv.DictWriter(table, names)
    writer.writeheader()
    for record in records:
        values = msgspec.to_builtins(record)
        writer.writerow({name: _tame(values[name]) for name in names})
    return table.getvalue().encode()


def _tame(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(_SPREADSHEET_SIGNS) else value
