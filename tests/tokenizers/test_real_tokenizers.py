"""Six models' own tokenizers and chat templates, as they come; skipped until `make test-tokenizers` fetches them."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest
from mlx_lm.tokenizer_utils import TokenizerWrapper
from mlx_lm.tokenizer_utils import load as load_tokenizer

from mlx_manager.ir import ChatPrompt, Message, PartKind, Role
from mlx_manager.models.calls import CallRules
from mlx_manager.models.prompt import PromptBuilder
from mlx_manager.models.style import ModelStyle, stop_token_ids
from mlx_manager.models.tokens import Vocabulary
from mlx_manager.parsing import MarkedStyle
from tests.models.rendered import CONVERSATION, PROMPT, TOOL, said, without_date
from tests.models.templates import fixes_of
from tests.models.test_prompts import SHAPES
from tests.parsing.reading import Part, read
from tools.tokenizers import FOLDER, PACKAGES

pytestmark = pytest.mark.skipif(
    not all((FOLDER / name).is_dir() for name in PACKAGES),
    reason="real tokenizers are not fetched: make test-tokenizers",
)
MODEL_TYPES = {
    "deepseek_v3": "deepseek_v3",
    "gemma3": "gemma3_text",
    "llama3_2": "llama",
    "mistral_nemo": "mistral",
    "qwen2_5": "qwen2",
    "qwen3": "qwen3",
}
FIXES = {
    "deepseek_v3": "tools",
    "gemma3": "late alone turns begin tools",
    "llama3_2": "alone one call",
    "mistral_nemo": "late alone hidden turns begin answer short ids",
    "qwen2_5": "",
    "qwen3": "",
}
"""As `tests.models.templates` has them for the templates that stand for these."""
STOPS = {
    "deepseek_v3": {"<｜end▁of▁sentence｜>"},
    "gemma3": {"<end_of_turn>"},
    "llama3_2": {"<|eot_id|>", "<|eom_id|>", "<|end_of_text|>"},
    "mistral_nemo": {"</s>"},
    "qwen2_5": {"<|im_end|>", "<|endoftext|>"},
    "qwen3": {"<|im_end|>", "<|endoftext|>"},
}
TALK = (
    said(Role.SYSTEM, "Be brief."),
    said(Role.USER, "Paris?"),
    said(Role.ASSISTANT, "It rains."),
    said(Role.USER, "And Rome?"),
)


@cache
def tokenizer_of(name: str) -> TokenizerWrapper:
    return load_tokenizer(FOLDER / name)


@cache
def style_of(name: str) -> ModelStyle:
    return ModelStyle.of(tokenizer_of(name), MODEL_TYPES[name])


def reference(name: str, messages: tuple[Message, ...], **more: Any) -> str:
    """What transformers makes of them, with the model's own template."""
    plain = [{"role": message.role.value, "content": message.text} for message in messages]
    text = tokenizer_of(name)._tokenizer.apply_chat_template(plain, tokenize=False, add_generation_prompt=True, **more)
    return without_date(str(text))


@pytest.mark.parametrize("name", PACKAGES)
def test_what_its_template_leaves_out_is_what_the_kept_one_does(name: str) -> None:
    assert fixes_of(style_of(name)) == FIXES[name]
    assert style_of(name).warning == ""


@pytest.mark.parametrize("name", PACKAGES)
def test_plain_talk_is_rendered_and_tokenized_as_transformers_does_it(name: str) -> None:
    built = PromptBuilder(tokenizer_of(name), style_of(name).template, 4096).build(ChatPrompt(messages=TALK))
    assert without_date(built.text or "") == reference(name, TALK)
    ids = tokenizer_of(name)._tokenizer.encode(built.text, add_special_tokens=False)
    assert list(built.token_ids) == ids


@pytest.mark.parametrize("name", PACKAGES)
def test_nothing_of_a_conversation_with_tools_is_lost(name: str) -> None:
    rendered = style_of(name).template.render(PROMPT)
    for message in CONVERSATION:
        assert message.text in rendered
    for word in (TOOL.name, "Paris", "Rome"):
        assert word in rendered


@pytest.mark.parametrize("name", PACKAGES)
@pytest.mark.parametrize("messages", SHAPES, ids=lambda messages: " ".join(message.role.value for message in messages))
def test_nothing_that_agents_send_is_refused_or_lost(name: str, messages: tuple[Message, ...]) -> None:
    for tools in ((), (TOOL,)):
        rendered = style_of(name).template.render(ChatPrompt(messages=messages, tools=tools))
        assert all(message.text in rendered for message in messages)


@pytest.mark.parametrize("name", PACKAGES)
def test_calls_are_read_from_the_tokens_that_they_are_written_in(name: str) -> None:
    answers = style_of(name).answers
    assert isinstance(answers, MarkedStyle)
    assert answers.tools is not None
    written = answers.tools.spell([("get_weather", {"city": "Paris é 日本"}), ("get_weather", {"city": "Rome"})])
    tokenizer = tokenizer_of(name)
    special = frozenset(CallRules.of(answers, tokenizer).special_ids.values())
    decoder = Vocabulary(tokenizer).decoder(special)
    parts = read(answers, [decoder.add(token) for token in tokenizer.encode(written, add_special_tokens=False)])
    assert [part.name for part in parts] == ["get_weather", "get_weather"]
    assert [call_of(part) for part in parts] == [{"city": "Paris é 日本"}, {"city": "Rome"}]


def call_of(part: Part) -> object:
    assert part.kind is PartKind.TOOL_CALL
    return json.loads(part.text)


@pytest.mark.parametrize("name", PACKAGES)
def test_its_answers_end_where_they_have_to(name: str) -> None:
    tokenizer = tokenizer_of(name)
    ids = {*stop_token_ids(tokenizer, MODEL_TYPES[name]), *tokenizer.eos_token_ids}
    assert {tokenizer.convert_ids_to_tokens(token) for token in ids} == STOPS[name]
