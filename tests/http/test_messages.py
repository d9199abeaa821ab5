"""POST /v1/messages over the wire: the exact order of a stream's events, and the same answer in one body."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import httpx
import pytest

from mlx_manager.backends.scripted import Pause, Step, script_of
from mlx_manager.errors import WorkerDied
from mlx_manager.ir import (
    ChoiceEnd,
    Finished,
    FinishReason,
    PartDelta,
    PartEnd,
    PartKind,
    PartStart,
    PrefixReason,
    PrefixReport,
    PromptReady,
    Usage,
)
from mlx_manager.protocols.anthropic import signature
from tests.http.scripted_server import HELLO, TEXT, Serve, Served

PATH = "/v1/messages"
BODY: dict[str, Any] = {"model": "m", "max_tokens": 64, "messages": [{"role": "user", "content": "hi"}]}
REPORT = PrefixReport(reason=PrefixReason.CONTINUED, num_prompt_tokens=100, num_matched_tokens=40, num_agreed_tokens=40)
USAGE = Usage(num_prompt_tokens=100, num_cached_tokens=40, num_completion_tokens=9, num_reasoning_tokens=3)
THINKS_AND_CALLS: tuple[Step, ...] = (
    PromptReady(100, REPORT),
    PartStart(0, PartKind.REASONING),
    PartDelta(0, "Let me "),
    PartDelta(0, "see."),
    PartEnd(0),
    PartStart(0),
    PartDelta(0, "Looking."),
    PartEnd(0),
    PartStart(0, PartKind.TOOL_CALL, "call_1", "get_weather"),
    PartDelta(0, '{"city": '),
    PartDelta(0, '"Paris"}'),
    PartEnd(0),
    ChoiceEnd(0, FinishReason.TOOL_CALLS),
    Finished(USAGE),
)
LOOKS_LIKE_A_CALL: tuple[Step, ...] = (
    PromptReady(7),
    PartStart(0, PartKind.TOOL_CALL, "call_1", "get_weather"),
    PartDelta(0, '{"city": '),
    PartEnd(0, is_withdrawn=True),
    PartStart(0),
    PartDelta(0, '<tool_call>{"city": oops'),
    PartEnd(0),
    ChoiceEnd(0, FinishReason.STOP),
    Finished(Usage(num_prompt_tokens=7, num_cached_tokens=0, num_completion_tokens=9)),
)


def events_of(answer: httpx.Response) -> list[tuple[str, dict[str, Any]]]:
    """The events of a stream, each under its name."""
    events = []
    for piece in answer.text.split("\n\n")[:-1]:
        lines = [line for line in piece.split("\n") if not line.startswith(":")]
        if lines:
            name, data = lines
            events.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    assert all(name == data["type"] for name, data in events)
    return events


def ask(served: Served, **sent: Any) -> httpx.Response:
    with served.http() as client:
        answer = client.post(PATH, json=BODY | sent)
    assert answer.status_code == 200, answer.text
    return answer


def ended(reason: FinishReason, stop_sequence: str | None = None, *, is_context_full: bool = False) -> Sequence[Step]:
    end = ChoiceEnd(0, reason, stop_sequence, is_context_full)
    return [end if isinstance(step, ChoiceEnd) else step for step in script_of(HELLO)]


def test_a_stream_has_its_events_in_their_order(serve: Serve) -> None:
    answer = ask(serve({"m": THINKS_AND_CALLS}), stream=True)
    assert answer.headers["content-type"].startswith("text/event-stream")
    (_, start), *events = events_of(answer)
    message = start["message"]
    assert message.pop("id").startswith("msg_")
    assert start == {
        "type": "message_start",
        "message": {
            "type": "message",
            "role": "assistant",
            "model": "m",
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {
                "input_tokens": 60,
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 40,
                "output_tokens": 0,
            },
        },
    }
    assert [data for _, data in events] == [
        begun(0, {"type": "thinking", "thinking": "", "signature": ""}),
        more(0, {"type": "thinking_delta", "thinking": "Let me "}),
        more(0, {"type": "thinking_delta", "thinking": "see."}),
        more(0, {"type": "signature_delta", "signature": signature.sign("Let me see.")}),
        {"type": "content_block_stop", "index": 0},
        begun(1, {"type": "text", "text": ""}),
        more(1, {"type": "text_delta", "text": "Looking."}),
        {"type": "content_block_stop", "index": 1},
        begun(2, {"type": "tool_use", "id": "call_1", "name": "get_weather", "input": {}}),
        more(2, {"type": "input_json_delta", "partial_json": '{"city": '}),
        more(2, {"type": "input_json_delta", "partial_json": '"Paris"}'}),
        {"type": "content_block_stop", "index": 2},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "tool_use", "stop_sequence": None},
            "usage": {
                "input_tokens": 60,
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 40,
                "output_tokens": 9,
                "output_tokens_details": {"thinking_tokens": 3},
            },
        },
        {"type": "message_stop"},
    ]


def begun(index: int, block: dict[str, Any]) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": block}


def more(index: int, delta: dict[str, Any]) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": delta}


def test_the_whole_answer_is_the_fold_of_the_stream(serve: Serve) -> None:
    message = ask(serve({"m": THINKS_AND_CALLS})).json()
    assert message.pop("id").startswith("msg_")
    assert message == {
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [
            {"type": "thinking", "thinking": "Let me see.", "signature": signature.sign("Let me see.")},
            {"type": "text", "text": "Looking."},
            {"type": "tool_use", "id": "call_1", "name": "get_weather", "input": {"city": "Paris"}},
        ],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 60,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 40,
            "output_tokens": 9,
            "output_tokens_details": {"thinking_tokens": 3},
        },
    }


def test_thinking_that_is_not_to_be_shown_travels_in_its_signature(serve: Serve) -> None:
    served = serve({"m": THINKS_AND_CALLS})
    hidden = {"thinking": {"type": "adaptive", "display": "omitted"}}
    thinking = ask(served, **hidden).json()["content"][0]
    assert thinking["thinking"] == ""
    deltas = [data["delta"] for name, data in events_of(ask(served, stream=True, **hidden)) if name.endswith("k_delta")]
    assert [delta["type"] for delta in deltas[:2]] == ["signature_delta", "text_delta"]
    assert deltas[0]["signature"] == thinking["signature"]
    back = [BODY["messages"][0], {"role": "assistant", "content": [thinking, {"type": "text", "text": "Looking."}]}]
    ask(served, messages=[*back, {"role": "user", "content": "and?"}])
    prompt: Any = served.last_request().prompt
    assert (prompt.messages[1].reasoning, prompt.messages[1].reasoning_signature) == ("Let me see.", "")


@pytest.mark.parametrize(
    ("script", "reason", "stop_sequence"),
    [
        (script_of(HELLO), "end_turn", None),
        (ended(FinishReason.LENGTH), "max_tokens", None),
        (ended(FinishReason.LENGTH, is_context_full=True), "model_context_window_exceeded", None),
        (ended(FinishReason.STOP, "END"), "stop_sequence", "END"),
        (THINKS_AND_CALLS, "tool_use", None),
    ],
)
def test_why_an_answer_ended(serve: Serve, script: Sequence[Step], reason: str, stop_sequence: str | None) -> None:
    served = serve({"m": script})
    whole = ask(served).json()
    assert (whole["stop_reason"], whole["stop_sequence"]) == (reason, stop_sequence)
    *_, (_, delta), _ = events_of(ask(served, stream=True))
    assert delta["delta"] == {"stop_reason": reason, "stop_sequence": stop_sequence}


def test_what_turns_out_to_be_no_call_never_goes_out_as_one(serve: Serve) -> None:
    served = serve({"m": LOOKS_LIKE_A_CALL})
    text = '<tool_call>{"city": oops'
    assert ask(served).json()["content"] == [{"type": "text", "text": text}]
    blocks = [data for name, data in events_of(ask(served, stream=True)) if name.startswith("content_block")]
    assert blocks == [
        begun(0, {"type": "text", "text": ""}),
        more(0, {"type": "text_delta", "text": text}),
        {"type": "content_block_stop", "index": 0},
    ]


def test_arguments_go_out_while_they_are_written_where_nothing_can_be_withdrawn(serve: Serve) -> None:
    cut = (*THINKS_AND_CALLS[:10], WorkerDied("The worker died."))
    tools = [{"name": "get_weather", "input_schema": {"type": "object"}}]
    served = serve({"m": cut})
    free = ask(served, stream=True, tools=tools).text
    assert "input_json_delta" not in free
    for more_sent in (
        {"tools": tools, "tool_choice": {"type": "any"}},
        {"tools": [tools[0] | {"strict": True}]},
        {"tools": [tools[0] | {"eager_input_streaming": True}]},
    ):
        assert "input_json_delta" in ask(served, stream=True, **more_sent).text


def test_an_answer_without_any_part(serve: Serve) -> None:
    script = (PromptReady(3), ChoiceEnd(0, FinishReason.STOP), Finished(USAGE))
    served = serve({"m": script})
    assert ask(served).json()["content"] == []
    names = [name for name, _ in events_of(ask(served, stream=True))]
    assert names == ["message_start", "message_delta", "message_stop"]


def test_what_is_marked_for_the_cache_is_counted_as_newly_cached(serve: Serve) -> None:
    served = serve({"m": THINKS_AND_CALLS})
    marked = [{"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}]
    usage = ask(served, messages=[{"role": "user", "content": marked}]).json()["usage"]
    # 96 of 100 tokens fill blocks of the cache, and 40 of them were there
    assert usage["cache_read_input_tokens"] == 40
    assert usage["cache_creation_input_tokens"] == 56
    assert usage["input_tokens"] == 4
    unmarked = [{"type": "text", "text": '{"cache_control": {}}', "cache_control": None}]
    usage = ask(served, messages=[{"role": "user", "content": unmarked}]).json()["usage"]
    assert (usage["cache_creation_input_tokens"], usage["input_tokens"]) == (0, 60)


def test_nothing_is_generated_for_a_request_that_only_fills_the_cache(serve: Serve) -> None:
    served = serve({"m": THINKS_AND_CALLS})
    message = ask(served, max_tokens=0).json()
    assert (message["content"], message["stop_reason"]) == ([], "max_tokens")
    assert message["usage"]["output_tokens"] == 0
    assert served.last_request().sampling.max_tokens == 1
    with served.http() as client:
        refused = client.post(PATH, json=BODY | {"max_tokens": 0, "stream": True})
    assert refused.status_code == 400


@pytest.mark.parametrize("script", [(Pause(30), *script_of(HELLO)), (PromptReady(7), Pause(30))])
def test_silence_is_filled_with_pings(serve: Serve, script: Sequence[Step]) -> None:
    served = serve({"m": script}, keepalive=0.1)
    with (
        served.http() as client,
        client.stream("POST", PATH, json=BODY | {"stream": True}) as answer,
    ):
        received = ""
        for chunk in answer.iter_text():
            received += chunk
            if received.count('event: ping\ndata: {"type":"ping"}\n\n') == 3:
                break
    assert ": keep-alive" not in received


def test_an_error_in_the_middle_is_the_streams_last_event(serve: Serve) -> None:
    served = serve({"m": (*THINKS_AND_CALLS[:7], WorkerDied("The worker died."))})
    answer = ask(served, stream=True)
    name, data = events_of(answer)[-1]
    assert (name, data) == (
        "error",
        {
            "type": "error",
            "error": {"type": "api_error", "message": "The worker died."},
            "request_id": answer.headers["request-id"],
        },
    )
    assert "message_stop" not in answer.text
    with served.http() as client:
        whole = client.post(PATH, json=BODY)
    assert (whole.status_code, whole.json()["error"]["type"]) == (503, "api_error")


def test_the_query_that_beta_clients_send_changes_nothing(serve: Serve) -> None:
    with serve({"m": script_of(HELLO)}).http() as client:
        answer = client.post(f"{PATH}?beta=true", json=BODY, headers={"anthropic-beta": "unheard-of-2030-01-01"})
    assert answer.json()["content"] == [{"type": "text", "text": TEXT}]
