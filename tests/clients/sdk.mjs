// The package `openai` of npm: whole answers, streams through `fetch`, and a stream that is left.

import assert from "node:assert/strict";
import OpenAI, { BadRequestError } from "openai";

const url = process.argv[2];
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
const limits = { model: "m", max_tokens: 24, seed: 7 };
const chat = { ...limits, messages: [{ role: "user", content: "What is 3+4?" }] };
const text = { ...limits, prompt: "Once" };

async function post(path, body) {
  const headers = { "Content-Type": "application/json" };
  const reply = await fetch(url + path, { method: "POST", headers, body: JSON.stringify(body) });
  assert.equal(reply.status, 200);
  return reply.json();
}

async function number(name) {
  const lines = (await (await fetch(`${url}/metrics`)).text()).split("\n");
  return Number(lines.find((line) => line.startsWith(`${name}{`)).split(" ")[1]);
}

const expected = (await post("/v1/chat/completions", chat)).choices[0].message.content;
const whole = await client.chat.completions.create(chat);
assert.equal(whole.choices[0].message.content, expected);

let parts = "";
let usage = null;
const options = { stream: true, stream_options: { include_usage: true } };
for await (const chunk of await client.chat.completions.create({ ...chat, ...options })) {
  parts += chunk.choices[0]?.delta.content ?? "";
  usage = chunk.usage ?? usage;
}
assert.equal(parts, expected);
// How many tokens were guessed depends on what was asked before.
assert.equal(usage.total_tokens, whole.usage.total_tokens);

const continued = await client.completions.create(text);
assert.equal(continued.choices[0].text, (await post("/v1/completions", text)).choices[0].text);

const { data } = await client.embeddings.create({ model: "m", input: ["a", "Once"] });
const vectors = (await post("/v1/embeddings", { model: "m", input: ["a", "Once"] })).data;
const rounded = (list) => list.map((one) => one.embedding.map(Math.fround));
assert.deepEqual(rounded(data), rounded(vectors));

await assert.rejects(client.completions.create({ ...text, top_p: 7 }), (error) => {
  return error instanceof BadRequestError && error.param === "top_p";
});

const cancelled = await number("sterna_cancelled_total");
const long = { ...text, prompt: Array(200).fill("Once"), n: 8, stream: true };
const stream = await client.completions.create(long);
for await (const _ of stream) break;
stream.controller.abort();
const end = Date.now() + 60_000;
while ((await number("sterna_cancelled_total")) === cancelled) {
  assert.ok(Date.now() < end, "the stream was left and not cancelled");
}
