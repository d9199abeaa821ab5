"""pydantic-ai: an agent with a tool and one with a structured answer, over both of OpenAI's dialects."""

import asyncio
import os

from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

URL, MODEL, CALLER_URL, CALLER = (os.environ[name] for name in ("URL", "MODEL", "CALLER_URL", "CALLER"))
COLD = {"temperature": 0, "max_tokens": 120}


class City(BaseModel):
    name: str


def get_weather(city: str) -> str:
    """Get the current weather for a city"""
    return "sunny"


async def main() -> None:
    for kind in (OpenAIChatModel, OpenAIResponsesModel):
        caller = kind(CALLER, provider=OpenAIProvider(base_url=f"{CALLER_URL}/v1", api_key="none"))
        agent = Agent(caller, tools=[get_weather], model_settings=COLD)
        result = await agent.run("What is the weather in Paris?")
        assert result.output == "The weather in Paris is sunny.", result.output
        kinds = [part.part_kind for message in result.all_messages() for part in message.parts]
        assert kinds == ["user-prompt", "thinking", "tool-call", "tool-return", "thinking", "text"], kinds
        async with agent.run_stream("hello") as stream:
            pieces = [piece async for piece in stream.stream_text(delta=True, debounce_by=None)]
        assert "".join(pieces) == "Hello! How can I help you today?", pieces
        assert len(pieces) > 2, pieces
        starter = kind(MODEL, provider=OpenAIProvider(base_url=f"{URL}/v1", api_key="none"))
        city = await Agent(starter, output_type=NativeOutput(City), model_settings=COLD).run("Name a city as JSON.")
        assert isinstance(city.output, City), city.output


asyncio.run(main())
