// The npm client, as its users call it. Prints what came back as JSON. NODE_CLIENT is the folder that holds node_modules.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const require = createRequire(pathToFileURL(`${process.env.NODE_CLIENT}/package.json`));
const OpenAI = require("openai").default;
const client = new OpenAI({ maxRetries: 0 });
const hi = [{ role: "developer", content: "Be kind." }, { role: "user", content: [{ type: "text", text: "Hi" }] }];

const whole = await client.chat.completions.create({
  model: "stable", messages: hi, n: 2, seed: 1, temperature: 0.5, top_p: 0.9, max_completion_tokens: 100, stop: ["zzz"],
  presence_penalty: 0.5, frequency_penalty: 0.5, logit_bias: { 5: 1 }, logprobs: true, top_logprobs: 2, user: "ann",
  moderation: { model: "omni-moderation-latest" },
});

const stream = await client.chat.completions.create({
  model: "stable", messages: hi, stream: true, stream_options: { include_usage: true },
});
let streamed = "", usage = [];
for await (const chunk of stream) {
  streamed += chunk.choices[0]?.delta?.content ?? "";
  if (chunk.usage) usage.push(chunk.usage.total_tokens);
}

const helper = client.chat.completions.stream({ model: "stable", messages: hi, logprobs: true });
const final = await helper.finalChatCompletion();

const left = await client.chat.completions.create({ model: "stable", messages: hi, stream: true });
for await (const _ of left) break;

const completion = await client.completions.create({ model: "stable", prompt: ["Say", "it"], max_tokens: 100 });
let text = "";
for await (const chunk of await client.completions.create({ model: "stable", prompt: "Say", max_tokens: 100, stream: true })) {
  text += chunk.choices[0].text;
}

const models = [];
for await (const model of client.models.list()) models.push(model.id);
const moderation = await client.moderations.create({ input: ["a murder", "a cake"] });

const errors = {};
const attempts = {
  unknown: () => client.chat.completions.create({ model: "gpt-4", messages: hi }),
  tools: () => client.chat.completions.create({ model: "stable", messages: hi, tools: [{ type: "function", function: { name: "f" } }] }),
  key: () => new OpenAI({ apiKey: "tut-wrong", maxRetries: 0 }).models.list(),
  embeddings: () => client.embeddings.create({ model: "stable", input: "Hi" }),
  deletion: () => client.models.delete("v1"),
};
for (const [name, attempt] of Object.entries(attempts)) {
  await attempt().catch((error) => { errors[name] = [error.status, error.code, error.constructor.name]; });
}

console.log(JSON.stringify({
  whole: whole.choices.map((choice) => choice.message.content),
  logprobs: whole.choices[0].logprobs.content.length,
  flagged: whole.moderation.input.results[0].flagged,
  request: whole._request_id,
  streamed, usage,
  final: final.choices[0].message.content,
  completion: completion.choices.map((choice) => choice.text),
  text, models,
  retrieved: (await client.models.retrieve("stable")).owned_by,
  moderation: moderation.results.map((result) => result.flagged),
  errors,
}));
