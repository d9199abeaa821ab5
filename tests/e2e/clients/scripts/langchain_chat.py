"""langchain-openai: tools, streams and structured answers, over both of OpenAI's dialects."""

import os

from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

URL, MODEL, CALLER_URL, CALLER = (os.environ[name] for name in ("URL", "MODEL", "CALLER_URL", "CALLER"))


class City(BaseModel):
    name: str


@tool
def get_weather(city: str) -> str:
    """Get the current weather for a city"""
    return "sunny"


for uses_responses in (False, True):
    kinds = {"api_key": "none", "temperature": 0, "max_tokens": 120, "use_responses_api": uses_responses}
    caller = ChatOpenAI(base_url=f"{CALLER_URL}/v1", model=CALLER, **kinds).bind_tools([get_weather])
    messages = [HumanMessage("What is the weather in Paris?")]
    called = caller.invoke(messages)
    assert [(call["name"], call["args"]) for call in called.tool_calls] == [("get_weather", {"city": "Paris"})], called
    answered = caller.invoke([*messages, called, ToolMessage("sunny", tool_call_id=called.tool_calls[0]["id"])])
    assert answered.text == "The weather in Paris is sunny.", answered
    assert answered.usage_metadata["input_tokens"] > 0, answered
    chunks = list(caller.stream("hello"))
    assert "".join(chunk.text for chunk in chunks) == "Hello! How can I help you today?", chunks
    starter = ChatOpenAI(base_url=f"{URL}/v1", model=MODEL, **kinds)
    assert "Paris" in starter.invoke("What is the capital of France?").text
    city = starter.with_structured_output(City, method="json_schema").invoke("Name a city as JSON.")
    assert isinstance(city, City), city
