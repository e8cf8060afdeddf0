// A set of settings as a call of either dialect, for this page itself and as code to copy.

/** @typedef {import('./settings.js').Settings} Settings */

export const PATHS = { novita: 'v3/lcm-img2img', img2img: 'api/v1/enterprise/img2img', inpaint: 'api/v1/enterprise/inpaint' };

/** Leaves out what says nothing. */
const tidy = (body) => Object.fromEntries(Object.entries(body).filter(([, value]) => value !== undefined && value !== ''));

/**
 * @param {Settings} s @param {{dialect: string, seed: number, image: string, mask?: string, width: number, height: number}} given
 * @returns {{path: string, body: Record<string, any>}}
 */
export function request(s, given) {
  if (given.dialect === 'novita') return { path: PATHS.novita, body: novita(s, given) };
  const path = given.mask === undefined ? PATHS.img2img : PATHS.inpaint;
  return { path, body: modelslab(s, given) };
}

function novita(s, { seed, image }) {
  const named = (list) => (list.length ? list : undefined);
  return tidy({
    model_name: s.model,
    input_image: image,
    prompt: s.prompt,
    negative_prompt: s.negative,
    image_num: s.count,
    steps: s.steps,
    strength: s.strength,
    guidance_scale: s.guidance,
    seed,
    clip_skip: s.clipSkip > 1 ? s.clipSkip : undefined,
    sd_vae: s.vae,
    loras: named(s.loras.map(({ name, strength }) => ({ model_name: name, strength }))),
    embeddings: named(s.embeddings.map((name) => ({ model_name: name }))),
  });
}

function modelslab(s, { seed, image, mask, width, height }) {
  return tidy({
    model_id: s.model,
    prompt: s.prompt,
    negative_prompt: s.negative,
    init_image: image,
    mask_image: mask,
    // By degrees the edge fades in the mask itself.
    soft_edge: mask !== undefined && !s.byDegrees && s.softEdge > 0 ? s.softEdge : undefined,
    differential_diffusion: mask !== undefined && s.byDegrees ? 'yes' : undefined,
    width,
    height,
    samples: s.count,
    num_inference_steps: s.steps,
    scheduler: s.scheduler,
    strength: s.strength,
    guidance_scale: s.guidance,
    seed,
    clip_skip: s.clipSkip > 1 ? s.clipSkip : undefined,
    vae: s.vae,
    lora_model: s.loras.map((lora) => lora.name).join(','),
    lora_strength: s.loras.map((lora) => lora.strength).join(','),
    embeddings_model: s.embeddings.join(','),
    safety_checker: 'no',
    enhance_prompt: 'no',
  });
}

const INDENT = 2;
const IMAGES = { input_image: 'picture.png', init_image: 'picture.png', mask_image: 'mask.png' };

/**
 * The call as a program. Pictures are files beside it.
 * @param {{path: string, body: Record<string, any>}} call @param {string} language @param {string} base @param {boolean} withKey
 */
export function code({ path, body }, language, base, withKey) {
  return { curl, python, js }[language](`${base}${path}`, body, withKey);
}

function curl(url, body, withKey) {
  // In a here-document the shell still reads these three.
  const shell = (line) => line.replace(/[\\$`]/g, '\\$&');
  const lines = Object.entries(body).map(([name, value]) => {
    const content = name in IMAGES ? `"$(base64 < ${IMAGES[name]} | tr -d '\\n')"` : shell(JSON.stringify(value));
    return `  ${JSON.stringify(name)}: ${content}`;
  });
  const auth = withKey ? ' \\\n  -H "Authorization: Bearer $PENTIMENTO_KEY"' : '';
  return `curl -s '${url}' \\\n  -H 'Content-Type: application/json'${auth} -d @- <<END\n{\n${lines.join(',\n')}\n}\nEND`;
}

function python(url, body, withKey) {
  const value = (content) => JSON.stringify(content, null, INDENT * 2).replace(/\n\s*/g, ' ').replace(/\bnull\b/g, 'None');
  const lines = Object.entries(body).map(([name, content]) => `    ${JSON.stringify(name)}: ${name in IMAGES ? `picture(${JSON.stringify(IMAGES[name])})` : value(content)},`);
  const head = `{"Content-Type": "application/json"${withKey ? ', "Authorization": f"Bearer {os.environ[\'PENTIMENTO_KEY\']}"' : ''}}`;
  return `import base64, json${withKey ? ', os' : ''}
from urllib.request import Request, urlopen

def picture(path):
    with open(path, "rb") as file:
        return base64.b64encode(file.read()).decode()

body = {
${lines.join('\n')}
}
call = Request(${JSON.stringify(url)}, json.dumps(body).encode(), ${head})
print(json.dumps(json.load(urlopen(call)), indent=2))`;
}

function js(url, body, withKey) {
  const lines = Object.entries(body).map(([name, content]) => `    ${name}: ${name in IMAGES ? `await picture(${JSON.stringify(IMAGES[name])})` : JSON.stringify(content)},`);
  return `import { readFile } from 'node:fs/promises';

const picture = (path) => readFile(path, 'base64');
const reply = await fetch(${JSON.stringify(url)}, {
  method: 'POST',
  headers: { 'Content-Type': 'application/json'${withKey ? ', Authorization: `Bearer ${process.env.PENTIMENTO_KEY}`' : ''} },
  body: JSON.stringify({
${lines.join('\n')}
  }),
});
console.log(await reply.json());`;
}
