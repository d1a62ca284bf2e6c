// What every driver shares: see ../common.py, which says the same.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";

export const URL = (process.env.TIELINE_URL ?? "http://127.0.0.1:8080").replace(/\/$/, "");
export const KEY = "none-needed";
export const PATIENCE_MS = 20_000;

export const HELLO = "Hello there.";
export const ANSWER = "Forty-two.";
export const THOUGHT = "Let me think.";
export const CALL = ["get_weather", { city: "Paris" }];
export const CITY = { city: "Paris", population: 2_100_000 };
export const UNKNOWN = "nothing-here";
export const BROKEN = "ended while it answered";
export const VECTOR = [0.5, 0.5, -0.5, 0.5];

export const WEATHER_SCHEMA = {
  type: "object",
  properties: { city: { type: "string", description: "a city's name" } },
  required: ["city"],
  additionalProperties: false,
};
export const CITY_SCHEMA = {
  type: "object",
  properties: { city: { type: "string" }, population: { type: "integer" } },
  required: ["city", "population"],
  additionalProperties: false,
};
export const QUESTION = [{ role: "user", content: "What is the weather in Paris?" }];

// The environment lies outside the tree; TIELINE_CLIENTS_FOLDER names its folder.
const environment = process.env.TIELINE_CLIENTS_FOLDER ?? import.meta.dirname;
const require = createRequire(join(environment, "package.json"));

export function load(name) {
  return require(name);
}

function version(name) {
  const file = join(environment, "node_modules", name, "package.json");
  return JSON.parse(readFileSync(file, "utf8")).version;
}

// Runs the features in turn; `missing` maps a reason to the features that the client has not.
export async function run(client, packageName, features, missing = {}) {
  const tell = (feature, ok, note) =>
    console.log(JSON.stringify({ client, version: version(packageName), feature, ok, note }));
  for (const [reason, names] of Object.entries(missing)) {
    for (const name of names) tell(name, null, reason);
  }
  for (const [name, feature] of Object.entries(features)) {
    try {
      tell(name, true, (await feature()) ?? "");
    } catch (error) {
      console.error(name, error);
      tell(name, false, `${error?.name}: ${error?.message ?? error}`.slice(0, 300));
    }
  }
}

export function same(found, wanted) {
  if (!isDeepStrictEqual(found, wanted)) {
    throw new Error(`${JSON.stringify(found)} is not ${JSON.stringify(wanted)}`);
  }
}

// The error that must come, with words in it and members that must be so.
export async function raises(kind, start, says = "", members = {}) {
  let error;
  try {
    await start();
  } catch (caught) {
    error = caught;
  }
  if (error === undefined) throw new Error("nothing was raised");
  if (!(error instanceof kind)) throw error;
  for (const [name, wanted] of Object.entries(members)) same(error[name], wanted);
  const text = `${error.message} ${error.responseBody ?? ""}`;
  if (!text.includes(says)) throw new Error(`${text} says nothing of ${says}`);
  return error.constructor.name;
}

export async function dropped() {
  const response = await fetch(`${URL}/test/dropped`);
  return Number(await response.text());
}

// `start` begins a long answer, reads some of it and leaves: the server must notice.
export async function leaves(start) {
  const before = await dropped();
  await start();
  const end = Date.now() + PATIENCE_MS / 2;
  while (Date.now() < end) {
    if ((await dropped()) > before) return;
    await new Promise((resume) => setTimeout(resume, 50));
  }
  throw new Error("the server goes on answering nobody");
}

export async function all(stream) {
  const items = [];
  for await (const item of stream) items.push(item);
  return items;
}
