// Anthropic's package for Node.

import * as c from "./common.mjs";

const { default: Anthropic } = c.load("@anthropic-ai/sdk");
const client = new Anthropic({ baseURL: c.URL, apiKey: c.KEY, maxRetries: 0, timeout: c.PATIENCE_MS });
const tools = [{ name: "get_weather", description: "tells the weather", input_schema: c.WEATHER_SCHEMA }];

const body = (model, more) => ({ model, max_tokens: 2048, messages: c.QUESTION, ...more });
const ask = (model, more = {}) => client.messages.create(body(model, more));
const streamed = (model, more = {}) => client.messages.stream(body(model, more));
const text = (answer) =>
  answer.content.filter((block) => block.type === "text").map((block) => block.text).join("");

const features = {
  async chat() {
    const answer = await ask("mock", { system: "Be short." });
    c.same([text(answer), answer.stop_reason], [c.HELLO, "end_turn"]);
  },
  async stream() {
    let heard = "";
    const answer = streamed("mock").on("text", (piece) => (heard += piece));
    c.same(text(await answer.finalMessage()), c.HELLO);
    c.same(heard, c.HELLO);
  },
  async tools() {
    const answer = await ask("caller", { tools });
    const use = answer.content.find((block) => block.type === "tool_use");
    c.same([use.name, use.input], c.CALL);
    const result = { type: "tool_result", tool_use_id: use.id, content: "rain" };
    const turns = [{ role: "assistant", content: answer.content }, { role: "user", content: [result] }];
    c.same(text(await ask("mock", { tools, messages: [...c.QUESTION, ...turns] })), c.HELLO);
  },
  async tools_stream() {
    let pieces = 0;
    const answer = streamed("caller", { tools }).on("inputJson", (piece) => (pieces += piece ? 1 : 0));
    const use = (await answer.finalMessage()).content[0];
    c.same([use.name, use.input], c.CALL);
    c.same(pieces, 2);
  },
  async json_schema() {
    const output_config = { format: { type: "json_schema", schema: c.CITY_SCHEMA } };
    c.same(JSON.parse(text(await ask("json", { output_config }))), c.CITY);
  },
  async reasoning() {
    const thinking = { type: "enabled", budget_tokens: 1024 };
    for (const answer of [await ask("thinker", { thinking }), await streamed("thinker", { thinking }).finalMessage()]) {
      c.same([answer.content[0].thinking, text(answer)], [c.THOUGHT, c.ANSWER]);
    }
  },
  async usage() {
    for (const { usage } of [await ask("mock"), await streamed("mock").finalMessage()]) {
      const prompt = usage.input_tokens + usage.cache_read_input_tokens + (usage.cache_creation_input_tokens ?? 0);
      c.same([prompt, usage.cache_read_input_tokens, usage.output_tokens], [9, 4, 3]);
    }
  },
  async models() {
    const names = (await c.all(client.models.list())).map((model) => model.id);
    c.same(names.includes("mock"), true);
  },
  async count_tokens() {
    const counted = await client.messages.countTokens({ model: "mock", messages: c.QUESTION });
    c.same(counted.input_tokens > 0, true);
  },
  unknown_model: () => c.raises(Anthropic.NotFoundError, () => ask(c.UNKNOWN), c.UNKNOWN),
  too_long: () => c.raises(Anthropic.BadRequestError, () => ask("long")),
  busy: () => c.raises(Anthropic.InternalServerError, () => ask("full")),
  broken_stream: () => c.raises(Anthropic.APIError, async () => c.all(streamed("breaks")), c.BROKEN),
  cancel: () =>
    c.leaves(async () => {
      const answer = streamed("slow");
      for await (const event of answer) if (event.type === "content_block_delta") break;
      answer.abort();
    }),
};

await c.run("anthropic-node", "@anthropic-ai/sdk", features, { "Anthropic has none": ["embeddings"] });
