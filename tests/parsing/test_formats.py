"""What models write is understood, however it comes in pieces; and what is no call goes out as it was written."""

from __future__ import annotations

import json
import random

import pytest

from mlx_manager.ir import PartKind
from mlx_manager.parsing import AnswerParser, AnswerStyle, HarmonyStyle, MarkedStyle
from tests.parsing.formats import CALLS, FORMATS, HARMONY, RECORDED, THINK, THOUGHT
from tests.parsing.reading import TOOLS, Part, call, raw, read, reasoning, splits, text

NUM_SPLITS = 200
CASES = [
    (MarkedStyle(THINK, FORMATS[name]), written, parts) for name, each in RECORDED.items() for written, parts in each
]
_IDS = [f"{name}-{index}" for name, each in RECORDED.items() for index in range(len(each))]


def test_every_format_has_recorded_answers() -> None:
    assert len(FORMATS) >= 22
    assert sorted(RECORDED) == sorted(FORMATS)


@pytest.mark.parametrize(("style", "written", "parts"), CASES, ids=_IDS)
def test_recorded_answers(style: AnswerStyle, written: str, parts: list[Part]) -> None:
    assert read(style, [written]) == parts
    for pieces in splits(written, NUM_SPLITS):
        assert read(style, pieces) == parts, pieces


@pytest.mark.parametrize(("style", "written", "is_begun", "parts"), THOUGHT)
def test_reasoning(style: MarkedStyle, written: str, is_begun: bool, parts: list[Part]) -> None:
    for pieces in [[written], *splits(written, NUM_SPLITS)]:
        assert read(style, pieces, starts_in_reasoning=is_begun) == parts, pieces


@pytest.mark.parametrize(("written", "parts"), HARMONY)
def test_harmony(written: str, parts: list[Part]) -> None:
    for pieces in [[written], *splits(written, NUM_SPLITS)]:
        assert read(HarmonyStyle(), pieces) == parts, pieces


@pytest.mark.parametrize("calls", CALLS)
@pytest.mark.parametrize("name", FORMATS)
def test_what_is_spelled_is_read(name: str, calls: str) -> None:
    """Behind reasoning, and behind text where the format has markers."""
    tool_format = FORMATS[name]
    style = MarkedStyle(THINK, tool_format)
    expected = [call(each, **arguments) for each, arguments in CALLS[calls]]
    spelled = tool_format.spell(CALLS[calls])
    is_bare = bool(tool_format.begins_bare)
    before = "<think>Hm.</think>\n" if is_bare else "<think>Hm.</think>\n\nLet me see.\n"
    parts = [reasoning("Hm."), *([] if is_bare else [text("Let me see.")]), *expected]
    for pieces in [[before + spelled], *splits(before + spelled, 40)]:
        assert read(style, pieces) == parts, pieces


@pytest.mark.parametrize("name", FORMATS)
def test_an_answer_cut_short_loses_nothing_and_leaks_nothing(name: str) -> None:
    """At every place: calls that are complete are calls, and what is not comes as it was written."""
    tool_format = FORMATS[name]
    style = MarkedStyle(THINK, tool_format)
    written = tool_format.spell(CALLS["several"])
    whole = read(style, [written])
    for length in range(len(written)):
        parts = read(style, list(written[:length]))
        calls = [part for part in parts if part.kind is PartKind.TOOL_CALL]
        assert calls == whole[: len(calls)]
        if not calls:
            assert "".join(part.text for part in parts).strip() == written[:length].strip()
        if calls == whole:
            assert len(parts) == len(calls), parts


@pytest.mark.parametrize("name", FORMATS)
def test_a_required_call_cut_short_is_never_text(name: str) -> None:
    """At every place: what there is of a call is its beginning; before its name is known there is nothing of it."""
    written = FORMATS[name].spell(CALLS["several"])
    style = MarkedStyle(THINK, FORMATS[name])
    whole = raw(style, [written])
    for length in range(len(written)):
        parts = raw(style, [written[:length]], is_cut=True)
        assert [part.kind for part in parts] == [PartKind.TOOL_CALL] * len(parts), (written[:length], parts)
        for part, complete in zip(parts, whole, strict=False):
            assert part.name == complete.name
            assert complete.text.startswith(part.text)
            assert part.text == complete.text or part is parts[-1]


def test_a_call_cut_short_on_a_channel_is_its_beginning() -> None:
    header = "<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>"
    (part,) = raw(HarmonyStyle(), [header + '{"city": "Par'], is_cut=True)
    assert (part.kind, part.name, part.text) == (PartKind.TOOL_CALL, "get_weather", '{"city": "Par')
    assert raw(HarmonyStyle(), [header[:40]], is_cut=True) == []


def test_behind_a_call_the_beginning_of_another_is_no_text() -> None:
    """Also where nothing is enforced: a model that has called once calls again."""
    style = MarkedStyle(THINK, FORMATS["hermes"])
    made = '<tool_call>\n{"name": "ping", "arguments": {}}\n</tool_call>\n'
    for more in ("<tool", "<tool_call>", '<tool_call>\n{"name": "get_w'):
        assert raw(style, [made + more], is_cut=True, is_required=False) == [call("ping")]
    assert raw(style, [made + "Then <"], is_cut=True, is_required=False) == [call("ping"), text("Then <")]
    assert raw(style, ["<tool"], is_cut=True, is_required=False) == [text("<tool")]


@pytest.mark.parametrize("name", FORMATS)
def test_what_only_looks_like_a_call_is_text(name: str) -> None:
    tool_format = FORMATS[name]
    style = MarkedStyle(THINK, tool_format)
    for begin in tool_format.begins or ("[",):
        written = f"See {begin} no call at all"
        for pieces in [[written], *splits(written, 40)]:
            assert read(style, pieces) == [text(written)], pieces


@pytest.mark.parametrize("name", FORMATS)
def test_without_tools_markers_of_calls_are_text(name: str) -> None:
    written = FORMATS[name].spell(CALLS["one"])
    assert read(MarkedStyle(THINK, FORMATS[name]), list(written), tools=()) == [text(written)]


@pytest.mark.parametrize("name", FORMATS)
def test_arguments_go_out_while_they_are_written(name: str) -> None:
    """Half of a long text has come: half of it, or nearly, has gone out."""
    tool_format = FORMATS[name]
    written = tool_format.spell([("web-search", {"query": "words and words " * 40})])
    parser = AnswerParser(0, MarkedStyle(THINK, tool_format), TOOLS)
    events = parser.feed(written[: len(written) // 2])
    streamed = "".join(getattr(event, "text", "") for event in events)
    assert len(streamed) > len(written) // 2 - 150
    assert streamed.startswith('{"query"')


def test_what_strings_mean_is_told_by_the_schema() -> None:
    """A city whose name is a number stays one; a number of days is none that is a text."""
    written = (
        "<tool_call>\n<function=get_weather>\n<parameter=city>\n12\n</parameter>\n<parameter=days>\n3\n</parameter>"
    )
    written += (
        "\n<parameter=units>\nmetric\n</parameter>\n<parameter=other>\n7\n</parameter>\n</function>\n</tool_call>"
    )
    (part,) = read(MarkedStyle(None, FORMATS["qwen3-coder"]), [written])
    assert json.loads(part.text) == {"city": "12", "days": 3, "units": "metric", "other": 7}


@pytest.mark.parametrize("name", [*FORMATS, "harmony"])
def test_random_text_never_fails(name: str) -> None:
    """Markers and pieces of calls in any order: parts come out in their order, arguments are JSON."""
    style: AnswerStyle = HarmonyStyle() if name == "harmony" else MarkedStyle(THINK, FORMATS[name])
    spelled = HARMONY[2][0] if name == "harmony" else FORMATS[name].spell(CALLS["all types"])
    alphabet = [*style.markers, *splits_of(spelled), "{", "}", '"', "[", "]", "\n", " ", ",", ":", "a", "1", "\\", "é"]
    for pieces in shuffled(alphabet, 150):
        in_pieces = read(style, pieces)
        assert read(style, ["".join(pieces)]) == in_pieces


def splits_of(written: str) -> list[str]:
    return [piece for pieces in splits(written, 3) for piece in pieces]


def shuffled(alphabet: list[str], number: int) -> list[list[str]]:
    drawn = random.Random(7)
    return [drawn.choices(alphabet, k=drawn.randint(1, 30)) for _ in range(number)]
