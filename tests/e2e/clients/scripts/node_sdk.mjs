// The Node SDK of OpenAI: streams, the tool runner, answers and calls parsed with zod, and responses.
import assert from "node:assert/strict";
import OpenAI from "openai";
import { zodFunction, zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";

const { URL: url, MODEL: model, CALLER_URL: callerUrl, CALLER: caller } = process.env;
const starter = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
const tools = new OpenAI({ baseURL: `${callerUrl}/v1`, apiKey: "none", maxRetries: 0 });
const question = [{ role: "user", content: "What is the capital of France?" }];
const answer = "The capital of France is Paris.";
const city = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const description = "Get the current weather for a city";

const whole = await starter.chat.completions.create({ model, messages: question, temperature: 0 });
assert.equal(whole.choices[0].message.content, answer);
const stream = starter.chat.completions.stream({ model, messages: question, temperature: 0 });
assert.equal(await stream.finalContent(), answer);

const Capital = z.object({ city: z.enum(["Paris", "London"]), is_capital: z.boolean() });
const parsed = await starter.chat.completions.parse({
  model, messages: question, temperature: 0, response_format: zodResponseFormat(Capital, "capital"),
});
assert.deepEqual(Capital.parse(parsed.choices[0].message.parsed), parsed.choices[0].message.parsed);
const Weather = z.object({ city: z.string().max(20) });
const called = await tools.chat.completions.parse({
  model: caller,
  messages: [{ role: "user", content: "What is the weather in Paris?" }],
  temperature: 0,
  max_tokens: 120,
  tools: [zodFunction({ name: "get_weather", description, parameters: Weather })],
});
assert.deepEqual(called.choices[0].message.tool_calls[0].function.parsed_arguments, { city: "Paris" });
const text = { format: zodTextFormat(Capital, "capital") };
const formed = await starter.responses.parse({ model, input: question[0].content, temperature: 0, text });
assert.deepEqual(Capital.parse(formed.output_parsed), formed.output_parsed);

const asked = [];
const runner = tools.chat.completions.runTools({
  model: caller,
  messages: [{ role: "user", content: "What is the weather in Paris?" }],
  temperature: 0,
  max_tokens: 120,
  stream: true,
  tools: [{
    type: "function",
    function: {
      name: "get_weather", description, parameters: city, parse: JSON.parse,
      function: (given) => { asked.push(given.city); return "sunny"; },
    },
  }],
});
assert.equal(await runner.finalContent(), "The weather in Paris is sunny.");
assert.deepEqual(asked, ["Paris"]);

const responding = tools.responses.stream({
  model: caller,
  input: "What is the weather in Paris?",
  temperature: 0,
  max_output_tokens: 120,
  tools: [{ type: "function", name: "get_weather", description, parameters: city, strict: true }],
});
const types = [];
for await (const event of responding) types.push(event.type);
const final = await responding.finalResponse();
assert.deepEqual(final.output.map((item) => item.type), ["reasoning", "function_call"]);
assert.ok(types.includes("response.function_call_arguments.delta"));
const next = await tools.responses.create({
  model: caller,
  previous_response_id: final.id,
  input: [{ type: "function_call_output", call_id: final.output[1].call_id, output: "sunny" }],
  temperature: 0,
  max_output_tokens: 120,
});
assert.equal(next.output_text, "The weather in Paris is sunny.");
await assert.rejects(starter.responses.create({ model: "nonesuch", input: "hi" }), OpenAI.NotFoundError);
