"""The grammar of every format allows what is well formed and nothing else; what it allows is read as it was meant."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from mlx_manager.ir import PartKind
from mlx_manager.parsing import AnswerStyle, HarmonyStyle, MarkedStyle
from mlx_manager.parsing.grammar import json_value
from tests.parsing.formats import CALLS, FORMATS, HARMONY, THINK
from tests.parsing.grammars import Vocabulary
from tests.parsing.reading import TOOLS, call, read, text

STYLES: dict[str, AnswerStyle] = {name: MarkedStyle(THINK, each) for name, each in FORMATS.items()}
STYLES["harmony"] = HarmonyStyle()
_SPECIAL = re.compile(r"<(?!.*DSML)[^ =\"]+[^/]>|\[[A-Z_/]+\]|｜DSML｜")
_MARKERS = tuple(sorted({each for style in STYLES.values() for each in style.markers if _SPECIAL.fullmatch(each)}))
_ENDS = ('"', "}", "]", ")")
_HINTS = (*_ENDS, "{", "[", ":", ",", ", ", "=", "<", ">", "(", "1", "Paris", "city", "query", "exact", "true")
WRONG: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "another tool": [("get_wether", {"city": "Paris"})],
    "another argument": [("get_weather", {"city": "Paris", "town": "Paris"})],
    "an argument missing": [("get_weather", {"days": 2})],
    "a word for a number": [("get_weather", {"city": "Paris", "days": "three"})],
    "no such choice": [("get_weather", {"city": "Paris", "units": "imperiall"})],
}


@pytest.fixture(scope="module", params=["spelled", "special"])
def vocabulary(request: pytest.FixtureRequest, starter_gguf: Path) -> Vocabulary:
    """Markers as plain text, and each of them as one token."""
    return Vocabulary(starter_gguf, _MARKERS if request.param == "special" else ())


def spell(name: str, calls: list[tuple[str, dict[str, Any]]]) -> str:
    if name != "harmony":
        return FORMATS[name].spell(calls)
    head = "<|channel|>commentary to=functions.{} <|constrain|>json<|message|>{}"
    return "".join(head.format(each, json.dumps(arguments, ensure_ascii=False)) for each, arguments in calls)


@pytest.mark.parametrize("name", STYLES)
def test_well_formed_calls_are_allowed(vocabulary: Vocabulary, name: str) -> None:
    required, free = (vocabulary.matcher(STYLES[name], TOOLS, required=each) for each in (True, False))
    for case, calls in CALLS.items():
        if name == "harmony" and len(calls) > 1:
            continue
        answer = spell(name, calls)
        assert vocabulary.accepts(required, answer), case
        assert vocabulary.accepts(free, answer), case


@pytest.mark.parametrize("name", STYLES)
def test_malformed_calls_are_not(vocabulary: Vocabulary, name: str) -> None:
    matcher = vocabulary.matcher(STYLES[name], TOOLS)
    for case, calls in WRONG.items():
        assert not vocabulary.accepts(matcher, spell(name, calls)), case
    assert not vocabulary.accepts(matcher, spell(name, CALLS["one"])[:-1])
    assert not vocabulary.accepts(matcher, "Paris is a city.")
    if name != "harmony":
        alone = vocabulary.matcher(STYLES[name], TOOLS, parallel=False)
        assert vocabulary.accepts(alone, spell(name, CALLS["one"]))
        assert not vocabulary.accepts(alone, spell(name, CALLS["several"]))


@pytest.mark.parametrize("name", FORMATS)
def test_text_and_reasoning_may_come_before(vocabulary: Vocabulary, name: str) -> None:
    style, calls = STYLES[name], spell(name, CALLS["one"])
    free = vocabulary.matcher(style, TOOLS, required=False)
    assert vocabulary.accepts(free, "Paris is a city.")
    if not FORMATS[name].begins_bare:
        assert vocabulary.accepts(free, f"Let me see.\n{calls}")
    required = vocabulary.matcher(style, TOOLS)
    assert vocabulary.accepts(required, f"<think>\nHm.\n</think>\n\n{calls}")
    assert not vocabulary.accepts(required, "<think>\nHm.\n</think>\n\nParis is a city.")
    assert not vocabulary.accepts(vocabulary.matcher(style, TOOLS, may_reason=False), f"<think>Hm.</think>{calls}")
    inside = vocabulary.matcher(style, TOOLS, starts_in_reasoning=True)
    assert vocabulary.accepts(inside, f"Hm.\n</think>\n\n{calls}")
    assert not vocabulary.accepts(inside, calls)


GREETING = {"type": "object", "properties": {"greeting": {"type": "string"}}, "required": ["greeting"]}


@pytest.mark.parametrize("name", [name for name, style in STYLES.items() if style.can_answer_in_a_form])
def test_with_a_form_the_answer_is_calls_or_has_it(vocabulary: Vocabulary, name: str) -> None:
    style, calls = STYLES[name], spell(name, CALLS["one"])
    matcher = vocabulary.matcher(style, TOOLS, form=json_value(GREETING), required=False)
    final = "<|channel|>final<|message|>{}" if name == "harmony" else "{}"
    assert vocabulary.accepts(matcher, calls)
    assert vocabulary.accepts(matcher, final.format('{"greeting": "Hello"}'))
    assert not vocabulary.accepts(matcher, final.format('{"greeting": 5}'))
    assert not vocabulary.accepts(matcher, final.format("Hello"))
    assert not vocabulary.accepts(matcher, final.format('{"greeting": "Hello"}') + calls)
    if name != "harmony":
        assert vocabulary.accepts(matcher, '<think>\nHm.\n</think>\n\n{"greeting": "Hello"}')
        assert read(style, ['{"greeting": "Hello"}']) == [text('{"greeting": "Hello"}')]


def test_calls_that_are_bare_leave_no_form_beside_them() -> None:
    assert [name for name, style in STYLES.items() if not style.can_answer_in_a_form] == ["llama3", "llama4"]


def test_harmony_may_think_and_speak_first(vocabulary: Vocabulary) -> None:
    free, required = (vocabulary.matcher(STYLES["harmony"], TOOLS, required=each) for each in (False, True))
    answered = HARMONY[0][0].removesuffix("<|return|>")
    called = HARMONY[2][0].removesuffix("<|call|>")
    assert vocabulary.accepts(free, answered)
    assert not vocabulary.accepts(required, answered)
    assert vocabulary.accepts(free, called)
    assert vocabulary.accepts(required, called)


@pytest.mark.parametrize("name", STYLES)
def test_whatever_is_allowed_is_read_as_calls_of_the_tools(vocabulary: Vocabulary, name: str) -> None:
    """Answers drawn at random from the grammar: all of it is calls, and their arguments match the schemas."""
    style = STYLES[name]
    matcher = vocabulary.matcher(style, TOOLS, may_reason=False)
    schemas = {tool.name: json.loads(tool.parameters) for tool in TOOLS}
    hints = [*style.markers, *_HINTS, *(tool.name for tool in TOOLS)]
    closing = (
        getattr(FORMATS.get(name), each, "") for each in ("value_end", "quote", "call_end", "section_end", "end")
    )
    ends = [*(each for each in closing if each), *_ENDS]
    for seed in range(4):
        answer = vocabulary.walk(matcher, hints, ends, seed)
        parts = read(style, list(answer))
        assert parts, answer
        for part in parts:
            assert part.kind is PartKind.TOOL_CALL, answer
            assert part.name is not None
            Draft202012Validator(schemas[part.name]).validate(json.loads(part.text))
        if name != "harmony":
            again = [(part.name or "", json.loads(part.text)) for part in parts]
            assert read(style, [spell(name, again)]) == [call(each, **arguments) for each, arguments in again]
