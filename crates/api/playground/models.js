// The catalogue: pickers of checkpoints, LoRAs, embeddings and VAEs, with what is on its way and what is in memory.

import { getJson } from './api.js';
import { bytes, get, make } from './dom.js';
import { change, settings } from './settings.js';

/** @typedef {{name: string, aliases: string[], kind: string, base: string | null, state: string, in_memory: boolean, progress: any, unavailable_because: string | null}} Model */

/** @type {Model[]} */
let models = [];

const BASES = { sd15: 'Stable Diffusion 1.5', sd2: 'Stable Diffusion 2', sdxl: 'SDXL' };
/** Both dialects take five of each. */
const MOST = 5;

export const find = (name) => models.find((model) => model.name === name || model.aliases.includes(name));
const isComing = (model) => model?.state === 'downloading' || model?.state === 'checking';
export const anyFetching = () => models.some(isComing);
/** Which of these is on its way, in words; empty when none is. @param {string[]} names */
export function onItsWay(names) {
  const coming = names.map(find).find(isComing);
  return coming ? `${coming.name} is ${words(coming)}` : '';
}

/** Asks the server; the first checkpoint is taken where none is chosen. */
export async function refresh() {
  models = (await getJson('v1/models')).models;
  const checkpoints = models.filter((model) => model.kind === 'checkpoint');
  if (!find(settings.model) && checkpoints.length) change({ model: (checkpoints.find((model) => model.in_memory) ?? checkpoints[0]).name });
  show();
}

const words = (model) => {
  if (model.in_memory) return 'in memory';
  const share = model.progress?.total_bytes ? ` ${Math.floor((100 * model.progress.done_bytes) / model.progress.total_bytes)} %` : '';
  return { available: 'on this machine', unchecked: 'on this machine', missing: 'not fetched yet', downloading: `being fetched${share}`, checking: `being checked${share}`, failed: 'cannot be used' }[model.state] ?? model.state;
};

/** Whether it can be used with the chosen checkpoint, as far as the catalogue tells. VAEs before SDXL are all alike. */
function fits(model) {
  const base = find(settings.model)?.base;
  if (!base || !model.base || model.kind === 'checkpoint') return true;
  return model.kind === 'vae' ? (model.base === 'sdxl') === (base === 'sdxl') : model.base === base;
}

function fill(select, kind, first) {
  const entries = models.filter((model) => model.kind === kind);
  const label = (model) => `${model.name}  ·  ${fits(model) ? words(model) : `for ${BASES[model.base] ?? model.base}`}`;
  const wanted = [...(first === null ? [] : [['', first, false]]), ...entries.map((model) => [model.name, label(model), !fits(model)])];
  const found = [...select.options].map((option) => [option.value, option.textContent, option.disabled]);
  // An open list must not change under the pointer without need.
  if (JSON.stringify(found) === JSON.stringify(wanted)) return;
  const kept = select.value;
  select.replaceChildren(...wanted.map(([value, text, disabled]) => make('option', { value, disabled }, text)));
  select.value = kept;
}

function state(box, name) {
  const model = find(name);
  if (!name || !model) return void box.replaceChildren(...(name ? [make('span', { className: 'badge bad' }, `${name} is not in the catalogue`)] : []));
  const kind = model.in_memory ? 'warm' : { failed: 'bad', missing: 'far', downloading: 'busy', checking: 'busy' }[model.state] ?? 'here';
  const parts = [make('span', { className: `badge ${kind}` }, words(model))];
  if (model.base) parts.push(make('small', {}, BASES[model.base] ?? model.base));
  if (model.state === 'missing') parts.push(make('small', {}, 'fetched when the first picture asks for it'));
  if (model.state === 'failed' && model.unavailable_because) parts.push(make('small', {}, model.unavailable_because));
  if (model.progress) {
    const { done_bytes: done, total_bytes: total, bytes_per_second: speed } = model.progress;
    const bar = make('progress', { max: 1, 'aria-label': `How much of ${model.name} is here` });
    if (total) bar.value = done / total;
    parts.push(bar);
    if (done) parts.push(make('small', {}, `${bytes(done)}${total ? ` of ${bytes(total)}` : ''}${speed ? `, ${bytes(speed)}/s` : ''}`));
  }
  box.replaceChildren(...parts);
}

/** The lists of what is chosen. */
export function show() {
  fill(get('model'), 'checkpoint', null);
  fill(get('vae'), 'vae', 'The model’s own');
  fill(get('lora'), 'lora', models.some((model) => model.kind === 'lora') ? 'Choose …' : 'The catalogue has none');
  fill(get('embedding'), 'embedding', models.some((model) => model.kind === 'embedding') ? 'Choose …' : 'The catalogue has none');
  get('model').value = find(settings.model)?.name ?? '';
  get('vae').value = find(settings.vae)?.name ?? '';
  state(get('model-state'), settings.model);
  state(get('vae-state'), settings.vae);
  const chosen = settings.loras.length + settings.embeddings.length + (settings.vae ? 1 : 0);
  get('adapters-count').textContent = chosen ? String(chosen) : '';
  row(get('loras'), settings.loras, lora);
  row(get('embeddings'), settings.embeddings, embedding);
}

/** Lists are made anew only when another thing is chosen, so that a slider keeps its focus. */
function row(list, chosen, one) {
  const names = chosen.map((item) => item.name ?? item).join('\n');
  if (list.dataset.names === names && names !== '') return void [...list.querySelectorAll('.state')].forEach((box) => state(box, box.dataset.name));
  list.dataset.names = names;
  list.replaceChildren(...chosen.map(one));
}

function stateBox(name) {
  const box = make('div', { className: 'state' });
  box.dataset.name = name;
  state(box, name);
  return box;
}

function lora({ name, strength }) {
  const output = make('output', {}, strength.toFixed(2));
  const slider = make('input', {
    type: 'range', min: '-1', max: '2', step: '0.05', value: String(strength), 'aria-label': `Strength of ${name}`,
    oninput: (event) => {
      output.textContent = Number(event.target.value).toFixed(2);
      change({ loras: settings.loras.map((other) => (other.name === name ? { name, strength: Number(event.target.value) } : other)) });
    },
  });
  const away = make('button', { type: 'button', className: 'quiet', 'aria-label': `Without ${name}`, onclick: () => change({ loras: settings.loras.filter((other) => other.name !== name) }) }, '×');
  return make('li', {}, make('span', { className: 'name' }, name), output, away, slider, stateBox(name));
}

function embedding(name) {
  const away = make('button', { type: 'button', className: 'quiet', 'aria-label': `Without ${name}`, onclick: () => change({ embeddings: settings.embeddings.filter((other) => other !== name) }) }, '×');
  return make('li', {}, make('span', { className: 'name' }, name), away, stateBox(name));
}

/** Reads the pickers. */
export function listen() {
  get('lora').addEventListener('change', (event) => {
    const name = event.target.value;
    event.target.value = '';
    if (name && settings.loras.length < MOST && !settings.loras.some((lora) => lora.name === name)) change({ loras: [...settings.loras, { name, strength: 1 }] });
  });
  get('embedding').addEventListener('change', (event) => {
    const name = event.target.value;
    event.target.value = '';
    if (!name || settings.embeddings.length >= MOST || settings.embeddings.includes(name)) return;
    // It has an effect only where its name is written.
    const place = /neg/i.test(name) ? 'negative' : 'prompt';
    const isWritten = `${settings.prompt} ${settings.negative}`.includes(name);
    const joined = [settings[place].trim(), name].filter(Boolean).join(', ');
    change({ embeddings: [...settings.embeddings, name], [place]: isWritten ? settings[place] : joined });
  });
}
