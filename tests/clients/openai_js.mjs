// Drives the official, unmodified npm client `openai` 7.59.0 against a running server.
// Environment: B, the server's root; IMG, a picture file. Ends with 0 when every reply was understood.
import { createReadStream } from "node:fs";
import OpenAI from "openai";

const client = new OpenAI({ baseURL: `${process.env.B}/v1`, apiKey: process.env.OPENAI_API_KEY ?? "sk_test" });
const image = () => createReadStream(process.env.IMG);
const few = { steps: 2, seed: 7 };

function demand(truth, what) {
  if (!truth) throw new Error(what);
}

function look(item, magic) {
  const file = Buffer.from(item.b64_json, "base64");
  demand(file.subarray(0, magic.length).equals(magic), "another format");
  console.log("   ", file.length, "bytes");
}
const PNG = Buffer.from([0x89, 0x50, 0x4e, 0x47]);
const JPEG = Buffer.from([0xff, 0xd8, 0xff]);

console.log("an edit");
let reply = await client.images.edit({ model: "gpt-image-1", image: image(), prompt: "a red house", n: 2, ...few });
demand(reply.data.length === 2 && reply.output_format === "png", JSON.stringify(reply).slice(0, 200));
reply.data.forEach((item) => look(item, PNG));

console.log("an edit of a list of files");
reply = await client.images.edit({ model: "demo", image: [image()], prompt: "a red house", output_format: "jpeg", ...few });
look(reply.data[0], JPEG);

console.log("a picture from words");
reply = await client.images.generate({ model: "demo", prompt: "a red house", size: "64x64", ...few });
look(reply.data[0], PNG);

console.log("a link");
reply = await client.images.generate({ model: "demo", prompt: "x", size: "64x64", response_format: "url", ...few });
const file = await fetch(reply.data[0].url);
demand(file.status === 200 && file.headers.get("content-type") === "image/png", String(file.status));

console.log("a variation");
reply = await client.images.createVariation({ image: image(), response_format: "b64_json", ...few });
look(reply.data[0], PNG);

console.log("streams");
const kinds = [];
const stream = await client.images.generate({
  model: "demo", prompt: "a red house", size: "256x256", stream: true, partial_images: 2, steps: 60, seed: 7,
});
for await (const event of stream) {
  kinds.push(event.type);
  look(event, event.type.endsWith("completed") ? PNG : JPEG);
}
console.log("   ", kinds.join(" "));
demand(kinds.at(-1) === "image_generation.completed", "no end");
demand(kinds.length >= 2 && kinds.slice(0, -1).every((kind) => kind === "image_generation.partial_image"), "no preview");
const edited = [];
for await (const event of await client.images.edit({ image: image(), prompt: "x", stream: true, ...few })) edited.push(event.type);
demand(edited.join() === "image_edit.completed", edited.join());

console.log("what is refused");
for (const [wrong, param] of [[{ n: 11 }, "n"], [{ size: "100x100" }, "size"], [{ model: "dmeo" }, "model"]]) {
  try {
    await client.images.generate({ prompt: "x", ...wrong });
  } catch (error) {
    console.log("   ", error.status, error.param, error.message);
    demand(error.param === param && error.type === "invalid_request_error" && error.requestID, JSON.stringify(error.error));
    continue;
  }
  throw new Error(`${JSON.stringify(wrong)} was accepted`);
}

console.log("the models");
const names = [];
for await (const model of client.models.list()) names.push(model.id);
demand(names.join() === "demo", names.join());
demand((await client.models.retrieve("demo")).object === "model", "no model");
console.log("all calls were understood");
