"""Where responses are kept: what a store does, one in memory, and the conversation that a stored response ends."""

from __future__ import annotations

import logging
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Protocol

from mlx_manager.errors import Conflict, ResponseNotFound, StorageUnavailable
from mlx_manager.protocols.openai.responses import StoredResponse

_logger = logging.getLogger("mlx_manager.gateway")
MAX_RESPONSES = 2000
MAX_BYTES = 128 * 1024 * 1024


class ResponseStore(Protocol):
    """Keeps responses until their room is needed."""

    async def put(self, response: StoredResponse) -> None:
        """Keep `response`, instead of an earlier state of it."""
        ...

    async def get(self, response_id: str) -> StoredResponse | None:
        """The response, or None for one that is not kept (any more)."""
        ...

    async def delete(self, response_id: str) -> bool:
        """Forget it; whether it was there."""
        ...

    async def find_by_item(self, item_id: str, owner: int | None) -> StoredResponse | None:
        """The response of that owner's that has the item in its input or its output, the latest of several."""
        ...


@dataclass(frozen=True)
class OwnResponses:
    """A store, as far as one account sees it: what others have stored is not there."""

    store: ResponseStore
    owner: int | None

    async def get(self, response_id: str, *, param: str) -> StoredResponse:
        """A response that has to be there. Raises `ResponseNotFound`; `param` is where it was named."""
        found = await self.store.get(response_id)
        if found is None or found.owner != self.owner:
            raise ResponseNotFound(
                f"{param} names the response {response_id[:80]!r}, which is not stored here: it was made with "
                "store: false, was deleted, had to make room, is too old, or was not complete when the server stopped.",
                param=param,
            )
        return found

    async def find_item(self, item_id: str) -> dict[str, Any] | None:
        """An item that a response of theirs had as its input or its output."""
        found = await self.store.find_by_item(item_id, self.owner)
        if found is None:
            return None
        return next((item for item in found.turn() if item["id"] == item_id), None)

    async def earlier_items(self, response_id: str | None) -> list[dict[str, Any]]:
        """All items of the conversation that ends with `response_id`, in order; none for none.

        Raises `ResponseNotFound` when a response of it is not kept any more, and `Conflict` when one is not complete.
        """
        turns = []
        while response_id is not None:
            found = await self.get(response_id, param="previous_response_id")
            if not found.is_over:
                raise Conflict(
                    f"previous_response_id names the response {response_id[:80]!r}, which is still being made: wait "
                    "until it is complete.",
                    param="previous_response_id",
                )
            turns.append(found.turn())
            response_id = found.previous_response_id
        return [item for turn in reversed(turns) for item in turn]


class MemoryResponses:
    """Keeps responses in memory, the most recently used ones, and loses them when the server ends."""

    def __init__(self, *, max_responses: int = MAX_RESPONSES, max_bytes: int = MAX_BYTES) -> None:
        self._max_responses = max_responses
        self._max_bytes = max_bytes
        self._responses: OrderedDict[str, StoredResponse] = OrderedDict()
        self._holders: dict[tuple[int | None, str], str] = {}
        """By the owner and the id of an item, the response that it belongs to."""
        self._num_bytes = 0

    async def put(self, response: StoredResponse) -> None:
        """See `ResponseStore.put`. One that is larger than all room there is is not kept."""
        await self.delete(response.id)
        if response.num_bytes > self._max_bytes:
            return
        self._responses[response.id] = response
        self._num_bytes += response.num_bytes
        for item in response.turn():
            self._holders[response.owner, item["id"]] = response.id
        while len(self._responses) > self._max_responses or self._num_bytes > self._max_bytes:
            await self.delete(next(iter(self._responses)))

    async def get(self, response_id: str) -> StoredResponse | None:
        """See `ResponseStore.get`."""
        found = self._responses.get(response_id)
        if found is not None:
            self._responses.move_to_end(response_id)
        return found

    async def delete(self, response_id: str) -> bool:
        """See `ResponseStore.delete`."""
        found = self._responses.pop(response_id, None)
        if found is None:
            return False
        self._num_bytes -= found.num_bytes
        for item in found.turn():
            if self._holders.get((found.owner, item["id"])) == response_id:
                del self._holders[found.owner, item["id"]]
        return True

    async def find_by_item(self, item_id: str, owner: int | None) -> StoredResponse | None:
        """See `ResponseStore.find_by_item`."""
        holder = self._holders.get((owner, item_id))
        return None if holder is None else self._responses[holder]


class KeptResponses:
    """Keeps complete responses where they survive, and in memory what is still being made or cannot be written."""

    def __init__(self, lasting: ResponseStore, passing: ResponseStore | None = None) -> None:
        self._lasting = lasting
        self._passing = passing or MemoryResponses()

    async def put(self, response: StoredResponse) -> None:
        """See `ResponseStore.put`. An answer is not lost because its keeping fails: the log says so."""
        if response.is_over:
            try:
                await self._lasting.put(response)
            except StorageUnavailable as error:
                _logger.warning("The response %s is kept in memory only: %s", response.id, error.message)
            else:
                await self._passing.delete(response.id)
                return
        await self._passing.put(response)

    async def get(self, response_id: str) -> StoredResponse | None:
        """See `ResponseStore.get`."""
        return await self._passing.get(response_id) or await self._lasting.get(response_id)

    async def delete(self, response_id: str) -> bool:
        """See `ResponseStore.delete`."""
        was_passing = await self._passing.delete(response_id)
        return await self._lasting.delete(response_id) or was_passing

    async def find_by_item(self, item_id: str, owner: int | None) -> StoredResponse | None:
        """See `ResponseStore.find_by_item`."""
        found = await self._passing.find_by_item(item_id, owner)
        return found or await self._lasting.find_by_item(item_id, owner)
