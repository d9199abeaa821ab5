"""Enforced calls in the formats of many families: the starter model under their templates, served by the worker."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from mlx_lm.utils import load_tokenizer

from mlx_manager.catalog import LoadOptions
from mlx_manager.engine.attention import DecodeAttention
from mlx_manager.engine.config import EngineConfig
from mlx_manager.engine.engine import Engine
from mlx_manager.engine.probe import ModelCaches, probe_caches
from mlx_manager.engine.runner import PagedRunner
from mlx_manager.ipc import FromWorker, StepDone
from mlx_manager.ir import (
    ChatPrompt,
    Event,
    FinishReason,
    GenerationRequest,
    Message,
    PartKind,
    Role,
    Sampling,
    TextContent,
    Thinking,
    Tool,
    ToolChoice,
    ToolChoiceMode,
    fold,
)
from mlx_manager.models.loading import LoadedModel
from mlx_manager.models.style import ModelStyle
from mlx_manager.worker.serving import Serving
from tests.models.templates import TOLD, template_of

SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"enum": ["Paris", "Rome", "Oslo"]},
        "days": {"type": "integer", "minimum": 1, "maximum": 9},
    },
    "required": ["city", "days"],
}
TOOL = Tool(name="get_weather", description="Weather of a city", parameters=json.dumps(SCHEMA))
QUESTION = Message(role=Role.USER, content=(TextContent("What is the weather in Rome for the next 3 days?"),))
PROMPT = ChatPrompt(
    messages=(QUESTION,),
    tools=(TOOL,),
    tool_choice=ToolChoice(mode=ToolChoiceMode.REQUIRED),
    parallel_tool_calls=False,
    thinking=Thinking(is_enabled=False),
)
NAMES = ("gemma-4", "gpt-oss", "lfm2")


@pytest.fixture(scope="module")
def loaded(starter_model: LoadedModel) -> LoadedModel:
    return starter_model


@pytest.fixture(scope="module")
def caches(loaded: LoadedModel) -> ModelCaches:
    return probe_caches(loaded.model)


@pytest.mark.parametrize("name", NAMES)
def test_calls_are_enforced_in_the_format_of_the_family(
    name: str, loaded: LoadedModel, caches: ModelCaches, starter_folder: Path
) -> None:
    tokenizer = load_tokenizer(starter_folder, {"chat_template": template_of(name)})
    style = ModelStyle.of(tokenizer, TOLD[name].model_type)
    assert style.family.name == TOLD[name].family
    runner = PagedRunner(loaded.model, caches, 64, DecodeAttention.GATHER_MM)
    engine = Engine(runner, EngineConfig(num_blocks=64))
    serving = Serving(replace(loaded, tokenizer=tokenizer, style=style), engine, LoadOptions())
    events: list[Event] = []

    def take(done: FromWorker) -> None:
        assert isinstance(done, StepDone)
        events.extend(event for reported in done.deltas for event in reported.events)

    serving.publish = take
    request = GenerationRequest(
        request_id=name, model=name, prompt=PROMPT, sampling=Sampling(max_tokens=200, temperature=0)
    )
    assert serving.submit(request) is None
    while serving.has_work:
        serving.step()
    (choice,) = asyncio.run(fold(_streamed(events), 1)).choices
    assert choice.finish_reason is FinishReason.TOOL_CALLS
    calls = [part for part in choice.parts if part.kind is PartKind.TOOL_CALL]
    assert [call.tool_name for call in calls] == [TOOL.name]
    Draft202012Validator(SCHEMA).validate(json.loads(calls[0].text))
    assert choice.text_of(PartKind.TEXT) == ""


async def _streamed(events: list[Event]) -> AsyncIterator[Event]:
    for event in events:
        yield event
