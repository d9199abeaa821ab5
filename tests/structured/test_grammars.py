"""Regular expressions, Lark grammars, forks and stop strings under a grammar; what cannot be enforced is named."""

from __future__ import annotations

import json
import re

import pytest

from mlx_manager.errors import InvalidRequest, MlxManagerError
from mlx_manager.ir import Answer, FinishReason, GrammarKind
from tests.structured.asking import text_of
from tests.structured.questions import GRAMMARS, REFUSED

Asked = dict[str, Answer | MlxManagerError]
LARK_AS_REGEX = {
    "lark: a sum": r"\d{1,2}(\+\d{1,2}){1,3}=\d{1,2}",
    "lark: parentheses": r"\(+x\)+",
    "lark: a command": "(open|close) (door|window)",
}


@pytest.mark.parametrize("how", ["", "drawn "])
@pytest.mark.parametrize("name", GRAMMARS)
def test_answer_matches_its_grammar(answers: Asked, name: str, how: str) -> None:
    answer = answers[f"{how}{name}"]
    text = text_of(answer)
    assert isinstance(answer, Answer)
    assert answer.choices[0].finish_reason is FinishReason.STOP, text
    grammar = GRAMMARS[name]
    pattern = grammar.text if grammar.kind is GrammarKind.REGEX else LARK_AS_REGEX[name]
    assert re.fullmatch(pattern, text), text
    assert text.count("(") == text.count(")")


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_enforced_is_refused_by_name(answers: Asked, name: str) -> None:
    error = answers[f"refused {name}"]
    grammar, named = REFUSED[name]
    assert isinstance(error, InvalidRequest), error
    assert error.status == 400
    assert error.param == grammar.param
    assert error.message.startswith(grammar.param)
    assert named in error.message, error.message


def test_every_choice_of_a_request_follows_its_own_copy_of_the_grammar(answers: Asked) -> None:
    texts = [text_of(answers["forked"], choice) for choice in range(3)]
    assert len(set(texts)) > 1
    assert all(set(json.loads(text)) == {"name", "age"} for text in texts)


def test_a_stop_string_ends_a_constrained_answer(answers: Asked) -> None:
    answer = answers["stopped"]
    assert isinstance(answer, Answer)
    assert answer.choices[0].stop_sequence == '"age"'
    assert text_of(answer).rstrip().endswith(",")


def test_any_object_begins_as_one(answers: Asked) -> None:
    text = text_of(answers["any object"])
    answer = answers["any object"]
    assert isinstance(answer, Answer)
    if answer.choices[0].finish_reason is FinishReason.STOP:
        assert isinstance(json.loads(text), dict)
    else:
        assert text.startswith("{")
