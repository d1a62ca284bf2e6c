// The openai package for Node: chat completions.

import * as c from "./common.mjs";

const { OpenAI } = c.load("openai");
const client = new OpenAI({ baseURL: `${c.URL}/v1`, apiKey: c.KEY, maxRetries: 0, timeout: c.PATIENCE_MS });
const tools = [{ type: "function", function: { name: "get_weather", parameters: c.WEATHER_SCHEMA } }];

const ask = (model, more = {}) => client.chat.completions.create({ model, messages: c.QUESTION, ...more });
const said = (call) => [call.function.name, JSON.parse(call.function.arguments)];

const features = {
  async chat() {
    c.same((await ask("mock")).choices[0].message.content, c.HELLO);
  },
  async stream() {
    const chunks = await c.all(await ask("mock", { stream: true }));
    c.same(chunks.map((chunk) => chunk.choices[0].delta.content ?? "").join(""), c.HELLO);
  },
  async tools() {
    const message = (await ask("caller", { tools })).choices[0].message;
    const call = message.tool_calls[0];
    c.same(said(call), c.CALL);
    const messages = [...c.QUESTION, message, { role: "tool", tool_call_id: call.id, content: "rain" }];
    c.same((await ask("mock", { messages, tools })).choices[0].message.content, c.HELLO);
  },
  async tools_stream() {
    const runner = client.chat.completions.stream({ model: "caller", messages: c.QUESTION, tools });
    let pieces = 0;
    runner.on("tool_calls.function.arguments.delta", (event) => (pieces += event.arguments_delta ? 1 : 0));
    const completion = await runner.finalChatCompletion();
    c.same(said(completion.choices[0].message.tool_calls[0]), c.CALL);
    c.same(pieces, 2);
  },
  async json_schema() {
    const json_schema = { name: "City", schema: c.CITY_SCHEMA, strict: true };
    const answer = await ask("json", { response_format: { type: "json_schema", json_schema } });
    c.same(JSON.parse(answer.choices[0].message.content), c.CITY);
  },
  async embeddings() {
    const answer = await client.embeddings.create({ model: "embedder", input: ["a", "b"] });
    c.same(answer.data.map((item) => item.embedding), [c.VECTOR, c.VECTOR]);
  },
  async reasoning() {
    const message = (await ask("thinker")).choices[0].message;
    c.same([message.reasoning_content, message.content], [c.THOUGHT, c.ANSWER]);
  },
  async usage() {
    const streamed = await c.all(await ask("mock", { stream: true, stream_options: { include_usage: true } }));
    for (const usage of [(await ask("mock")).usage, streamed.at(-1).usage]) {
      c.same([usage.prompt_tokens, usage.completion_tokens, usage.total_tokens], [9, 3, 12]);
    }
  },
  async models() {
    const names = (await c.all(client.models.list())).map((model) => model.id);
    c.same(names.includes("mock"), true);
    c.same((await client.models.retrieve("mock")).id, "mock");
  },
  unknown_model: () =>
    c.raises(OpenAI.NotFoundError, () => ask(c.UNKNOWN), c.UNKNOWN, { code: "model_not_found" }),
  too_long: () =>
    c.raises(OpenAI.BadRequestError, () => ask("long"), "", { code: "context_length_exceeded" }),
  busy: () => c.raises(OpenAI.InternalServerError, () => ask("full"), "", { status: 503 }),
  broken_stream: () =>
    c.raises(OpenAI.APIError, async () => c.all(await ask("breaks", { stream: true })), c.BROKEN),
  cancel: () =>
    c.leaves(async () => {
      const stream = await ask("slow", { stream: true });
      for await (const _ of stream) break;
      stream.controller.abort();
    }),
};

await c.run("openai-node (chat)", "openai", features, { "no such call in this API": ["count_tokens"] });
