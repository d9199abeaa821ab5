"""LiteLLM: completions with tools, streams, and responses."""

import json
import os

import litellm

URL, MODEL, CALLER_URL, CALLER = (os.environ[name] for name in ("URL", "MODEL", "CALLER_URL", "CALLER"))
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
FUNCTION = {"name": "get_weather", "description": "Get the current weather for a city", "parameters": CITY}
caller = {"model": f"openai/{CALLER}", "api_base": f"{CALLER_URL}/v1", "api_key": "none", "temperature": 0}
starter = {"model": f"openai/{MODEL}", "api_base": f"{URL}/v1", "api_key": "none", "temperature": 0}

messages = [{"role": "user", "content": "What is the weather in Paris?"}]
tools = [{"type": "function", "function": FUNCTION}]
message = litellm.completion(**caller, messages=messages, tools=tools, max_tokens=120).choices[0].message
assert message.reasoning_content == "I should call get_weather.", message
(call,) = message.tool_calls
assert json.loads(call.function.arguments) == {"city": "Paris"}, call
messages += [message.model_dump(), {"role": "tool", "tool_call_id": call.id, "content": "sunny"}]
answer = litellm.completion(**caller, messages=messages, tools=tools, max_tokens=120)
assert answer.choices[0].message.content == "The weather in Paris is sunny.", answer

question = [{"role": "user", "content": "What is the capital of France?"}]
chunks = list(litellm.completion(**starter, messages=question, stream=True, stream_options={"include_usage": True}))
text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
assert text == "The capital of France is Paris.", text
rebuilt = litellm.stream_chunk_builder(chunks, messages=question)
assert rebuilt.usage.completion_tokens == 8, rebuilt

response = litellm.responses(**starter, input="What is the capital of France?")
assert response.output[0].content[0].text == "The capital of France is Paris.", response
