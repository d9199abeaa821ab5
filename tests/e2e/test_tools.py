"""Tools and thinking over the whole way: a tiny model that really thinks and calls, through the official SDK."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from openai.types.chat import ChatCompletion

from tests.e2e.server_process import ServerProcess

PARIS = "What is the weather in Paris?"
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
SUM = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
    "required": ["a", "b"],
}


def function(name: str, description: str, parameters: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": name, "description": description, "parameters": parameters} | more


FUNCTIONS = [
    function("get_weather", "Get the current weather for a city", CITY),
    function("add", "Add two numbers", SUM),
]
TOOLS: list[dict[str, Any]] = [{"type": "function", "function": each} for each in FUNCTIONS]
STRICT: list[dict[str, Any]] = [{"type": "function", "function": each | {"strict": True}} for each in FUNCTIONS]


def ask(server: ServerProcess, question: str | list[Any], **sent: Any) -> ChatCompletion:
    """The answer, unstreamed; the streamed one must be the same."""
    messages: Any = [{"role": "user", "content": question}] if isinstance(question, str) else question
    body: Any = {
        "model": server.model,
        "messages": messages,
        "tools": TOOLS,
        "temperature": 0,
        "max_tokens": 120,
    } | sent
    whole: ChatCompletion = server.sdk.chat.completions.create(**body)
    with server.sdk.chat.completions.stream(**body) as stream:
        streamed = stream.get_final_completion()
    assert [said(choice) for choice in streamed.choices] == [said(choice) for choice in whole.choices]
    return whole


def said(choice: Any) -> tuple[str, str, list[tuple[str, Any]], str]:
    """What a choice thought, said and called, and why it ended."""
    calls = [(call.function.name, json.loads(call.function.arguments)) for call in choice.message.tool_calls or ()]
    thought = (choice.message.model_extra or {}).get("reasoning_content") or ""
    return thought, choice.message.content or "", calls, choice.finish_reason


def only(answer: ChatCompletion) -> tuple[str, str, list[tuple[str, Any]], str]:
    (choice,) = answer.choices
    return said(choice)


PARIS_CALL = ("get_weather", {"city": "Paris"})
THOUGHT = "I should call get_weather."


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        (PARIS, (THOUGHT, "", [PARIS_CALL], "tool_calls")),
        ("What is 3 plus 4?", ("I should call add.", "", [("add", {"a": 3, "b": 4})], "tool_calls")),
        (
            "What is the weather in London and Berlin?",
            (
                "I should call get_weather twice.",
                "",
                [("get_weather", {"city": "London"}), ("get_weather", {"city": "Berlin"})],
                "tool_calls",
            ),
        ),
        ("hello", ("A greeting.", "Hello! How can I help you today?", [], "stop")),
    ],
)
@pytest.mark.parametrize("tools", [TOOLS, STRICT], ids=["free", "strict"])
def test_it_thinks_and_then_calls_or_answers(
    caller: ServerProcess, question: str, expected: object, tools: list[Any]
) -> None:
    answer = ask(caller, question, tools=tools)
    assert only(answer) == expected
    assert answer.usage is not None
    assert answer.usage.completion_tokens_details is not None
    assert 0 < (answer.usage.completion_tokens_details.reasoning_tokens or 0) < answer.usage.completion_tokens


def test_the_tool_is_called_and_its_answer_is_told(caller: ServerProcess) -> None:
    asked: list[Any] = [{"role": "user", "content": PARIS}]
    call = ask(caller, asked).choices[0].message
    assert call.tool_calls
    assert call.tool_calls[0].id.startswith("call_")
    # the message goes back as the SDK has it, thinking included
    asked += [call.model_dump(exclude_none=True), {"role": "tool", "tool_call_id": call.tool_calls[0].id}]
    asked[-1]["content"] = "sunny"
    assert only(ask(caller, asked)) == ("The tool answered.", "The weather in Paris is sunny.", [], "stop")


@pytest.mark.parametrize(
    "switch",
    [
        {"extra_body": {"chat_template_kwargs": {"enable_thinking": False}}},
        {"extra_body": {"enable_thinking": False}},
        {"reasoning_effort": "none"},
    ],
    ids=["template", "field", "effort"],
)
def test_thinking_can_be_switched_off(caller: ServerProcess, switch: dict[str, Any]) -> None:
    assert only(ask(caller, PARIS, **switch)) == ("", "", [PARIS_CALL], "tool_calls")


def test_a_required_call_comes_after_thinking(caller: ServerProcess) -> None:
    assert only(ask(caller, PARIS, tool_choice="required")) == (THOUGHT, "", [PARIS_CALL], "tool_calls")
    named = {"type": "function", "function": {"name": "get_weather"}}
    thought, text, calls, reason = only(ask(caller, "hello", tool_choice=named))
    assert (text, reason) == ("", "tool_calls")
    assert thought
    assert {name for name, _ in calls} == {"get_weather"}
    assert all(set(arguments) == {"city"} for _, arguments in calls)


LONDON_OF_TWO = "What is the weather in London and Berlin?"
LONDON_CALL = ("get_weather", {"city": "London"})


@pytest.mark.parametrize("tools", [TOOLS, STRICT])
def test_one_call_only_where_parallel_ones_are_switched_off(caller: ServerProcess, tools: list[dict[str, Any]]) -> None:
    _, text, calls, reason = only(ask(caller, LONDON_OF_TWO, tools=tools, parallel_tool_calls=False))
    assert (text, calls, reason) == ("", [LONDON_CALL], "tool_calls")


def test_one_call_only_in_the_other_dialects_and_the_older_form(caller: ServerProcess) -> None:
    shared: dict[str, Any] = {"model": caller.model, "temperature": 0}
    asked: dict[str, Any] = {"messages": [{"role": "user", "content": LONDON_OF_TWO}], "max_tokens": 120}
    older: Any = shared | asked | {"functions": FUNCTIONS, "stream": True}
    by_functions: Any = caller.sdk.chat.completions.create(**older)
    deltas = [chunk.choices[0].delta.function_call for chunk in by_functions if chunk.choices]
    assert [each.name for each in deltas if each and each.name] == ["get_weather"]
    with caller.http() as client:
        tools = [{"name": each["name"], "input_schema": each["parameters"]} for each in FUNCTIONS]
        choice = {"type": "auto", "disable_parallel_tool_use": True}
        by_messages = client.post("/v1/messages", json=shared | asked | {"tools": tools, "tool_choice": choice}).json()
        by_responses = client.post(
            "/v1/responses",
            json=shared
            | {
                "input": LONDON_OF_TWO,
                "tools": [{"type": "function", **each} for each in FUNCTIONS],
                "parallel_tool_calls": False,
            },
        ).json()
    calls = [block["input"] for block in by_messages["content"] if block["type"] == "tool_use"]
    assert (calls, by_messages["stop_reason"]) == ([LONDON_CALL[1]], "tool_use")
    called = [json.loads(item["arguments"]) for item in by_responses["output"] if item["type"] == "function_call"]
    assert called == [LONDON_CALL[1]]


def test_without_leave_to_call_there_is_no_call(caller: ServerProcess) -> None:
    _, _, calls, reason = only(ask(caller, PARIS, tool_choice="none"))
    assert (calls, reason) == ([], "stop")
    _, _, calls, _ = only(ask(caller, PARIS, tool_choice=allowed("add")))
    assert {name for name, _ in calls} <= {"add"}


def allowed(name: str) -> dict[str, Any]:
    reference = {"type": "function", "function": {"name": name}}
    return {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [reference]}}


def test_choices_log_probabilities_and_stop_strings_go_with_calls(caller: ServerProcess) -> None:
    answer = ask(caller, PARIS, n=2, logprobs=True, stop=["should", "Paris"])
    assert [said(choice) for choice in answer.choices] == [(THOUGHT, "", [PARIS_CALL], "tool_calls")] * 2
    for choice in answer.choices:
        assert choice.logprobs is not None
        spelled = "".join(entry.token for entry in choice.logprobs.content or ())
        assert spelled.startswith("<think>")
        assert spelled.rstrip().endswith("</tool_call>")
    _, text, _, reason = only(ask(caller, "hello", stop=["help"]))
    assert (text, reason) == ("Hello! How can I ", "stop")


def test_a_call_that_is_cut_ends_for_its_length(caller: ServerProcess) -> None:
    body: Any = {"model": caller.model, "messages": [{"role": "user", "content": PARIS}], "tools": TOOLS}
    chunks: Any = caller.sdk.chat.completions.create(
        **body, temperature=0, max_tokens=26, tool_choice="required", stream=True
    )
    choices = [chunk.choices[0] for chunk in chunks if chunk.choices]
    assert choices[-1].finish_reason == "length"


def test_raw_completions_stay_as_the_model_wrote_them(caller: ServerProcess) -> None:
    prompt = "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"
    answer = caller.sdk.completions.create(model=caller.model, prompt=prompt, temperature=0, max_tokens=8)
    assert "<think>" in answer.choices[0].text


def test_a_schema_that_cannot_be_enforced_is_refused_by_its_feature(caller: ServerProcess) -> None:
    odd = {"type": "object", "properties": {"x": {"type": "array", "uniqueItems": True}}, "required": ["x"]}
    tools = [{"type": "function", "function": function("odd", "Odd", odd)}]
    body = {"model": caller.model, "messages": [{"role": "user", "content": "hello"}], "tools": tools}
    refused = httpx.post(f"{caller.url}/v1/chat/completions", json=body | {"tool_choice": "required"}, timeout=60)
    error = refused.json()["error"]
    assert (refused.status_code, error["code"], error["param"]) == (400, "invalid_request", "tools")
    assert "uniqueItems" in error["message"]


GREETING = {
    "type": "object",
    "properties": {"greeting": {"enum": ["Hello!", "Good day!"]}},
    "required": ["greeting"],
    "additionalProperties": False,
}
FORM = {"type": "json_schema", "json_schema": {"name": "greeting", "schema": GREETING}}


@pytest.mark.parametrize("thinks", [True, False])
def test_with_a_schema_the_model_answers_so_or_calls(caller: ServerProcess, thinks: bool) -> None:
    switch = {"enable_thinking": thinks}
    thought, text, calls, reason = only(ask(caller, PARIS, response_format=FORM, extra_body=switch))
    assert (thought, text, calls, reason) == (THOUGHT if thinks else "", "", [PARIS_CALL], "tool_calls")
    # so small a model knows no JSON but in calls, and would call: it is kept from that, not from the answer
    with caller.http() as client:
        sent = {"model": caller.model, "prompt": "<tool_call>"}
        (begin_id,) = client.post("/tokenize", json=sent).raise_for_status().json()["tokens"]
    bias = {str(begin_id): -100}
    thought, text, calls, reason = only(ask(caller, "hello", response_format=FORM, logit_bias=bias, extra_body=switch))
    assert (bool(thought), calls, reason) == (thinks, [], "stop")
    assert json.loads(text)["greeting"] in ("Hello!", "Good day!")


def test_a_call_that_has_to_be_made_is_made_whatever_the_schema_of_texts(caller: ServerProcess) -> None:
    answer = ask(caller, "hello", response_format=FORM, tool_choice="required")
    _, text, calls, reason = only(answer)
    assert (text, len(calls) > 0, reason) == ("", True, "tool_calls")


def test_the_other_dialects_do_the_same(caller: ServerProcess) -> None:
    shared = {"model": caller.model, "temperature": 0}
    with caller.http() as client:
        by_responses = client.post(
            "/v1/responses",
            json=shared
            | {
                "input": PARIS,
                "tools": [{"type": "function", **each} for each in FUNCTIONS],
                "text": {"format": {"type": "json_schema", "name": "greeting", "schema": GREETING}},
                "enable_thinking": False,
            },
        ).json()
        by_messages = client.post(
            "/v1/messages",
            json=shared
            | {
                "max_tokens": 60,
                "messages": [{"role": "user", "content": PARIS}],
                "tools": [{"name": each["name"], "input_schema": each["parameters"]} for each in FUNCTIONS],
                "output_config": {"format": {"type": "json_schema", "schema": GREETING}},
            },
        ).json()
    (item,) = by_responses["output"]
    assert (item["type"], json.loads(item["arguments"])) == ("function_call", {"city": "Paris"})
    (block,) = by_messages["content"]
    assert (block["type"], block["input"]) == ("tool_use", {"city": "Paris"})
