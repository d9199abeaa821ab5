"""What models are asked: their own templates as transformers renders them, and what those leave out made up for."""

from __future__ import annotations

import json
from datetime import datetime
from functools import cache
from typing import Any

import pytest
from mlx_lm.chat_templates import deepseek_v32
from mlx_lm.tokenizer_utils import TokenizerWrapper
from msgspec.structs import replace

from mlx_manager.errors import InvalidRequest
from mlx_manager.ir import ChatPrompt, Message, Role, Thinking, ToolChoice, ToolChoiceMode
from mlx_manager.models.prompt import PromptBuilder
from mlx_manager.models.style import ModelStyle
from tests.models.rendered import CONVERSATION, PROMPT, RENDERED, SCHEMA, TOOL, called, render, said, without_date
from tests.models.templates import TOLD, style_of, template_of, tokenizer_of

FUNCTION = {"name": "get_weather", "description": "Weather of a city", "parameters": SCHEMA}
TOOLS = [{"type": "function", "function": FUNCTION}]
SYSTEM, USER = {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Paris?"}
ASSISTANT, AGAIN = {"role": "assistant", "content": "It rains."}, {"role": "user", "content": "And Rome?"}
TALK = ChatPrompt(messages=(said(Role.USER, "Paris?"), said(Role.ASSISTANT, "It rains."), said(Role.USER, "And Rome?")))

known_style = cache(style_of)


def reference(name: str, messages: list[dict[str, Any]], **more: Any) -> str:
    """What transformers makes of `messages`, with thinking as mlx-lm leaves it."""
    wrapped = tokenizer_of(template_of(name))
    variables = {"enable_thinking": wrapped.has_thinking} | more
    text = wrapped._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **variables)
    return without_date(str(text))


@pytest.mark.parametrize("name", TOLD)
def test_the_kept_conversation_is_rendered_as_it_was(name: str) -> None:
    rendered = render(name)
    assert rendered == (RENDERED / f"{name}.txt").read_text(encoding="utf-8")
    for word in ("Be brief.", "Paris", "Rome", "18 degrees", "25 degrees", "Answer in French.", "I mean.", TOOL.name):
        assert word in rendered, word


@pytest.mark.parametrize("name", TOLD)
def test_plain_talk_is_rendered_as_transformers_does_it(name: str) -> None:
    dates = {"date_string": datetime.now().astimezone().strftime("%d %b %Y"), "current_date": "TODAY"}
    style = style_of(name)
    assert without_date(style.template.render(TALK)) == reference(name, [USER, ASSISTANT, AGAIN], **dates)
    if style.template.traits.takes_system:
        prompt = replace(TALK, messages=(said(Role.SYSTEM, "Be brief."), *TALK.messages))
        rendered = without_date(style.template.render(prompt))
        assert rendered == reference(name, [SYSTEM, USER, ASSISTANT, AGAIN], **dates)


@pytest.mark.parametrize("name", [name for name, told in TOLD.items() if not told.fixes])
def test_a_template_that_takes_everything_gets_what_was_said(name: str) -> None:
    messages = [
        {"role": message.role.value, "content": message.text}
        | ({"reasoning_content": message.reasoning} if message.reasoning else {})
        | ({"tool_call_id": message.tool_call_id} if message.tool_call_id else {})
        | (
            {
                "tool_calls": [
                    {
                        "id": call.call_id,
                        "type": "function",
                        "function": {"name": call.name, "arguments": json.loads(call.arguments)},
                    }
                    for call in message.tool_calls
                ]
            }
            if message.tool_calls
            else {}
        )
        for message in CONVERSATION
    ]
    assert render(name) == reference(name, messages, tools=TOOLS, current_date="TODAY")


def test_instructions_that_are_refused_are_said_by_the_user() -> None:
    prompt = ChatPrompt(messages=(said(Role.SYSTEM, "Be brief."), said(Role.USER, "Paris?")))
    assert style_of("gemma-2").template.render(prompt) == reference(
        "gemma-2", [{"role": "user", "content": "Be brief.\n\nParis?"}]
    )


def test_calls_that_a_template_leaves_out_are_written_as_the_model_writes_them() -> None:
    history = (
        said(Role.USER, "Paris?"),
        said(Role.ASSISTANT, "Let me see.", tool_calls=(called("call_1", city="Paris", days=2),)),
        said(Role.TOOL, "18 degrees", tool_call_id="call_1"),
    )
    spelled = {
        "lfm2": 'Let me see.\n<|tool_call_start|>[get_weather(city="Paris", days=2)]<|tool_call_end|>',
        "granite-3.3": 'Let me see.\n<|tool_call|>[{"name": "get_weather", "arguments": {"city": "Paris", "days": 2}}]'
        "</tool_call>",
    }
    for name, text in spelled.items():
        messages = [USER, {"role": "assistant", "content": text}, {"role": "tool", "content": "18 degrees"}]
        rendered = without_date(style_of(name).template.render(ChatPrompt(messages=history, tools=(TOOL,))))
        assert rendered == reference(name, messages, tools=TOOLS)


def test_ids_are_shortened_where_a_template_wants_nine_letters() -> None:
    rendered = render("mistral-nemo")
    call_id = json.loads(rendered.split("[TOOL_CALLS]")[1].split("</s>")[0])[0]["id"]
    assert call_id.isalnum()
    assert len(call_id) == 9
    assert f'[TOOL_RESULTS]{{"content": 18 degrees, "call_id": "{call_id}"}}' in rendered


def test_several_calls_become_one_each_where_a_template_shows_only_one() -> None:
    arguments = [{"city": "Paris"}, {"city": "Rome", "days": 2}]
    calls: list[dict[str, Any]] = [
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"type": "function", "function": {"name": "get_weather", "arguments": each}}],
        }
        for each in arguments
    ]
    calls[0]["thinking"] = "Two cities."
    results = [{"role": "tool", "content": text} for text in ("18 degrees", "25 degrees")]
    messages = [SYSTEM, USER, calls[0], results[0], calls[1], results[1]]
    prompt = ChatPrompt(messages=(CONVERSATION[0], said(Role.USER, "Paris?"), *CONVERSATION[2:5]), tools=(TOOL,))
    assert without_date(style_of("gpt-oss").template.render(prompt)) == reference("gpt-oss", messages, tools=TOOLS)


def test_tools_that_a_template_leaves_out_are_described_as_the_makers_say() -> None:
    prompt = ChatPrompt(messages=(said(Role.SYSTEM, "Be brief."), said(Role.USER, "Paris?")), tools=(TOOL,))
    rendered = style_of("deepseek-v3.1").template.render(prompt)
    assert f"### get_weather\nDescription: Weather of a city\n\nParameters: {json.dumps(SCHEMA)}" in rendered
    assert "tool_call_arguments<｜tool▁call▁end｜>" in rendered
    rendered = style_of("deepseek-v3").template.render(prompt)
    assert f"- `get_weather`:\n```json\n{json.dumps(FUNCTION)}\n```" in rendered
    assert "function<｜tool▁sep｜>NAME\n```json\nARGUMENTS\n```<｜tool▁call▁end｜>" in rendered
    # those of other families are described in the form of Hermes
    assert "<tools>" in style_of("gemma-3").template.render(prompt)


def test_a_template_that_wants_tools_in_the_system_message_gets_them_there() -> None:
    prompt = ChatPrompt(messages=(said(Role.USER, "Paris?"),), tools=(TOOL,))
    assert f"<|tool|>{json.dumps([FUNCTION])}<|/tool|>" in style_of("phi-4-mini").template.render(prompt)


def test_a_renderer_of_the_library_stands_in_for_a_template() -> None:
    """mlx-lm's of DeepSeek V3.2 shows tools behind a system message only, and wants arguments as text."""
    tokenizer = tokenizer_of("", ("<think>", "</think>"))._tokenizer
    tokenizer.chat_template = None
    style = ModelStyle.of(TokenizerWrapper(tokenizer, chat_template=deepseek_v32.apply_chat_template), "deepseek_v32")
    assert (style.family.name, style.warning) == ("DeepSeek V3.2", "")
    history = (said(Role.USER, "Paris?"), *CONVERSATION[2:5])
    rendered = style.template.render(ChatPrompt(messages=history, tools=(TOOL,)))
    assert rendered.count('{"name": "get_weather", "description"') == 1
    assert '<｜DSML｜parameter name="city" string="true">Rome</｜DSML｜parameter>' in rendered
    assert style.answers.starts_in_reasoning(rendered)


@pytest.mark.parametrize(
    ("name", "is_enabled", "ending"),
    [
        ("qwen3", True, "<|im_start|>assistant\n"),
        ("qwen3", False, "<think>\n\n</think>\n\n"),
        ("deepseek-v3.1", True, "<｜Assistant｜><think>"),
        ("deepseek-v3.1", False, "<｜Assistant｜><think></think>"),
        ("glm-4.7", False, "<|assistant|></think>"),
        ("gemma-4", False, "<|channel>thought\n<channel|>"),
        ("gemma-4", True, "<|turn>model\n"),
        ("nemotron-3", False, "<think></think>"),
        ("smollm3", False, "<think>\n\n</think>\n"),
    ],
)
def test_thinking_is_switched(name: str, is_enabled: bool, ending: str) -> None:
    prompt = replace(TALK, thinking=Thinking(is_enabled=is_enabled))
    assert style_of(name).template.render(prompt).endswith(ending)


def test_thinking_is_switched_by_the_variable_that_the_template_knows() -> None:
    granite = style_of("granite-3.3").template
    assert "between <think></think>" in granite.render(replace(TALK, thinking=Thinking(is_enabled=True)))
    assert "between <think></think>" not in granite.render(replace(TALK, thinking=Thinking(is_enabled=False)))
    seed = style_of("seed-oss").template
    assert seed.render(replace(TALK, thinking=Thinking(is_enabled=False))) != seed.render(TALK)
    oss = style_of("gpt-oss").template
    assert "Reasoning: high" in oss.render(replace(TALK, thinking=Thinking(effort="high")))


def test_whether_an_answer_begins_as_reasoning_is_told_by_the_prompt() -> None:
    inside = {
        name
        for name in TOLD
        if style_of(name).answers.starts_in_reasoning(style_of(name).template.render(replace(TALK, thinking=_ON)))
    }
    assert inside == {
        "deepseek-r1-distill",
        "deepseek-v3.1",
        "deepseek-v3.2",
        "deepseek-v4",
        "glm-4.7",
        "minimax-m2",
        "nemotron-3",
        "nemotron-nano-2",
        "qwen3.5",
        "qwq",
    }


_ON = Thinking(is_enabled=True)


def test_the_date_of_today_is_told() -> None:
    assert f"Today Date: {datetime.now().astimezone():%d %b %Y}" in style_of("llama-3.1").template.render(TALK)
    own = replace(TALK, template_kwargs={"date_string": "1 Jan 2000"})
    assert "Today Date: 1 Jan 2000" in style_of("llama-3.1").template.render(own)


def test_tools_that_may_not_be_called_are_not_shown() -> None:
    prompt = replace(PROMPT, messages=CONVERSATION[:2], tool_choice=ToolChoice(mode=ToolChoiceMode.NONE))
    assert "get_weather" not in style_of("qwen3").template.render(prompt)


def test_what_a_template_refuses_for_good_is_the_client_s_mistake() -> None:
    wrapped = tokenizer_of("{{ raise_exception('Roles must alternate') }}")
    builder = PromptBuilder(wrapped, ModelStyle.of(wrapped, "gemma2").template, 300)
    with pytest.raises(InvalidRequest, match="refuses the messages: Roles must alternate"):
        builder.build(ChatPrompt(messages=(said(Role.USER, "Hello"),)))


_CALL = called("call_0a1b2c3d4e5f60718293a4b5", city="Oslo")
_ASKS, _CALLS = said(Role.USER, "First."), said(Role.ASSISTANT, tool_calls=(_CALL,))
_RESULT = said(Role.TOOL, "18 degrees", tool_call_id=_CALL.call_id)
_RULES, _ANSWERS, _GOES_ON = said(Role.SYSTEM, "Rules."), said(Role.ASSISTANT, "Second."), said(Role.USER, "Third.")
SHAPES: tuple[tuple[Message, ...], ...] = (
    (_RULES,),
    (_ANSWERS, _GOES_ON),
    (_RULES, _ANSWERS, _GOES_ON),
    (_RULES, _ASKS, _CALLS, _RESULT),
    (_ASKS, _CALLS, _RESULT, _GOES_ON),
    (_ASKS, _CALLS, _GOES_ON),
    (_ASKS, _CALLS, _RESULT, said(Role.SYSTEM, "Late."), _GOES_ON),
    (_ASKS, _CALLS, _RESULT, _ANSWERS, _GOES_ON, _CALLS, _RESULT, said(Role.USER, "Fourth.")),
    (_ASKS, replace(_CALLS, tool_calls=(_CALL, called("call_1", city="Rome"))), _RESULT, _GOES_ON),
    (_ASKS, _RESULT),
)
"""What agents send, and some template would refuse or lose in part."""


@pytest.mark.parametrize("messages", SHAPES, ids=lambda messages: " ".join(message.role.value for message in messages))
def test_no_template_refuses_or_loses_what_agents_send(messages: tuple[Message, ...]) -> None:
    texts = [message.text for message in messages if message.text]
    texts += [call.arguments.split('"')[3] for message in messages for call in message.tool_calls]
    for name in TOLD:
        style = known_style(name)
        for tools in ((), (TOOL,)):
            rendered = style.template.render(ChatPrompt(messages=messages, tools=tools))
            places = [rendered.find(text) for text in texts]
            assert -1 not in places, f"{name} loses {texts[places.index(-1)]!r} {bool(tools)}"


def test_an_answer_is_put_between_a_result_and_the_user_where_a_template_wants_one() -> None:
    prompt = ChatPrompt(messages=(_ASKS, _CALLS, _RESULT, _GOES_ON), tools=(TOOL,))
    rendered = known_style("mistral-nemo").template.render(prompt)
    assert '"}[/TOOL_RESULTS]OK.</s>[AVAILABLE_TOOLS]' in rendered
    assert rendered.endswith("[INST]Third.[/INST]")


def test_text_beside_a_call_is_lost_where_the_docs_say_so() -> None:
    messages = (_ASKS, replace(_CALLS, content=_ANSWERS.content), _RESULT)
    lost = {
        name
        for name in TOLD
        if "Second." not in known_style(name).template.render(ChatPrompt(messages=messages, tools=(TOOL,)))
    }
    assert lost == {"command-r7b", "llama-3.1", "minimax-m1", "mistral-nemo", "mistral-small-3.2"}
