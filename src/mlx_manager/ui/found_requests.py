"""The audit as the console shows it: pages of it and their sums, looked up once for everybody who watches."""

from __future__ import annotations

import asyncio
import html
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from mlx_manager.ir import RequestRecord
from mlx_manager.storage.audit import AuditedRequest, AuditLog, AuditQuery, AuditSums

PAGE_ROWS = 100
_FRESH_S, _SUMS_FRESH_S = 0.9, 4.0
"""While the audit grows, a look that is younger than this is shared."""
_MOST_KEPT = 64
_CLIENT_CLOSED = 499
_HEADS = ("When", "Model", "By", "Backend", "Status", "Prompt", "Cached", "Written", "First", "Whole", "Cost", "")
_NUMBERS = ("Prompt", "Cached", "Written", "First", "Whole", "Cost")


@dataclass(frozen=True)
class FoundPage:
    """Up to a hundred requests, the last first, and the table of them."""

    rows: Sequence[AuditedRequest]
    table: str
    """HTML: what clients named is escaped in it. Its rows carry `data-row`, their id, and a button for the keyboard."""

    @property
    def next_before(self) -> int | None:
        """Where the next page begins; None at the end."""
        return self.rows[-1].id if len(self.rows) == PAGE_ROWS else None


_Kind = TypeVar("_Kind")


class _Shelf(Generic[_Kind]):
    """What was looked up lately, by what was asked for: good until the audit grows, and a moment longer."""

    def __init__(self, audit: AuditLog, fresh_s: float) -> None:
        self._audit = audit
        self._fresh_s = fresh_s
        self._kept: OrderedDict[object, tuple[_Kind, int, float]] = OrderedDict()

    def find(self, key: object, *, is_old_too: bool = False) -> _Kind | None:
        found = self._kept.get(key)
        if found is None:
            return None
        value, num_written, at_s = found
        is_good = num_written == self._audit.num_written or time.monotonic() - at_s < self._fresh_s
        return value if is_good or is_old_too else None

    def put(self, key: object, value: _Kind, num_written: int) -> None:
        self._kept[key] = (value, num_written, time.monotonic())
        self._kept.move_to_end(key)
        if len(self._kept) > _MOST_KEPT:
            self._kept.popitem(last=False)


class FoundRequests:
    """Looks once for twenty open pages. Lives in one event loop."""

    def __init__(self, audit: AuditLog) -> None:
        self._audit = audit
        self._pages: _Shelf[FoundPage] = _Shelf(audit, _FRESH_S)
        self._sums: _Shelf[AuditSums] = _Shelf(audit, _SUMS_FRESH_S)
        self._turn = asyncio.Lock()

    async def page(self, query: AuditQuery, before: int | None) -> FoundPage:
        """Of all that match, those before a row; the same object as long as nothing has come."""
        key = (query, before)
        async with self._turn:
            found = self._pages.find(key)
            if found is None:
                num_written = self._audit.num_written
                rows = await self._audit.find(query, limit=PAGE_ROWS, before=before)
                found = self._pages.find(key, is_old_too=True)
                if found is None or found.rows != rows:
                    found = FoundPage(rows, _table(rows))
                self._pages.put(key, found, num_written)
            return found

    async def sums(self, query: AuditQuery) -> AuditSums:
        """All that match, summed up."""
        async with self._turn:
            found = self._sums.find(query)
            if found is None:
                num_written = self._audit.num_written
                found = await self._audit.sum(query)
                self._sums.put(query, found, num_written)
            return found


def outcome_of(record: RequestRecord) -> tuple[str, str]:
    """The status in words for people, and the tone of its badge."""
    if record.status == _CLIENT_CLOSED:
        return "client gone", "warn"
    return (str(record.status), "bad") if record.status >= 400 else (str(record.status), "good")


def render_cost(cost_usd: float | None) -> str:
    """$0.0042; empty where nobody charges."""
    return "" if cost_usd is None else f"${cost_usd:.4f}"


def _table(rows: Sequence[AuditedRequest]) -> str:
    today = time.strftime("%Y-%m-%d", time.localtime())
    heads = "".join(f"<th{_numeric(head)}>{head or _HIDDEN_HEAD}</th>" for head in _HEADS)
    body = "".join(_row(row, today) for row in rows)
    return f'<table class="plain"><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>'


_HIDDEN_HEAD = '<span class="visually-hidden">Details</span>'


def _numeric(head: str) -> str:
    return ' class="num"' if head in _NUMBERS else ""


def _row(row: AuditedRequest, today: str) -> str:
    record = row.record
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.arrived_unix_s)).removeprefix(f"{today} ")
    words, tone = outcome_of(record)
    texts = (when, record.model or record.path, record.key or record.user or "anybody", record.target or "")
    numbers = (
        *(
            _count(number)
            for number in (record.num_prompt_tokens, record.num_cached_tokens, record.num_completion_tokens)
        ),
        *("" if seconds is None else f"{seconds:.2f} s" for seconds in (record.ttft_s, record.duration_s)),
        render_cost(record.cost_usd),
    )
    cells = "".join(f"<td>{html.escape(cell)}</td>" for cell in texts)
    cells += f'<td><span class="badge {tone}">{words}</span></td>'
    cells += "".join(f'<td class="num">{cell}</td>' for cell in numbers)
    name = html.escape(f"Details of {record.request_id}")
    return f'<tr data-row="{row.id}">{cells}<td><button class="row-open" aria-label="{name}">›</button></td></tr>'


def _count(number: int | None) -> str:
    return "" if number is None else f"{number:,}"
