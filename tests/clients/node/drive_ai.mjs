// Vercel's AI SDK in front of one API: `drive_ai.mjs compatible|openai|anthropic`.

import * as c from "./common.mjs";

const { generateText, streamText, embedMany, tool, jsonSchema, Output, APICallError } = c.load("ai");

const via = process.argv[2];
const openAi = { baseURL: `${c.URL}/v1`, apiKey: c.KEY };
const providers = {
  compatible: () => {
    const { createOpenAICompatible } = c.load("@ai-sdk/openai-compatible");
    const options = { name: "tieline", includeUsage: true, supportsStructuredOutputs: true };
    return ["@ai-sdk/openai-compatible", createOpenAICompatible({ ...openAi, ...options })];
  },
  // Without a word it speaks the responses API.
  openai: () => ["@ai-sdk/openai", c.load("@ai-sdk/openai").createOpenAI(openAi)],
  anthropic: () => {
    const { createAnthropic } = c.load("@ai-sdk/anthropic");
    return ["@ai-sdk/anthropic", createAnthropic({ baseURL: `${c.URL}/v1`, apiKey: c.KEY })];
  },
};
const [packageName, provider] = providers[via]();

const settings = (model, more) => ({
  model: provider(model),
  messages: c.QUESTION,
  maxRetries: 0,
  onError: () => {},
  ...more,
});
const ask = (model, more = {}) => generateText(settings(model, more));
const streamed = (model, more = {}) => streamText(settings(model, more));
const weather = tool({ description: "tells the weather", inputSchema: jsonSchema(c.WEATHER_SCHEMA) });
const tools = { get_weather: weather };
const said = (call) => [call.toolName, call.input];

// What was answered is sent again as the SDK keeps it.
async function next(model, answer) {
  const messages = [...c.QUESTION, ...answer.response.messages, { role: "user", content: "And now?" }];
  return (await ask(model, { messages })).text;
}

// An error in a stream is a part of it.
async function failure(stream) {
  for await (const part of stream.fullStream) if (part.type === "error") throw asError(part.error);
}

function asError(error) {
  return error instanceof Error ? error : new Error(JSON.stringify(error));
}

const features = {
  async chat() {
    const first = await ask("mock", { system: "Be short." });
    c.same(first.text, c.HELLO);
    c.same(await next("mock", first), c.HELLO);
  },
  async stream() {
    c.same((await c.all(streamed("mock").textStream)).join(""), c.HELLO);
  },
  async tools() {
    const answer = await ask("caller", { tools });
    const call = answer.toolCalls[0];
    c.same(said(call), c.CALL);
    const output = { type: "text", value: "rain" };
    const result = { type: "tool-result", toolCallId: call.toolCallId, toolName: call.toolName, output };
    const messages = [...c.QUESTION, ...answer.response.messages, { role: "tool", content: [result] }];
    c.same((await ask("mock", { messages, tools })).text, c.HELLO);
  },
  async tools_stream() {
    const stream = streamed("caller", { tools });
    const parts = await c.all(stream.fullStream);
    c.same(parts.filter((part) => part.type === "tool-input-delta" && part.delta).length, 2);
    c.same(said((await stream.toolCalls)[0]), c.CALL);
  },
  async json_schema() {
    const output = Output.object({ schema: jsonSchema(c.CITY_SCHEMA) });
    const options = via === "anthropic" ? { anthropic: { structuredOutputMode: "outputFormat" } } : {};
    c.same((await ask("json", { output, providerOptions: options })).output, c.CITY);
  },
  async reasoning() {
    const thinking = { type: "enabled", budgetTokens: 1024 };
    const providerOptions = { anthropic: { thinking }, openai: { forceReasoning: true, reasoningSummary: "auto" } };
    const answer = await ask("thinker", { providerOptions });
    c.same([answer.reasoningText, answer.text], [c.THOUGHT, c.ANSWER]);
    c.same(await next("mock", answer), c.HELLO);
  },
  async usage() {
    const stream = streamed("mock");
    await stream.consumeStream();
    for (const usage of [(await ask("mock")).usage, await stream.usage]) {
      c.same([usage.inputTokens, usage.outputTokens, usage.totalTokens], [9, 3, 12]);
    }
  },
  unknown_model: () => c.raises(APICallError, () => ask(c.UNKNOWN), c.UNKNOWN, { statusCode: 404 }),
  too_long: () => c.raises(APICallError, () => ask("long"), "", { statusCode: 400 }),
  busy: () => c.raises(APICallError, () => ask("full"), "", { statusCode: 503, isRetryable: true }),
  broken_stream: () => c.raises(Error, () => failure(streamed("breaks")), c.BROKEN),
  cancel: () =>
    c.leaves(async () => {
      const leave = new AbortController();
      const stream = streamed("slow", { abortSignal: leave.signal });
      for await (const _ of stream.textStream) {
        leave.abort();
        break;
      }
    }),
};
const missing = { "the AI SDK has no such call": ["models", "count_tokens"] };

if (via === "anthropic") {
  missing["Anthropic has none"] = ["embeddings"];
} else {
  features.embeddings = async () => {
    const model = provider.textEmbeddingModel("embedder");
    const answer = await embedMany({ model, values: ["a", "b"], maxRetries: 0 });
    c.same(answer.embeddings, [c.VECTOR, c.VECTOR]);
  };
}

await c.run(packageName, packageName, features, missing);
