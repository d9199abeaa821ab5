"""What the wire schemas of all dialects are made of, and how a body is read by one, with errors that name the field."""

from __future__ import annotations

import json
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from mlx_manager.errors import InvalidRequest

INT64 = 2**63
"""Beyond every whole number that is taken."""


class Wire(BaseModel):
    """Fields that have no schema are kept beside; what becomes of them is a dialect's to say."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False, frozen=True)


def _whole(value: object) -> object:
    # JavaScript and Lua clients write 5 as 5.0
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = Annotated[int, BeforeValidator(_whole)]


RequestModel = TypeVar("RequestModel", bound=Wire)


def parse_wire(schema: type[RequestModel], body: bytes) -> RequestModel:
    """Read a request's body. Raises `InvalidRequest`, naming the first field that is wrong and what would be right."""
    try:
        return schema.model_validate_json(body)
    except ValidationError as error:
        raise _as_invalid_request(error) from None


def _as_invalid_request(error: ValidationError) -> InvalidRequest:
    first: Any = error.errors(include_url=False, include_context=False)[0]
    if first["type"] == "json_invalid":
        reason = first["msg"].removeprefix("Invalid JSON: ")
        if "hex escape" in reason:
            reason = f"{reason} (half of a surrogate pair, such as \\ud800, is no text)"
        return InvalidRequest(f"The body is not valid JSON: {reason}. Send one JSON object.")
    if not first["loc"]:
        return InvalidRequest("The body is not a JSON object. Send one with `model` and the prompt.")
    param = _render_location(first["loc"])
    if first["type"] == "missing":
        return InvalidRequest(f"{param} is required, and is not in the request.", param=param)
    expected = _in_terms_of_json(first["msg"][:1].lower() + first["msg"][1:])
    return InvalidRequest(f"{param} cannot be {_excerpt(first['input'])}: {expected}.", param=param)


def _in_terms_of_json(expected: str) -> str:
    for pythons, jsons in (("valid list", "list"), ("valid dictionary", "JSON object"), (" after validation", "")):
        expected = expected.replace(pythons, jsons)
    return expected


def _render_location(location: tuple[int | str, ...]) -> str:
    """`("messages", 0, "content", "<parts>", 1)` as `messages[0].content[1]`; tags of unions are left out."""
    rendered = ""
    for step in location:
        if isinstance(step, int):
            rendered += f"[{step}]"
        elif not (step.startswith("<") or step in ("str", "list[str]", "[key]")):
            rendered += f".{step}" if rendered else step
    return rendered


def _excerpt(value: object) -> str:
    # as it was sent: null, true
    shown = json.dumps(value) if value is None or isinstance(value, bool) else repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
