"""Answers match their JSON Schemas, each of more than a hundred, as one of many rows of a batch."""

from __future__ import annotations

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from mlx_manager.ir import Answer, FinishReason, PartKind
from tests.structured.questions import BYSTANDERS, CUT, NUM_CUT_TOKENS
from tests.structured.schemas import SCHEMAS


def text_of(answer: Answer) -> str:
    return answer.choices[0].text_of(PartKind.TEXT)


def check(value: Any, schema: dict[str, Any]) -> None:
    Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(value)


@pytest.mark.parametrize("how", ["greedy", "drawn"])
@pytest.mark.parametrize("name", SCHEMAS)
def test_answer_matches_its_schema(answers: dict[str, Answer], name: str, how: str) -> None:
    answer = answers[f"{how} {name}"]
    text = text_of(answer)
    assert answer.choices[0].finish_reason is FinishReason.STOP, text
    check(json.loads(text), SCHEMAS[name])


def test_there_are_enough_of_them() -> None:
    assert len({json.dumps(schema, sort_keys=True) for schema in SCHEMAS.values()}) >= 100


@pytest.mark.parametrize("name", CUT)
def test_an_answer_cut_by_its_length_is_the_beginning_of_one(answers: dict[str, Answer], name: str) -> None:
    answer = answers[name]
    assert answer.choices[0].finish_reason is FinishReason.LENGTH
    assert answer.usage.num_completion_tokens == NUM_CUT_TOKENS
    assert text_of(answer).lstrip().startswith("{")
    with pytest.raises(json.JSONDecodeError):
        json.loads(text_of(answer))


@pytest.mark.parametrize("name", BYSTANDERS)
def test_rows_without_a_grammar_answer_as_if_alone(answers: dict[str, Answer], name: str) -> None:
    assert answers[name].choices == answers[f"{name}, alone"].choices
