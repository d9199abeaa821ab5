"""Structured output through the official SDK, on the starter model."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from tests.e2e.server_process import ServerProcess

INVENT: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Invent a person."}]
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 1, "maximum": 99},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}


def test_a_schema_is_enforced_streamed_and_not(idle_server: ServerProcess) -> None:
    create = idle_server.sdk.chat.completions.create
    wanted: Any = {"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA, "strict": True}}
    answer = create(model=idle_server.model, messages=INVENT, response_format=wanted, temperature=0)
    text = answer.choices[0].message.content
    assert text is not None
    assert set(json.loads(text)) == {"name", "age"}
    assert answer.choices[0].finish_reason == "stop"
    chunks = create(model=idle_server.model, messages=INVENT, response_format=wanted, temperature=0, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == text


def test_a_regular_expression_is_enforced_on_both_endpoints(idle_server: ServerProcess) -> None:
    extra = {"guided_regex": "red|green"}
    chat = idle_server.sdk.chat.completions.create(model=idle_server.model, messages=INVENT, extra_body=extra)
    assert chat.choices[0].message.content in ("red", "green")
    raw = idle_server.sdk.completions.create(model=idle_server.model, prompt="Colour:", extra_body=extra)
    assert raw.choices[0].text in ("red", "green")


@pytest.mark.parametrize("stream", [False, True])
def test_a_schema_that_cannot_be_enforced_is_a_400_that_names_it(idle_server: ServerProcess, stream: bool) -> None:
    schema = {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}
    wanted: Any = {"type": "json_schema", "json_schema": {"name": "numbers", "schema": schema}}
    with pytest.raises(openai.BadRequestError) as refused:
        idle_server.sdk.chat.completions.create(
            model=idle_server.model, messages=INVENT, response_format=wanted, stream=stream
        )
    assert refused.value.param == "response_format.json_schema.schema"
    assert "uniqueItems" in refused.value.message
