"""langchain-anthropic: tools and streams over Anthropic's dialect."""

import os

from langchain_anthropic import ChatAnthropic
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool

URL, MODEL, CALLER_URL, CALLER = (os.environ[name] for name in ("URL", "MODEL", "CALLER_URL", "CALLER"))


@tool
def get_weather(city: str) -> str:
    """Get the current weather for a city"""
    return "sunny"


kinds = {"api_key": "none", "temperature": 0, "max_tokens": 120}
caller = ChatAnthropic(base_url=CALLER_URL, model=CALLER, **kinds).bind_tools([get_weather])
messages = [HumanMessage("What is the weather in Paris?")]
called = caller.invoke(messages)
assert [(call["name"], call["args"]) for call in called.tool_calls] == [("get_weather", {"city": "Paris"})], called
answered = caller.invoke([*messages, called, ToolMessage("sunny", tool_call_id=called.tool_calls[0]["id"])])
assert answered.text == "The weather in Paris is sunny.", answered
chunks = list(caller.stream("hello"))
assert "".join(chunk.text for chunk in chunks) == "Hello! How can I help you today?", chunks
starter = ChatAnthropic(base_url=URL, model=MODEL, **kinds)
assert "Paris" in starter.invoke("What is the capital of France?").text
