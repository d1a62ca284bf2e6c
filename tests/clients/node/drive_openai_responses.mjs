// The openai package for Node: the responses API.

import * as c from "./common.mjs";

const { OpenAI } = c.load("openai");
const client = new OpenAI({ baseURL: `${c.URL}/v1`, apiKey: c.KEY, maxRetries: 0, timeout: c.PATIENCE_MS });
const tools = [{ type: "function", name: "get_weather", parameters: c.WEATHER_SCHEMA, strict: true }];

const ask = (model, more = {}) => client.responses.create({ model, input: c.QUESTION, store: false, ...more });
const called = (response) => response.output.find((item) => item.type === "function_call");
const said = (call) => [call.name, JSON.parse(call.arguments)];

const features = {
  async chat() {
    c.same((await ask("mock", { instructions: "Be short." })).output_text, c.HELLO);
  },
  async stream() {
    const events = await c.all(await ask("mock", { stream: true }));
    const deltas = events.filter((event) => event.type === "response.output_text.delta");
    c.same(deltas.map((event) => event.delta).join(""), c.HELLO);
    c.same(events.at(-1).type, "response.completed");
  },
  async tools() {
    const response = await ask("caller", { tools });
    const call = called(response);
    c.same(said(call), c.CALL);
    const result = { type: "function_call_output", call_id: call.call_id, output: "rain" };
    const input = [...c.QUESTION, ...response.output, result];
    c.same((await ask("mock", { input, tools })).output_text, c.HELLO);
  },
  async tools_stream() {
    const events = client.responses.stream({ model: "caller", input: c.QUESTION, tools });
    const deltas = (await c.all(events)).filter(
      (event) => event.type === "response.function_call_arguments.delta",
    );
    c.same(said(called(await events.finalResponse())), c.CALL);
    c.same(deltas.length, 2);
  },
  async json_schema() {
    const format = { type: "json_schema", name: "City", schema: c.CITY_SCHEMA, strict: true };
    c.same(JSON.parse((await ask("json", { text: { format } })).output_text), c.CITY);
  },
  async reasoning() {
    const response = await ask("thinker", { reasoning: { effort: "medium" } });
    const thoughts = response.output.filter((item) => item.type === "reasoning");
    const parts = thoughts.flatMap((item) => (item.content?.length ? item.content : item.summary));
    c.same([parts.map((part) => part.text).join(""), response.output_text], [c.THOUGHT, c.ANSWER]);
  },
  async usage() {
    const usage = (await ask("mock")).usage;
    c.same([usage.input_tokens, usage.output_tokens, usage.total_tokens], [9, 3, 12]);
  },
  async count_tokens() {
    const counted = await client.responses.inputTokens.count({ model: "mock", input: c.QUESTION, tools });
    c.same([counted.object, counted.input_tokens > 0], ["response.input_tokens", true]);
  },
  unknown_model: () => c.raises(OpenAI.NotFoundError, () => ask(c.UNKNOWN), c.UNKNOWN),
  too_long: () =>
    c.raises(OpenAI.BadRequestError, () => ask("long"), "", { code: "context_length_exceeded" }),
  busy: () => c.raises(OpenAI.InternalServerError, () => ask("full"), "", { status: 503 }),
  async broken_stream() {
    const events = [];
    try {
      for await (const event of await ask("breaks", { stream: true })) events.push(event);
    } catch (error) {
      if (!(error instanceof OpenAI.APIError) || !error.message.includes(c.BROKEN)) throw error;
      return error.constructor.name;
    }
    c.same(events.at(-1).type, "response.failed");
    return events.at(-1).type;
  },
  cancel: () =>
    c.leaves(async () => {
      const stream = await ask("slow", { stream: true });
      for await (const _ of stream) break;
      stream.controller.abort();
    }),
};

await c.run("openai-node (responses)", "openai", features, {
  "other calls of this package; see its chat": ["embeddings", "models"],
});
