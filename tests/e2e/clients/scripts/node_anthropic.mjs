// The Node SDK of Anthropic: whole answers, streams, thinking that comes back, the tool runner, answers and
// calls parsed with zod, counting, models, errors.
import assert from "node:assert/strict";
import Anthropic from "@anthropic-ai/sdk";
import { betaTool } from "@anthropic-ai/sdk/helpers/beta/json-schema";
import { betaZodTool } from "@anthropic-ai/sdk/helpers/beta/zod";
import { zodOutputFormat } from "@anthropic-ai/sdk/helpers/zod";
import { z } from "zod";

const { URL: url, MODEL: model, CALLER_URL: callerUrl, CALLER: caller } = process.env;
const starter = new Anthropic({ baseURL: url, apiKey: "none", maxRetries: 0 });
const tools = new Anthropic({ baseURL: callerUrl, authToken: "none", apiKey: null, maxRetries: 0 });
const city = { type: "object", properties: { city: { type: "string" } }, required: ["city"], additionalProperties: false };
const weather = { name: "get_weather", description: "Get the current weather for a city", input_schema: city };

const question = { model, max_tokens: 40, messages: [{ role: "user", content: "What is the capital of France?" }] };
const whole = await starter.messages.create({ ...question, temperature: 0 });
assert.equal(whole.content[0].text, "The capital of France is Paris.");
assert.equal(whole.stop_reason, "end_turn");
assert.ok(whole._request_id);
const counted = await starter.messages.countTokens({ model, messages: question.messages });
assert.equal(counted.input_tokens, whole.usage.input_tokens + whole.usage.cache_read_input_tokens);

const asked = [{ role: "user", content: "What is the weather in Paris?" }];
const thinking = { type: "enabled", budget_tokens: 1024 };
const body = { model: caller, max_tokens: 120, temperature: 0, tools: [weather], thinking };
const texts = [];
const stream = tools.messages.stream({ ...body, messages: asked }).on("thinking", (piece) => texts.push(piece));
const called = await stream.finalMessage();
assert.equal(texts.join(""), "I should call get_weather.");
assert.deepEqual(called.content.map((block) => block.type), ["thinking", "tool_use"]);
assert.deepEqual(called.content[1].input, { city: "Paris" });
const result = { type: "tool_result", tool_use_id: called.content[1].id, content: "sunny" };
asked.push({ role: "assistant", content: called.content }, { role: "user", content: [result] });
const told = await tools.messages.create({ ...body, messages: asked });
assert.equal(told.content.at(-1).text, "The weather in Paris is sunny.");

const cities = [];
const runner = tools.beta.messages.toolRunner({
  model: caller,
  max_tokens: 120,
  temperature: 0,
  messages: asked.slice(0, 1),
  tools: [
    betaTool({
      name: weather.name,
      description: weather.description,
      inputSchema: city,
      run: (given) => { cities.push(given.city); return "sunny"; },
    }),
  ],
});
assert.equal((await runner.runUntilDone()).content.at(-1).text, "The weather in Paris is sunny.");
assert.deepEqual(cities, ["Paris"]);

const Capital = z.object({ city: z.enum(["Paris", "London"]), is_capital: z.boolean() });
const parsed = await starter.messages.parse({
  ...question, temperature: 0, output_config: { format: zodOutputFormat(Capital) },
});
assert.deepEqual(Capital.parse(parsed.parsed_output), parsed.parsed_output);
const typed = [];
const typedRunner = tools.beta.messages.toolRunner({
  model: caller,
  max_tokens: 120,
  temperature: 0,
  messages: asked.slice(0, 1),
  tools: [
    betaZodTool({
      name: weather.name,
      description: weather.description,
      inputSchema: z.object({ city: z.string() }),
      run: (given) => { typed.push(given.city); return "sunny"; },
    }),
  ],
});
assert.equal((await typedRunner.runUntilDone()).content.at(-1).text, "The weather in Paris is sunny.");
assert.deepEqual(typed, ["Paris"]);

const listed = [];
for await (const each of starter.models.list({ limit: 1 })) listed.push(each.id);
assert.ok(listed.includes(model));
await assert.rejects(starter.messages.create({ ...question, model: "nonesuch" }), Anthropic.NotFoundError);
