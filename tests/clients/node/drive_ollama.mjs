// The ollama package for Node.

import { createHash } from "node:crypto";

import * as c from "./common.mjs";

const { Ollama } = c.load("ollama");
const client = new Ollama({ host: c.URL });
const tools = [
  { type: "function", function: { name: "get_weather", description: "tells the weather", parameters: c.WEATHER_SCHEMA } },
];

const ask = (model, more = {}) => client.chat({ model, messages: c.QUESTION, ...more });

const features = {
  async chat() {
    c.same((await ask("mock")).message.content, c.HELLO);
    c.same((await client.generate({ model: "mock", prompt: "Once" })).response, c.HELLO);
  },
  async stream() {
    const parts = await c.all(await ask("mock", { stream: true }));
    c.same(parts.map((part) => part.message.content).join(""), c.HELLO);
  },
  async tools() {
    const { message } = await ask("caller", { tools });
    const call = message.tool_calls[0].function;
    c.same([call.name, call.arguments], c.CALL);
    const messages = [...c.QUESTION, message, { role: "tool", tool_name: call.name, content: "rain" }];
    c.same((await ask("mock", { messages, tools })).message.content, c.HELLO);
  },
  async tools_stream() {
    const parts = await c.all(await ask("caller", { tools, stream: true }));
    const calls = parts.flatMap((part) => part.message.tool_calls ?? []);
    c.same(calls.map((call) => [call.function.name, call.function.arguments]), [c.CALL]);
    return "a call comes whole: so is this API";
  },
  async json_schema() {
    c.same(JSON.parse((await ask("json", { format: c.CITY_SCHEMA })).message.content), c.CITY);
  },
  async embeddings() {
    const answer = await client.embed({ model: "embedder", input: ["a", "b"] });
    c.same(answer.embeddings, [c.VECTOR, c.VECTOR]);
  },
  async reasoning() {
    const { message } = await ask("thinker", { think: true });
    c.same([message.thinking, message.content], [c.THOUGHT, c.ANSWER]);
  },
  async usage() {
    const answer = await ask("mock");
    c.same([answer.prompt_eval_count, answer.eval_count], [9, 3]);
  },
  async models() {
    const names = (await client.list()).models.map((model) => model.name.replace(/:latest$/, ""));
    c.same(names.includes("mock"), true);
    c.same((await client.show({ model: "mock" })).capabilities.includes("completion"), true);
  },
  async create() {
    // This package uploads nothing itself.
    const file = new Uint8Array(await (await fetch(`${c.URL}/test/model`)).arrayBuffer());
    const digest = `sha256:${createHash("sha256").update(file).digest("hex")}`;
    const blob = `${c.URL}/api/blobs/${digest}`;
    c.same([200, 201].includes((await fetch(blob, { method: "POST", body: file })).status), true);
    c.same((await fetch(blob, { method: "HEAD" })).status, 200);
    const made = await client.create({ model: "made", files: { "made.gguf": digest }, system: "Be kind." });
    c.same(made.status, "success");
    c.same((await client.show({ model: "made" })).system, "Be kind.");
    c.same((await ask("made")).message.content, c.HELLO);
    c.same((await client.delete({ model: "made" })).status, "success");
    return "the package uploads no files: the test does";
  },
  unknown_model: () => c.raises(Error, () => ask(c.UNKNOWN), c.UNKNOWN, { status_code: 404 }),
  too_long: () => c.raises(Error, () => ask("long"), "", { status_code: 400 }),
  busy: () => c.raises(Error, () => ask("full"), "", { status_code: 503 }),
  broken_stream: () => c.raises(Error, async () => c.all(await ask("breaks", { stream: true })), c.BROKEN),
  cancel: () =>
    c.leaves(async () => {
      const stream = await ask("slow", { stream: true });
      for await (const _ of stream) break;
      stream.abort();
    }),
};

await c.run("ollama-node", "ollama", features, { "no such call in this API": ["count_tokens"] });
