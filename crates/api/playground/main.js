// Puts the page together: what a person does becomes a call, and what comes back goes to the stage and the gallery.

import { getJson } from './api.js';
import * as code from './code.js';
import { get, make, notice } from './dom.js';
import * as errors from './errors.js';
import { Gallery, open, put, take } from './gallery.js';
import * as incoming from './incoming.js';
import { Queue } from './jobs.js';
import * as key from './key.js';
import * as models from './models.js';
import { parametersIn } from './picture.js';
import { Runs } from './runs.js';
import { change, dialect, listen, ofRecipe, onChange, settings, usePreset } from './settings.js';
import { Stage } from './stage.js';
import * as theme from './theme.js';

/** @type {import('./gallery.js').Entry | null} the one on the stage */
let shown = null;
let draftTimer = 0;

const stage = new Stage({ changed: drafted, masked, cancel: () => runs.cancelCurrent() });
const gallery = new Gallery((entry) => {
  show(entry);
  get('frame').scrollIntoView({ block: 'nearest' });
});
const runs = new Runs(stage, gallery, show);
const queue = new Queue({
  changed: (job, preview) => runs.changed(job, preview),
  ended: (job) => runs.ended(job),
  failed: errors.ofServer,
  isOwn: (id) => runs.open.some((run) => run.id === id),
  isBusy: () => runs.open.length > 0,
});
runs.queue = queue;

async function usePicture(blob) {
  try {
    const parameters = await parametersIn(blob);
    const known = parameters && gallery.like(JSON.stringify(parameters));
    if (known) return await useAgain(known);
    await stage.use(blob);
    if (parameters) {
      change(ofRecipe(parameters));
      notice('This picture was made here: its settings are back.');
    }
    await saveDraft();
  } catch (error) {
    notice(error.message, 'bad');
  }
}

/** Settings, seed, original and mask of a picture of the gallery. */
async function useAgain(entry) {
  await stage.use(entry.before);
  change({ byDegrees: false, ...entry.settings, seed: String(entry.recipe.seed), count: 1 });
  stage.restoreMask(entry.strokes);
  await saveDraft();
  notice('Settings and original of this picture are back.');
}

/** A mask is ModelsLab's to paint. */
function masked() {
  if (dialect() === 'modelslab') return;
  usePreset('fine');
  notice('Masks go through ModelsLab’s call, so the settings are now those of UniPC.', 'plain');
}

function show(entry) {
  shown = entry;
  runs.current = null;
  gallery.mark(entry);
  stage.result(entry, gallery.address(entry));
}

/** The picture that is worked on outlives a reload. */
function drafted() {
  if (stage.hasMask) masked();
  code.show(stage);
  clearTimeout(draftTimer);
  draftTimer = setTimeout(saveDraft, 300);
}

async function saveDraft() {
  if (stage.source) await put('draft', { blob: stage.source, strokes: stage.mask.strokes }, 'picture').catch(() => {});
}

async function loadDraft() {
  const draft = await take('draft', 'picture').catch(() => undefined);
  if (!draft) return;
  await stage.use(draft.blob).then(() => stage.restoreMask(draft.strokes)).catch(() => {});
}

/** Everything that is asked of the server; again with every key. */
async function start() {
  try {
    await models.refresh();
    key.setServer('good', await readiness());
    await listSchedulers();
    await runs.resume();
    await queue.restart();
  } catch (error) {
    errors.ofServer(error);
    if (!error.needsKey) setTimeout(start, 5000);
  }
}

/** In a cluster, how many machines run jobs. */
async function readiness() {
  const { nodes } = await getJson('api/v1/enterprise/system_details');
  if (!nodes) return 'ready';
  const working = nodes.filter((node) => node.works && !node.draining).length;
  return working ? `ready, ${working} of ${nodes.length} machines at work` : 'no machine of the cluster runs jobs';
}

async function listSchedulers() {
  const { schedulers } = await getJson('api/v1/enterprise/schedulers_list');
  const plain = (name) => name.replace(/(Discrete)?Scheduler$/, '') || 'The model’s own';
  get('scheduler').replaceChildren(...['', ...schedulers].map((value) => make('option', { value }, plain(value))));
  get('scheduler').value = settings.scheduler;
}

/** While something is being fetched its progress is looked at. */
async function lookAtModels() {
  if (!document.hidden && get('server').classList.contains('good')) await models.refresh().catch(() => {});
  setTimeout(lookAtModels, models.anyFetching() ? 2000 : 20_000);
}

function listenToSettings() {
  let { longest } = settings;
  onChange(() => {
    if (longest !== settings.longest) stage.fit();
    ({ longest } = settings);
    stage.mask.softEdge = settings.softEdge;
    stage.mask.byDegrees = settings.byDegrees;
    if (stage.hasPicture) stage.mask.draw();
    if (stage.hasMask) masked();
    models.show();
    code.show(stage);
  });
  stage.mask.softEdge = settings.softEdge;
  stage.mask.byDegrees = settings.byDegrees;
  const paint = () => runs.paint().catch(errors.show);
  get('palette').addEventListener('submit', (event) => {
    event.preventDefault();
    paint();
  });
  addEventListener('keydown', (event) => {
    if (event.key === 'Enter' && (event.ctrlKey || event.metaKey) && !get('key-dialog').open) paint();
  });
  get('again').addEventListener('click', () => shown && useAgain(shown));
  get('onwards').addEventListener('click', () => shown && stage.use(shown.image).then(saveDraft));
}

async function begin() {
  theme.listen();
  listen();
  models.listen();
  key.listen(() => {
    code.show(stage);
    start();
  });
  code.listen(stage);
  incoming.listen({
    file: usePicture,
    address: (address) => {
      const own = gallery.entries.find((entry) => gallery.address(entry) === address);
      if (own) useAgain(own);
      return own !== undefined;
    },
    sampled: () => settings.prompt || change({ prompt: 'snowy mountains at night' }),
  });
  listenToSettings();
  await open();
  await gallery.load();
  await loadDraft();
  code.show(stage);
  await start();
  lookAtModels();
}

begin();
