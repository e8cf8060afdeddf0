// What is asked for: values, presets, where they stand on the page, and how they are kept over a reload.

import { get } from './dom.js';

/**
 * @typedef {{preset: string, prompt: string, negative: string, strength: number, model: string, vae: string,
 *   loras: {name: string, strength: number}[], embeddings: string[], seed: string, steps: number, guidance: number,
 *   count: number, clipSkip: number, scheduler: string, longest: number, softEdge: number, byDegrees: boolean}} Settings
 */

const STORE = 'pentimento-settings';
/** Which dialect a preset speaks, and what it sets. */
export const PRESETS = {
  fast: { dialect: 'novita', most: { steps: 8, guidance: 14, clipSkip: 12 }, set: { steps: 4, guidance: 1.5, strength: 0.5, scheduler: '' } },
  fine: { dialect: 'modelslab', most: { steps: 150, guidance: 20, clipSkip: 8 }, set: { steps: 31, guidance: 7.5, strength: 0.6, scheduler: 'UniPCMultistepScheduler' } },
};
/** The model inside the binary overshoots with more guidance than this. */
const DEMO = { name: 'demo', guidance: 2 };
/** 2^53, as both dialects have it. */
const MAX_SEED = 2 ** 53;

/** @returns {Settings} */
const usual = () => ({
  preset: 'fast', prompt: '', negative: '', model: '', vae: '', loras: [], embeddings: [], seed: '',
  count: 1, clipSkip: 1, longest: 512, softEdge: 8, byDegrees: false, ...PRESETS.fast.set,
});

/** @type {Settings} */
export const settings = { ...usual(), ...kept() };

function kept() {
  try {
    const found = JSON.parse(sessionStorage.getItem(STORE) ?? '{}');
    const fits = ([name, value]) => name in usual() && typeof value === typeof usual()[name];
    return Object.fromEntries(Object.entries(found).filter(fits));
  } catch {
    return {};
  }
}

const listeners = new Set();
/** Calls back after every change. */
export const onChange = (listener) => listeners.add(listener);

/** @param {Partial<Settings>} values */
export function change(values) {
  Object.assign(settings, values);
  sessionStorage.setItem(STORE, JSON.stringify(settings));
  show();
  for (const listener of listeners) listener();
}

/** Sets what the preset says. */
export function usePreset(name) {
  const set = { ...PRESETS[name].set };
  if (settings.model === DEMO.name) set.guidance = Math.min(set.guidance, DEMO.guidance);
  change({ preset: name, ...set, count: Math.min(settings.count, 4) });
}

export const dialect = () => PRESETS[settings.preset].dialect;

/** A number for the dice: 32 bits, so that seed + k stays exact everywhere. */
export const randomSeed = () => crypto.getRandomValues(new Uint32Array(1))[0];

/** The seed that was asked for, null for a random one; NaN where it is no seed. */
export function wantedSeed() {
  const written = settings.seed.trim();
  if (written === '' || written === '-1') return null;
  const seed = /^\d+$/.test(written) ? Number(written) : NaN;
  return seed <= MAX_SEED ? seed : NaN;
}

/** What a picture or a job says about itself, as settings. Nothing of it is trusted to be of the right type. */
export function ofRecipe(recipe) {
  const text = (value) => (typeof value === 'string' ? value : '');
  const number = (value, otherwise) => (Number.isFinite(value) ? value : otherwise);
  const lcm = recipe.scheduler === 'LCMScheduler' && !recipe.inpaint && number(recipe.steps, 99) <= 8;
  const preset = lcm ? 'fast' : 'fine';
  const loras = Array.isArray(recipe.loras) ? recipe.loras : [];
  return {
    preset,
    prompt: text(recipe.prompt),
    negative: text(recipe.negative_prompt),
    model: text(recipe.model),
    vae: text(recipe.vae),
    loras: loras.slice(0, 5).map((lora) => ({ name: text(lora?.name ?? lora?.model), strength: number(lora?.strength, 1) })),
    embeddings: (Array.isArray(recipe.embeddings) ? recipe.embeddings : []).slice(0, 5).map(text),
    seed: Number.isSafeInteger(recipe.seed) ? String(recipe.seed) : '',
    steps: number(recipe.steps, PRESETS[preset].set.steps),
    strength: number(recipe.strength, 0.5),
    guidance: number(recipe.guidance_scale, 1.5),
    clipSkip: number(recipe.clip_skip, 1),
    scheduler: lcm ? '' : text(recipe.scheduler),
    byDegrees: recipe.differential_diffusion === true,
    count: 1,
  };
}

const NUMBERS = { steps: 'steps', guidance: 'guidance', count: 'count', 'clip-skip': 'clipSkip', strength: 'strength', longest: 'longest', 'soft-edge': 'softEdge' };
const TEXTS = { prompt: 'prompt', negative: 'negative', seed: 'seed', scheduler: 'scheduler', model: 'model', vae: 'vae' };

/** Writes the values into the controls. */
export function show() {
  const put = (id, value) => {
    const control = get(id);
    if (document.activeElement === control && control.type === 'number') return;
    if (String(control.value) !== String(value)) control.value = value;
  };
  for (const [id, name] of Object.entries(NUMBERS)) put(id, settings[name]);
  for (const [id, name] of Object.entries(TEXTS)) put(id, settings[name]);
  const { most, dialect: speaks } = PRESETS[settings.preset];
  get('steps').max = most.steps;
  get('guidance').max = most.guidance;
  get('clip-skip').max = most.clipSkip;
  get('scheduler-field').hidden = speaks === 'novita';
  get('strength-out').textContent = settings.strength.toFixed(2);
  get('by-degrees').checked = settings.byDegrees;
  get('brush-level-field').hidden = !settings.byDegrees;
  get('brush-hint').textContent = settings.byDegrees
    ? 'What you paint over changes as much as you say; all else stays as it is.'
    : 'What you paint over is made anew; all else stays as it is.';
  get('soft-edge-out').textContent = `${settings.softEdge} px`;
  for (const radio of document.querySelectorAll('input[name=preset]')) radio.checked = radio.value === settings.preset;
}

/** Which control shows a field of either dialect. */
export const CONTROL_OF = {
  prompt: 'prompt', negative_prompt: 'negative', strength: 'strength', model_name: 'model', model_id: 'model',
  sd_vae: 'vae', vae: 'vae', loras: 'lora', lora_model: 'lora', lora_strength: 'lora', embeddings: 'embedding',
  embeddings_model: 'embedding', steps: 'steps', num_inference_steps: 'steps', guidance_scale: 'guidance', seed: 'seed',
  image_num: 'count', samples: 'count', clip_skip: 'clip-skip', scheduler: 'scheduler', soft_edge: 'soft-edge',
  differential_diffusion: 'by-degrees',
};

/** Reads the controls as they are used. */
export function listen() {
  const number = (id, name) => get(id).addEventListener('input', (event) => {
    const value = Number(event.target.value);
    if (event.target.value !== '' && Number.isFinite(value)) change({ [name]: value });
  });
  for (const [id, name] of Object.entries(NUMBERS)) number(id, name);
  for (const [id, name] of Object.entries(TEXTS)) get(id).addEventListener('input', (event) => change({ [name]: event.target.value }));
  for (const radio of document.querySelectorAll('input[name=preset]')) radio.addEventListener('change', () => usePreset(radio.value));
  get('by-degrees').addEventListener('change', (event) => change({ byDegrees: event.target.checked }));
  get('die').addEventListener('click', () => change({ seed: String(randomSeed()) }));
  get('seed-random').addEventListener('click', () => change({ seed: '' }));
  show();
}
