"""Requests: the audit, followed live, filtered, summed up, opened one by one, and exported."""

from __future__ import annotations

from nicegui import ui
from nicegui.events import GenericEventArguments
from starlette.requests import Request

from mlx_manager.errors import StorageUnavailable
from mlx_manager.storage.audit import AuditSums
from mlx_manager.ui.console import Console, console_of
from mlx_manager.ui.elements import box, button, empty_state, figure, tell, text
from mlx_manager.ui.found_requests import FoundPage
from mlx_manager.ui.frame import frame
from mlx_manager.ui.paths import REQUESTS
from mlx_manager.ui.request_detail import show_request
from mlx_manager.ui.requests_filter import RequestsFilter

# not where somebody has marked what is to be copied
_OPEN_ROW = """(event) => {
    const row = event.target.closest('[data-row]');
    if (row && !String(window.getSelection())) emit(row.dataset.row);
}"""


async def requests_page(request: Request) -> None:
    """Builds the page."""
    console = console_of(request)
    with frame(console, request, REQUESTS):
        view = _RequestsView(console)
    await view.update()
    ui.timer(1.0, view.update, immediate=False)


class _RequestsView:
    """The table is sent anew only when it says something else."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._found: FoundPage | None = None
        self._pages: list[int | None] = [None]
        """Where each page that was gone through begins; the last is the one that is shown."""
        self._has_failed = False
        with box("page-head"):
            text("Requests", "grow", "h1")
            self._follow = ui.switch("Follow", value=True).props("dense")
            for kind in ("csv", "jsonl"):
                button(kind.upper(), lambda kind=kind: self._export(kind), icon="download")
        self._filter = RequestsFilter(console, self._restart)
        with box("grid-figures", "dl"):
            self._figures = [figure(label, "") for label in ("Requests", "Prompt tokens", "Tokens written", "Cost")]
        self._place = box("panel tight scroll-x").props('tabindex="0" role="region" aria-label="Requests"')
        with self._place:
            self._table = ui.html("", sanitize=False)
            self._table.on("click", self._open, js_handler=_OPEN_ROW)
        self._nothing = empty_state(
            "receipt_long", "Nothing to show", "No request matches. Choose a longer time, or send one: Home says how."
        )
        with box("row-line"):
            self._newer = button("Newer", self._go_newer, icon="chevron_left")
            self._older = button("Older", self._go_older, icon="chevron_right")

    async def update(self, *, is_forced: bool = False) -> None:
        """Show what is new, unless somebody holds the list still or looks at older ones."""
        is_held = self._found is not None and (not self._follow.value or len(self._pages) > 1)
        if is_held and not is_forced:
            return
        query, before = self._filter.query(), self._pages[-1]
        try:
            found = await self._console.requests.page(query, before)
            sums = await self._console.requests.sums(query)
        except StorageUnavailable as error:
            if not self._has_failed:
                tell(error.message, "negative")
            self._has_failed = True
            return
        self._has_failed = False
        # meanwhile somebody may have typed, or gone
        if not self._table.is_deleted and (query, before) == (self._filter.query(), self._pages[-1]):
            self._show(found, sums)

    def _show(self, found: FoundPage, sums: AuditSums) -> None:
        if found is not self._found:
            self._found = found
            self._table.set_content(found.table)
        self._nothing.set_visibility(not found.rows)
        self._place.set_visibility(bool(found.rows))
        self._newer.set_visibility(len(self._pages) > 1)
        self._older.set_visibility(found.next_before is not None)
        share = sums.num_cached_tokens / sums.num_prompt_tokens if sums.num_prompt_tokens else 0.0
        values = (
            (f"{sums.num_requests:,}", f"{sums.num_failed:,} failed"),
            (f"{sums.num_prompt_tokens:,}", f"{share:.0%} from the prefix cache"),
            (f"{sums.num_completion_tokens:,}", ""),
            (f"${sums.cost_usd:,.4f}" if sums.cost_usd else "$0", "charged by providers"),
        )
        for change, (value, aside) in zip(self._figures, values, strict=True):
            change(value, aside)

    async def _restart(self) -> None:
        self._pages = [None]
        await self.update(is_forced=True)

    async def _go_older(self) -> None:
        if self._found is not None and self._found.next_before is not None:
            self._pages.append(self._found.next_before)
            await self.update(is_forced=True)

    async def _go_newer(self) -> None:
        if len(self._pages) > 1:
            self._pages.pop()
            await self.update(is_forced=True)

    def _export(self, kind: str) -> None:
        # the browser fetches it with its own session, row by row, however many there are
        ui.download.from_url(self._filter.export_path(kind), f"requests.{kind}")

    async def _open(self, event: GenericEventArguments) -> None:
        rows = self._found.rows if self._found is not None else ()
        row = next((row for row in rows if str(row.id) == str(event.args)), None)
        if row is not None:
            await show_request(self._console, row.record)
