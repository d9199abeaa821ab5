"""openai-agents: an agent with a tool, streamed and not, over both of OpenAI's dialects."""

import asyncio
import os

from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI

CALLER_URL, CALLER = os.environ["CALLER_URL"], os.environ["CALLER"]


@function_tool
def get_weather(city: str) -> str:
    """Get the current weather for a city"""
    return "sunny"


async def main() -> None:
    set_tracing_disabled(True)
    client = AsyncOpenAI(base_url=f"{CALLER_URL}/v1", api_key="none")
    for kind in (OpenAIChatCompletionsModel, OpenAIResponsesModel):
        agent = Agent(
            name="weather",
            model=kind(model=CALLER, openai_client=client),
            tools=[get_weather],
            model_settings=ModelSettings(temperature=0, max_tokens=120),
        )
        result = await Runner.run(agent, "What is the weather in Paris?")
        assert result.final_output == "The weather in Paris is sunny.", result.final_output
        streamed = Runner.run_streamed(agent, "What is the weather in Paris?")
        kinds = [event.type async for event in streamed.stream_events()]
        assert streamed.final_output == "The weather in Paris is sunny.", streamed.final_output
        assert kinds.count("run_item_stream_event") >= 3, kinds


asyncio.run(main())
