"""Tool calls that cannot be malformed, on a model that never learnt to call: its template knows no tools."""

from __future__ import annotations

import json

import pytest
from jsonschema import Draft202012Validator

from mlx_manager.errors import InvalidRequest, MlxManagerError
from mlx_manager.ir import Answer, Choice, FinishReason, PartKind
from tests.structured.calls import ARGUMENTS, CALLED, CALLS, NUM_CUT_TOKENS

Asked = dict[str, Answer | MlxManagerError]


@pytest.mark.parametrize("name", CALLED)
def test_calls_match_the_schemas_of_their_tools(answers: Asked, name: str) -> None:
    answer = answers[name]
    assert isinstance(answer, Answer), answer
    assert len(answer.choices) == CALLS[name].num_choices
    for choice in answer.choices:
        assert choice.finish_reason is FinishReason.TOOL_CALLS, choice
        (call,) = choice.parts
        assert call.kind is PartKind.TOOL_CALL
        assert call.call_id is not None
        assert call.tool_name is not None
        schema = CALLED[name][call.tool_name]
        Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(json.loads(call.text))
    ids = {part.call_id for choice in answer.choices for part in choice.parts}
    assert len(ids) == len(answer.choices)


def test_there_are_enough_of_them() -> None:
    assert len({json.dumps(schema, sort_keys=True) for schema in ARGUMENTS.values()}) >= 20


def test_a_call_cut_by_its_length_ends_with_the_arguments_it_has(answers: Asked) -> None:
    answer = answers["call: cut"]
    assert isinstance(answer, Answer)
    for choice in answer.choices:
        assert choice.finish_reason is FinishReason.LENGTH
        (call,) = choice.parts
        assert (call.kind, call.tool_name) == (PartKind.TOOL_CALL, "order")
        assert call.text.startswith("{")
        with pytest.raises(ValueError, match=r"Expecting|Unterminated"):
            json.loads(call.text)
    assert answer.usage.num_completion_tokens == 2 * NUM_CUT_TOKENS


def test_a_strict_tool_leaves_the_text_free(answers: Asked) -> None:
    answer = answers["strict: free"]
    assert isinstance(answer, Answer)
    (choice,) = answer.choices
    assert calls_of(choice) == []
    assert choice.text_of(PartKind.TEXT)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("call: not enforceable", 'Unimplemented keys: ["uniqueItems"]'),
        ("call: loop", "the reference '#/$defs/N' leads only back to itself"),
    ],
)
def test_a_schema_that_cannot_be_enforced_is_refused_by_its_tool_and_feature(
    answers: Asked, name: str, reason: str
) -> None:
    refused = answers[name]
    assert isinstance(refused, InvalidRequest)
    assert refused.param == "tools"
    assert refused.message == f"tools cannot be enforced: the parameters of the tool 'odd': {reason}"


def calls_of(choice: Choice) -> list[str]:
    return [part.text for part in choice.parts if part.kind is PartKind.TOOL_CALL]
