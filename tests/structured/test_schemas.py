"""Answers match their JSON Schemas, each of more than a hundred, as one of many rows of a batch."""

from __future__ import annotations

import json

import pytest
from jsonschema import Draft202012Validator

from mlx_manager.errors import MlxManagerError
from mlx_manager.ir import Answer, FinishReason
from tests.structured.asking import text_of
from tests.structured.questions import BYSTANDERS, CUT, DRAWN, NUM_CUT_TOKENS
from tests.structured.schemas import SCHEMAS

Asked = dict[str, Answer | MlxManagerError]
CASES = [("greedy", name) for name in SCHEMAS] + [("drawn", name) for name in DRAWN]


@pytest.mark.parametrize(("how", "name"), CASES)
def test_answer_matches_its_schema(answers: Asked, how: str, name: str) -> None:
    answer = answers[f"{how} {name}"]
    text = text_of(answer)
    assert isinstance(answer, Answer)
    assert answer.choices[0].finish_reason is FinishReason.STOP, text
    validator = Draft202012Validator(SCHEMAS[name], format_checker=Draft202012Validator.FORMAT_CHECKER)
    validator.validate(json.loads(text))


def test_there_are_enough_of_them() -> None:
    assert len({json.dumps(schema, sort_keys=True) for schema in SCHEMAS.values()}) >= 100


@pytest.mark.parametrize("name", CUT)
def test_an_answer_cut_by_its_length_is_the_beginning_of_one(answers: Asked, name: str) -> None:
    answer = answers[name]
    assert isinstance(answer, Answer)
    assert answer.choices[0].finish_reason is FinishReason.LENGTH
    assert answer.usage.num_completion_tokens == NUM_CUT_TOKENS
    assert text_of(answer).startswith("{")
    with pytest.raises(json.JSONDecodeError):
        json.loads(text_of(answer))


@pytest.mark.parametrize("name", BYSTANDERS)
def test_rows_without_a_grammar_answer_as_if_alone(answers: Asked, name: str) -> None:
    among, alone = answers[name], answers[f"{name}, alone"]
    assert isinstance(among, Answer)
    assert isinstance(alone, Answer)
    assert among.choices == alone.choices
