// Drives the official, unmodified npm client `novita-sdk` 1.1.0 against a running server.
// Environment: B, the server's root; IMG, a picture file. Ends with 0 when every reply was understood.
import { readFileSync } from "node:fs";
import * as N from "novita-sdk";

const M = N.default?.NovitaSDK ? N.default : N; // UMD bundle: names hang off `default` under ESM
const B = process.env.B;
const IMG = readFileSync(process.env.IMG).toString("base64");
const p = {
  model_name: "demo", input_image: IMG, prompt: "a", negative_prompt: "b", steps: 8, guidance_scale: 1,
  strength: 0.5, image_num: 1, seed: -1, sd_vae: "", loras: [], embeddings: [], clip_skip: 1,
  extra: { response_image_type: "webp", enterprise_plan: { enabled: false } },
};

function demand(truth, what) {
  if (!truth) throw new Error(what);
}

async function look(reply, count, type) {
  demand(reply.images.length === count, JSON.stringify(reply));
  for (const image of reply.images) {
    demand(typeof image.image_url_ttl === "string" && image.image_type === type, JSON.stringify(image));
    const file = await fetch(image.image_url);
    demand(file.status === 200 && file.headers.get("content-type") === `image/${type}`, String(file.status));
    console.log("   ", image.image_url.split("?")[0], (await file.arrayBuffer()).byteLength, "bytes");
  }
}

async function refusal(promise) {
  try {
    await promise;
  } catch (error) {
    console.log("   ", error.code, error.reason, error.msg);
    return error;
  }
  throw new Error("a wrong call was accepted");
}

console.log("class form, the key without the word Bearer");
const c = new M.NovitaSDK("sk_test");
c.setBaseUrl(B);
await look(await c.lcmImg2Img(p), 1, "webp");

console.log("functional form, a data URI");
M.setNovitaKey("sk_test");
M.setBaseUrl(B);
await look(await M.lcmImg2Img({ ...p, input_image: `data:image/png;base64,${IMG}`, extra: {}, image_num: 2 }), 2, "png");

console.log("what is refused");
const steps = await refusal(c.lcmImg2Img({ ...p, steps: 99 }));
demand(steps.code === 400 && steps.reason === "INVALID_REQUEST_BODY" && steps.msg.includes("steps"), "steps");
const lora = await refusal(c.lcmImg2Img({ ...p, loras: [{ model_name: "more_details_59655", strength: "0.5" }] }));
demand(lora.reason === "MODEL_NOT_FOUND", "lora");

console.log("the model list");
const models = await c.getModels();
console.log("   ", JSON.stringify(models).slice(0, 200));
console.log("all calls were understood");
