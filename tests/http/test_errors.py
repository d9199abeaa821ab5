"""What a wrong request is told: the status, the dialect's form, the field, and what would be right."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import openai
import pytest

from mlx_manager.backends.scripted import script_of
from mlx_manager.errors import (
    ContextLengthExceeded,
    GenerationFailed,
    MlxManagerError,
    ModelLoadFailed,
    QueueFull,
    ShuttingDown,
)
from mlx_manager.ir import Event, GenerationRequest
from tests.http.scripted_server import HELLO, Recorder, Serve, Served
from tests.http.test_chat import MESSAGES, sdk

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
USER = {"role": "user", "content": "hi"}

# path, what is sent besides a model and a prompt, the field that the answer names, and what it says
WRONG: list[tuple[str, dict[str, Any], str, str]] = [
    (CHAT, {"temperature": 2.1}, "temperature", "less than or equal to 2"),
    (CHAT, {"temperature": "hot"}, "temperature", "valid number"),
    (CHAT, {"temperature": -0.1}, "temperature", "greater than or equal to 0"),
    (CHAT, {"top_p": 1.01}, "top_p", "less than or equal to 1"),
    (CHAT, {"top_k": -2}, "top_k", "greater than or equal to -1"),
    (CHAT, {"top_k": 1.5}, "top_k", "integer"),
    (CHAT, {"min_p": 2}, "min_p", "less than or equal to 1"),
    (CHAT, {"seed": 2**63}, "seed", "less than"),
    (CHAT, {"repetition_penalty": 0}, "repetition_penalty", "greater than or equal to 0.01"),
    (CHAT, {"repetition_penalty": 1e-46}, "repetition_penalty", "greater than or equal to 0.01"),
    (CHAT, {"presence_penalty": 3}, "presence_penalty", "less than or equal to 2"),
    (CHAT, {"frequency_penalty": -3}, "frequency_penalty", "greater than or equal to -2"),
    (CHAT, {"logit_bias": {"5": 101}}, "logit_bias.5", "less than or equal to 100"),
    (CHAT, {"logit_bias": {"five": 1}}, "logit_bias.five", "match pattern"),
    (CHAT, {"logit_bias": [1]}, "logit_bias", "object"),
    (CHAT, {"stop": ["a", "b", "c", "d", "e"]}, "stop", "at most 4"),
    (CHAT, {"stop": ""}, "stop", "empty"),
    (CHAT, {"stop": 5}, "stop", "string"),
    (CHAT, {"max_tokens": 0}, "max_tokens", "greater than or equal to 1"),
    (CHAT, {"max_tokens": True}, "max_tokens", "integer"),
    (CHAT, {"max_tokens": 1, "max_completion_tokens": 2}, "max_tokens", "one of them"),
    (CHAT, {"n": 17}, "n", "less than or equal to 16"),
    (CHAT, {"n": 0}, "n", "greater than or equal to 1"),
    (CHAT, {"logprobs": 3}, "logprobs", "boolean"),
    (CHAT, {"top_logprobs": 21, "logprobs": True}, "top_logprobs", "less than or equal to 20"),
    (CHAT, {"top_logprobs": 2}, "top_logprobs", "logprobs: true"),
    (CHAT, {"priority": "urgent"}, "priority", "'high', 'normal' or 'low'"),
    (CHAT, {"stream": "yes"}, "stream", "boolean"),
    (CHAT, {"stream_options": {"include_usage": "yes"}}, "stream_options.include_usage", "boolean"),
    (CHAT, {"model": ""}, "model", "at least 1 character"),
    (CHAT, {"model": "m" * 513}, "model", "at most 512 characters"),
    (CHAT, {"model": None}, "model", "string"),
    (CHAT, {"messages": []}, "messages", "at least 1 item"),
    (CHAT, {"messages": "hi"}, "messages", "array"),
    (CHAT, {"messages": [{"content": "hi"}]}, "messages[0].role", "required"),
    (CHAT, {"messages": [USER, {"role": "wizard", "content": "a"}]}, "messages[1].role", "send one of system"),
    (CHAT, {"messages": [{"role": "user"}]}, "messages[0].content", "required"),
    (CHAT, {"messages": [{"role": "user", "content": 5}]}, "messages[0].content", "string"),
    (CHAT, {"messages": [{"role": "user", "content": [{"text": "a"}]}]}, "messages[0].content[0].type", "required"),
    (CHAT, {"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text", "required"),
    (CHAT, {"messages": [{"role": "user", "content": [{"type": "x"}]}]}, "messages[0].content[0].type", "type text"),
    (CHAT, {"messages": [USER], "continue_final_message": True}, "continue_final_message", "assistant"),
    (CHAT, {"messages": [USER], "add_generation_prompt": False}, "add_generation_prompt", "assistant"),
    (CHAT, {"continue_final_message": True, "add_generation_prompt": True}, "continue_final_message", "one of them"),
    (COMPLETIONS, {"prompt": ""}, "prompt", "at least 1 character"),
    (COMPLETIONS, {"prompt": []}, "prompt", "at least 1 item"),
    (COMPLETIONS, {"prompt": ["a", ""]}, "prompt[1]", "at least 1 character"),
    (COMPLETIONS, {"prompt": [[]]}, "prompt[0]", "at least 1 item"),
    (COMPLETIONS, {"prompt": ["a", 5]}, "prompt[1]", "string"),
    (COMPLETIONS, {"prompt": [1, -5]}, "prompt[1]", "greater than or equal to 0"),
    (COMPLETIONS, {"prompt": ["a"] * 129}, "prompt", "at most 128"),
    (COMPLETIONS, {"prompt": {"text": "a"}}, "prompt", "string"),
    (COMPLETIONS, {"prompt": None}, "prompt", "string"),
    (COMPLETIONS, {"logprobs": 6}, "logprobs", "less than or equal to 5"),
    (COMPLETIONS, {"logprobs": True}, "logprobs", "integer"),
]
REFUSED_IN_MESSAGES: list[tuple[dict[str, Any], str]] = [
    ({"role": "assistant", "content": None, "audio": {"id": "a"}}, "messages[0].audio"),
    ({"role": "assistant", "content": "a", "prefix": True}, "messages[0].prefix"),
    ({"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}, "messages[0].content[0].type"),
    ({"role": "user", "content": [{"type": "input_video", "input_video": {}}]}, "messages[0].content[0].type"),
]


def complete_body(path: str) -> dict[str, Any]:
    return {"model": "m"} | ({"messages": MESSAGES} if path == CHAT else {"prompt": "hi"})


@pytest.mark.parametrize(("path", "sent", "param", "says"), WRONG)
def test_wrong_value_names_the_field_and_what_would_be_right(
    served: Served, path: str, sent: dict[str, Any], param: str, says: str
) -> None:
    num_before = len(served.backend.requests)
    with served.http() as client:
        answer = client.post(path, json=complete_body(path) | sent)
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["code"]) == (400, "invalid_request_error", "invalid_request")
    assert error["param"] == param
    assert param in error["message"]
    assert says in error["message"]
    assert "<" not in error["message"]
    assert len(served.backend.requests) == num_before


@pytest.mark.parametrize(("path", "missing"), [(CHAT, "messages"), (COMPLETIONS, "prompt")])
def test_missing_field_is_named(served: Served, path: str, missing: str) -> None:
    body = {key: value for key, value in complete_body(path).items() if key != missing}
    with served.http() as client:
        error = client.post(path, json=body).json()["error"]
    assert error["param"] == missing
    assert "required" in error["message"]


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, "/v1/responses"])
def test_a_missing_model_is_the_default_where_there_is_one(served: Served, serve: Serve, path: str) -> None:
    body = {"messages": MESSAGES} if path == CHAT else {"prompt": "hi"} if path == COMPLETIONS else {"input": "hi"}
    with served.http() as client:
        for named in ({}, {"model": "default_model"}):
            answer = client.post(path, json=body | named)
            assert (answer.status_code, answer.json()["model"]) == (200, "m")
            assert served.last_request().model == "m"
    with serve({"m": script_of(HELLO)}).http() as client:
        error = client.post(path, json=body).json()["error"]
        assert error["param"] == "model"
        assert "required" in error["message"]
        assert client.post(path, json=body | {"model": "default_model"}).status_code == 404


def test_chat_without_v1_is_answered_as_by_mlx_lm(served: Served) -> None:
    with served.http() as client:
        answer = client.post("/chat/completions", json={"messages": MESSAGES, "max_tokens": 5})
        assert (answer.status_code, answer.json()["model"]) == (200, "m")


@pytest.mark.parametrize(
    ("path", "sent", "param", "told"),
    [
        (COMPLETIONS, {"prompt": "hi"}, "messages", "prompt"),
        ("/v1/responses", {"input": "hi"}, "messages", "input"),
        (CHAT, {"messages": MESSAGES, "max_completion_tokens": 5}, "max_tokens", "max_completion_tokens"),
        (COMPLETIONS, {"prompt": "hi", "max_tokens": 5}, "max_tokens", "max_tokens"),
        ("/v1/responses", {"input": "hi", "max_output_tokens": 5}, "max_tokens", "max_output_tokens"),
    ],
)
def test_what_does_not_fit_is_named_as_it_was_sent(
    serve: Serve, path: str, sent: dict[str, Any], param: str, told: str
) -> None:
    too_long = ContextLengthExceeded("the prompt has 9 tokens and max_tokens asks for 5 more", param=param)
    with serve({"m": (too_long,)}).http() as client:
        answer = client.post(path, json={"model": "m"} | sent)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, "context_length_exceeded", told)
    if param == "max_tokens":
        assert f"and {told} asks for 5" in error["message"]


@pytest.mark.parametrize(("message", "param"), REFUSED_IN_MESSAGES)
def test_what_messages_cannot_hold_is_refused_by_name(served: Served, message: dict[str, Any], param: str) -> None:
    with served.http() as client:
        answer = client.post(CHAT, json={"model": "m", "messages": [message]})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, "unsupported_parameter", param)
    assert param.removesuffix(".type") in error["message"]


def test_echo_with_logprobs_is_refused_by_name(served: Served) -> None:
    with sdk(served) as client, pytest.raises(openai.BadRequestError, match="echo with logprobs") as caught:
        client.completions.create(model="m", prompt="hi", echo=True, logprobs=1, max_tokens=3)
    assert caught.value.param == "echo"


def test_bad_priority_header_is_named(served: Served) -> None:
    with served.http() as client:
        error = client.post(CHAT, json=complete_body(CHAT), headers={"x-priority": "now"}).json()["error"]
    assert error["param"] == "X-Priority"
    assert "high, normal or low" in error["message"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"{", "not valid JSON"),
        (b"", "not valid JSON"),
        (b'{"model": "\\ud800"}', "not valid JSON"),
        (b"[" * 5000, "not valid JSON"),
        (b'{"model": "\xff"}', "not valid JSON"),
        (b"[]", "not a JSON object"),
        (b"5", "not a JSON object"),
        (b'{"model": "m", "messages": [{"role": "user", "content": "a"}], "temperature": NaN}', "temperature"),
    ],
)
def test_body_that_is_not_a_json_object(served: Served, content: bytes, says: str) -> None:
    with served.http() as client:
        answer = client.post(CHAT, content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert says in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("headers", "param"),
    [
        ({"content-type": "text/plain"}, "Content-Type"),
        ({"content-type": "application/x-www-form-urlencoded"}, "Content-Type"),
        ({}, "Content-Type"),
        ({"content-type": "application/json", "content-encoding": "br"}, "Content-Encoding"),
    ],
)
def test_body_in_another_form_is_refused(served: Served, headers: dict[str, str], param: str) -> None:
    with served.http() as client:
        answer = client.post(CHAT, content=b"{}", headers=headers)
    assert answer.status_code == (415 if "content-encoding" in headers else 400)
    assert answer.json()["error"]["param"] == param


def test_content_type_may_carry_a_charset(served: Served) -> None:
    with served.http() as client:
        headers = {"content-type": "Application/JSON; charset=utf-8"}
        assert client.post(CHAT, content=b'{"model": 5}', headers=headers).json()["error"]["param"] == "model"


@pytest.mark.parametrize("num_bytes", [2049, 6000, 5_000_000])
def test_body_too_large(serve: Serve, num_bytes: int) -> None:
    served = serve({}, max_body=2048)
    with served.http() as client:
        answer = client.post(CHAT, content=b"x" * num_bytes, headers={"content-type": "application/json"})
        assert answer.status_code == 413
        assert answer.json()["error"]["code"] == "payload_too_large"
        assert "2048 bytes" in answer.json()["error"]["message"]
        assert client.get("/health").status_code == 200


def test_conversations_are_bounded(serve: Serve) -> None:
    served = serve({"m": script_of(HELLO)}, max_messages=3, max_tools=1)
    said = {"role": "user", "content": "a"}
    tools = [{"type": "function", "function": {"name": name, "parameters": {"type": "object"}}} for name in "ab"]
    with served.http() as client:
        assert client.post(CHAT, json={"model": "m", "messages": [said] * 3, "tools": tools[:1]}).status_code == 200
        for body, param in (({"messages": [said] * 4}, "messages"), ({"messages": [said], "tools": tools}, "tools")):
            refused = client.post(CHAT, json={"model": "m", **body})
            assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)
            assert f"setting max_{param}" in refused.json()["error"]["message"]


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("/completions", "end with /v1"),
        ("/v1/v1/chat/completions", "already has"),
        ("/v1/answers", "nothing at POST /v1/answers"),
    ],
)
def test_unknown_path(served: Served, path: str, hint: str) -> None:
    with served.http() as client:
        answer = client.post(path, json={})
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["code"]) == (404, "invalid_request_error", "not_found")
    assert hint in error["message"]
    assert answer.headers["x-request-id"]


def test_wrong_method_names_the_right_one(served: Served) -> None:
    with served.http() as client:
        answer = client.get(CHAT)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert "Allowed: POST" in answer.json()["error"]["message"]


def test_unknown_model_names_those_that_exist(served: Served) -> None:
    with sdk(served) as client, pytest.raises(openai.NotFoundError, match="Models here: m, m3") as caught:
        client.chat.completions.create(model="gpt-4o", messages=MESSAGES)
    assert caught.value.code == "model_not_found"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("error", "status", "error_type", "retry_after"),
    [
        (ContextLengthExceeded("too long", param="messages"), 400, "invalid_request_error", None),
        (QueueFull("full", retry_after_s=2.1), 429, "rate_limit_error", "3"),
        (QueueFull("full", retry_after_s=0.01), 429, "rate_limit_error", "1"),
        (ModelLoadFailed("broken"), 503, "server_error", "1"),
        (ShuttingDown("bye", retry_after_s=5), 503, "server_error", "5"),
        (GenerationFailed("broke"), 500, "server_error", None),
    ],
)
def test_backend_error_before_the_answer_has_its_own_status(
    serve: Serve, *, error: MlxManagerError, status: int, error_type: str, retry_after: str | None, stream: bool
) -> None:
    with serve({"m": (error,)}).http() as client:
        answer = client.post(CHAT, json=complete_body(CHAT) | {"stream": stream})
    assert answer.status_code == status
    assert answer.headers.get("retry-after") == retry_after
    assert answer.json() == {
        "error": {"message": error.message, "type": error_type, "param": error.param, "code": error.code}
    }


class BrokenBackend(Recorder):
    """Fails as no backend should."""

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        """Fail."""
        raise RuntimeError("secret detail of the inside")
        yield


@pytest.mark.parametrize("stream", [False, True])
def test_unexpected_error_tells_nothing_of_the_inside(
    serve: Serve, caplog: pytest.LogCaptureFixture, stream: bool
) -> None:
    served = serve(BrokenBackend({}))
    with served.http() as client:
        answer = client.post(CHAT, json=complete_body(CHAT) | {"stream": stream}, headers={"x-request-id": "abc"})
    assert answer.status_code == 500
    assert answer.headers["x-request-id"] == "abc"
    assert "secret" not in answer.text
    assert "abc" in answer.json()["error"]["message"]
    assert answer.json()["error"]["type"] == "server_error"
    assert "secret detail" in caplog.text


@pytest.mark.parametrize(("sent", "is_kept"), [("abc-1.2:3_4", True), ("a b", False), ("x" * 129, False), ("", False)])
def test_request_id_of_the_client_is_kept_when_sane(served: Served, sent: str, is_kept: bool) -> None:
    with served.http() as client:
        answered = client.get("/health", headers={"x-request-id": sent}).headers["x-request-id"]
    assert (answered == sent) is is_kept
    assert answered


def test_a_loopback_server_answers_to_no_other_host(served: Served) -> None:
    with served.http() as client:
        answer = client.get("/v1/models", headers={"host": "evil.example:80"})
        assert answer.status_code == 403
        assert answer.json()["error"]["code"] == "host_not_allowed"
        assert "127.0.0.1" in answer.json()["error"]["message"]
        for host in ("localhost:1", "LOCALHOST", "127.0.0.1", "[::1]:10242"):
            assert client.get("/v1/models", headers={"host": host}).status_code == 200


def test_web_pages_are_not_let_in(served: Served) -> None:
    with served.http() as client:
        asked = client.options(
            CHAT, headers={"origin": "https://evil.example", "access-control-request-method": "POST"}
        )
        answered = client.get("/v1/models", headers={"origin": "https://evil.example"})
    assert asked.status_code == 405
    assert not [name for answer in (asked, answered) for name in answer.headers if name.startswith("access-control")]
