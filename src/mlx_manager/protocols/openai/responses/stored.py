"""A response as it is kept, to be asked for later and to be gone on with."""

from __future__ import annotations

from typing import Any

import msgspec

from mlx_manager.protocols.openai.responses.answers import ResponseObject
from mlx_manager.protocols.openai.responses.encode import encode_response
from mlx_manager.protocols.openai.responses.server import ResponseCall


class StoredResponse(msgspec.Struct, frozen=True, kw_only=True):
    """One response. Bodies are JSON, as they go out."""

    id: str
    owner: int | None = None
    """The number of the account that asked for it; None where nobody had to say who they are."""
    created_unix_s: int
    previous_response_id: str | None
    body: bytes
    input_items: bytes
    """A list of the request's own items, each with an id."""

    @property
    def is_background(self) -> bool:
        """Whether it is, or was, made while nobody waits for it."""
        return bool(msgspec.json.decode(self.body).get("background"))

    @property
    def is_over(self) -> bool:
        """Whether nothing is added to it any more."""
        return msgspec.json.decode(self.body).get("status") not in ("queued", "in_progress")

    @property
    def num_bytes(self) -> int:
        """About what it takes to keep it."""
        return len(self.body) + len(self.input_items)

    def inputs(self) -> list[dict[str, Any]]:
        """The request's own items."""
        items: list[dict[str, Any]] = msgspec.json.decode(self.input_items)
        return items

    def outputs(self) -> list[dict[str, Any]]:
        """The items of the answer."""
        items: list[dict[str, Any]] = msgspec.json.decode(self.body)["output"]
        return items

    def turn(self) -> list[dict[str, Any]]:
        """What a conversation that goes on has of it. A call that was cut is none."""
        said = [item for item in self.outputs() if item["type"] != "function_call" or item["status"] == "completed"]
        return [*self.inputs(), *said]


def stored(call: ResponseCall, response: ResponseObject, owner: int | None) -> StoredResponse:
    """What is kept of `call` and of the response as it stands."""
    return StoredResponse(
        id=response.id,
        owner=owner,
        created_unix_s=response.created_at,
        previous_response_id=response.previous_response_id,
        body=encode_response(response),
        input_items=msgspec.json.encode(call.input_items),
    )
