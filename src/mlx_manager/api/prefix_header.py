"""The header X-Prefix-Cache: what the prefix cache had of each prompt, for who asks with `X-Debug: prefix`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from mlx_manager.ir import Event, PrefixReport, PromptReady

PREFIX_HEADER = "x-prefix-cache"


class PrefixNotes:
    """The prefix reports of one answer, noted as they pass by if `debug`, its X-Debug header, asks for them."""

    def __init__(self, debug: str) -> None:
        self._is_wanted = "prefix" in (word.strip().lower() for word in debug.split(","))
        self._by_index: dict[int, PrefixReport] = {}

    def noted(self, index: int, events: AsyncGenerator[Event, None]) -> AsyncGenerator[Event, None]:
        """`events` of the prompt with this index, as they are."""
        return self._noted(index, events) if self._is_wanted else events

    def headers(self) -> dict[str, str]:
        """The header with what has been noted so far, the prompts in their order; nothing where nothing has."""
        if not self._by_index:
            return {}
        return {PREFIX_HEADER: ", ".join(_render(self._by_index[index]) for index in sorted(self._by_index))}

    async def _noted(self, index: int, events: AsyncGenerator[Event, None]) -> AsyncGenerator[Event, None]:
        async with aclosing(events):
            async for event in events:
                if isinstance(event, PromptReady) and event.prefix is not None:
                    self._by_index[index] = event.prefix
                yield event


def _render(report: PrefixReport) -> str:
    """One item of a structured field (RFC 9651)."""
    return (
        f"{report.reason.value};prompt={report.num_prompt_tokens};matched={report.num_matched_tokens}"
        f";agreed={report.num_agreed_tokens}"
    )
