"""Families are told by config and template: format of calls, reasoning, stop tokens, what templates leave out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mlx_manager.hub.characteristics import has_thinking, has_tools
from mlx_manager.models.calls import CallRules
from mlx_manager.models.families import FAMILIES, find_family
from mlx_manager.models.style import ModelStyle, stop_token_ids
from mlx_manager.models.tokens import Vocabulary
from mlx_manager.parsing import MarkedStyle
from tests.models.templates import FOLDER, TOLD, fixes_of, style_of, template_of, tokenizer_of
from tests.parsing.reading import call, read, reasoning

DOCS = Path(__file__).parents[2] / "docs" / "families.md"


def test_every_template_is_told() -> None:
    assert sorted(file.stem for file in FOLDER.glob("*.jinja")) == sorted(TOLD)


@pytest.mark.parametrize("name", TOLD)
def test_a_model_is_told_by_its_config_and_template(name: str) -> None:
    told, style = TOLD[name], style_of(name)
    assert style.family.name == told.family
    assert style.warning == ""
    answers = style.answers
    if isinstance(answers, MarkedStyle):
        assert answers.tools is not None
        assert answers.tools.name == told.tools
        assert (answers.reasoning.begin if answers.reasoning else "") == told.reasoning
    else:
        assert (told.tools, told.reasoning) == ("harmony", "<|channel|>analysis")
    assert fixes_of(style) == told.fixes


@pytest.mark.parametrize("name", TOLD)
def test_the_hub_says_the_same_without_loading_anything(name: str) -> None:
    style, template = style_of(name), template_of(name)
    assert has_tools(template) == style.template.traits.shows_tools
    assert has_thinking(template) == bool(TOLD[name].reasoning)


@pytest.mark.parametrize("name", TOLD)
def test_mlx_lm_infers_the_same_format_or_none(name: str) -> None:
    parse = tokenizer_of(template_of(name)).tool_parser
    inferred = str(parse.__module__).rsplit(".", 1)[-1] if parse else None
    assert inferred == TOLD[name].library


def test_a_tuned_model_is_told_by_its_template() -> None:
    assert find_family("llama", template_of("hermes-3")).name == "Hermes"
    assert find_family("qwen2", template_of("deepseek-r1-distill")).name == "DeepSeek R1 distilled"
    assert find_family("step3p5", template_of("qwen3-coder")).name == "Qwen3-Coder, Qwen3.5"
    assert find_family("qwen3_moe", template_of("glm-4.6")).name == "GLM-4.5 and later"


def test_without_a_template_the_config_tells() -> None:
    told = {"llama": "Llama 2, 3, CodeLlama", "gemma3_text": "Gemma 1 to 3, 3n", "deepseek_v32": "DeepSeek V3.2"}
    assert {model_type: find_family(model_type, "").name for model_type in told} == told


def test_an_unknown_family_is_served_with_a_warning() -> None:
    talks = "{% for message in messages %}{{ message.role + ': ' + message.content }}{% endfor %}"
    style = ModelStyle.of(tokenizer_of(talks), "brand_new")
    assert style.family.name == "generic"
    assert "models of type 'brand_new' are not known here" in style.warning
    # its template shows no tools, so that they are described to it, and it is told how to call
    assert isinstance(style.answers, MarkedStyle)
    assert style.answers.tools is not None
    assert style.answers.tools.name == "hermes"

    shows = talks + "{{ tools | tojson }}"
    style = ModelStyle.of(tokenizer_of(shows), "brand_new")
    assert "how models of type 'brand_new' write tool calls is not known here" in style.warning


def test_formats_that_only_mlx_lm_knows_are_read_by_it() -> None:
    template = (
        "{{ tools | tojson if tools }}{% for message in messages %}{{ message.role + message.content }}{% endfor %}"
        """Call as <function name="f"><param name="x">1</param></function>"""
    )
    style = ModelStyle.of(tokenizer_of(template), "minicpm5")
    assert isinstance(style.answers, MarkedStyle)
    assert style.answers.tools is not None
    assert style.answers.tools.name == "mlx-lm's minicpm5"
    assert "read by mlx-lm's minicpm5" in style.warning
    with pytest.raises(ValueError, match="cannot constrain"):
        style.answers.lark((), parallel=True, required=True)


def test_stop_tokens_of_the_family_end_an_answer() -> None:
    tokenizer = tokenizer_of(template_of("llama-3.1"), ("<|eot_id|>", "<|eom_id|>", "<|other|>"))
    found = {tokenizer.convert_ids_to_tokens(token_id) for token_id in stop_token_ids(tokenizer, "llama")}
    assert found == {"<|eot_id|>", "<|eom_id|>"}


@pytest.mark.parametrize(
    ("name", "tokens", "answer"),
    [
        (
            "gemma-4",
            ("<|channel>", "<channel|>", "<|tool_call>", "<tool_call|>", '<|"|>'),
            '<|channel>thought\nHm.\n<channel|><|tool_call>call:get_weather{city:<|"|>Paris<|"|>}<tool_call|>',
        ),
        (
            "deepseek-v4",
            ("｜DSML｜", "<think>", "</think>"),
            "<think>Hm.</think>\n\n<｜DSML｜tool_calls>\n"
            '<｜DSML｜invoke name="get_weather">\n'
            '<｜DSML｜parameter name="city" string="true">Paris</｜DSML｜parameter>\n'
            "</｜DSML｜invoke>\n</｜DSML｜tool_calls>",
        ),
    ],
)
def test_special_tokens_inside_markers_are_spelled(name: str, tokens: tuple[str, ...], answer: str) -> None:
    """From tokens to parts, as the worker does it: where one of them went missing, so would the part."""
    tokenizer = tokenizer_of(template_of(name), tokens)
    style = ModelStyle.of(tokenizer, TOLD[name].model_type).answers
    special_ids = CallRules.of(style, tokenizer).special_ids
    assert set(special_ids) == set(tokens)
    decoder = Vocabulary(tokenizer).decoder(frozenset(special_ids.values()))
    pieces = [decoder.add(token_id) for token_id in tokenizer.encode(answer, add_special_tokens=False)]
    assert read(style, pieces) == [reasoning("Hm."), call("get_weather", city="Paris")]
    assert "".join(pieces) == answer


@pytest.mark.parametrize("name", ["gemma-3", "gemma-4", "ministral-3", "mistral-small-3.2", "qwen3.5"])
def test_pictures_are_where_the_template_puts_them(name: str) -> None:
    tokenizer = tokenizer_of(template_of(name))
    content = [{"type": "image"}, {"type": "text", "text": "What is this?"}]
    rendered = tokenizer.apply_chat_template([{"role": "user", "content": content}], tokenize=False)
    assert str(rendered).count(style_of(name).family.image_token) == 1


def test_the_docs_list_every_family_and_what_its_template_needs() -> None:
    rows = dict(re.findall(r"^\| `([a-z0-9.-]+)` \| ([^|]*) \|", DOCS.read_text(encoding="utf-8"), re.MULTILINE))
    assert rows == {name: told.fixes or "nothing" for name, told in TOLD.items()}
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)
