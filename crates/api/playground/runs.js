// Own jobs from the press of the button to the gallery, also those that were under way when the page was left.

import { ApiError, file, getJson, post } from './api.js';
import { get, notice } from './dom.js';
import * as errors from './errors.js';
import { all, forget, put } from './gallery.js';
import { hasEnded, share, status } from './jobs.js';
import * as models from './models.js';
import { base64, parametersIn } from './picture.js';
import { request } from './requests.js';
import { dialect, randomSeed, settings, wantedSeed } from './settings.js';

/** Calls that are sent at once; others wait here, so that connections are left for looking at jobs. */
const MOST_CALLS = 3;

/** Which tab a run is of; it stays the same over a reload. */
const TAB = 'pentimento-tab';
if (!sessionStorage.getItem(TAB)) sessionStorage.setItem(TAB, String(randomSeed()));
const tab = sessionStorage.getItem(TAB);

/** @typedef {{id: string, seed: number, dialect: string, settings: any, before: Blob, strokes: any[], width: number, height: number, isDone?: boolean, isCancelled?: boolean, wake?: () => void}} Run */

export class Runs {
  /** @type {Run[]} those that have not ended */
  open = [];
  /** @type {Run | null} the one on the stage */
  current = null;
  /** @type {import('./jobs.js').Queue} set once there is one */
  queue;
  #sending = 0;

  /** @param {import('./stage.js').Stage} stage @param {import('./gallery.js').Gallery} gallery @param {(entry: any) => void} finished */
  constructor(stage, gallery, finished) {
    this.stage = stage;
    this.gallery = gallery;
    this.finished = finished;
  }

  async paint() {
    const { stage } = this;
    errors.clear();
    if (!stage.hasPicture) {
      notice('A picture comes first: drop one, paste one, or choose a file.', 'bad');
      return get('choose').focus();
    }
    const wanted = wantedSeed();
    if (Number.isNaN(wanted)) return errors.atField('seed', 'A seed is a whole number from 0 to 9007199254740992, or nothing for a random one.');
    const before = await stage.before();
    const mask = stage.hasMask ? await base64(await stage.maskPicture()) : undefined;
    /** @type {Run} */
    const run = { id: '', seed: wanted ?? randomSeed(), dialect: dialect(), settings: structuredClone(settings), before, strokes: mask ? structuredClone(stage.mask.strokes) : [], ...stage.size };
    this.open.push(run);
    this.current = run;
    stage.begin(before, run.width / run.height);
    const call = request(run.settings, { dialect: run.dialect, seed: run.seed, image: await base64(before), mask, width: run.width, height: run.height });
    try {
      const id = await this.#sent(run, call);
      if (id === null || run.isDone) return;
      await this.#attach(run, id);
      const job = await getJson(`v1/jobs/${id}`);
      if (hasEnded(job)) await this.#finish(run, job);
    } catch (error) {
      this.#fail(run, error);
    }
  }

  /** The id of the job; null when it ended before it had one. A model that is on its way is waited for. */
  async #sent(run, call) {
    if (this.#sending >= MOST_CALLS) this.stage.working('waits for the pictures before it', null);
    while (this.#sending >= MOST_CALLS && !run.isCancelled) await pause(run, 300);
    this.#sending += 1;
    try {
      while (!run.isCancelled) {
        // The job is in the list long before the answer of a call that waits for its pictures.
        setTimeout(() => this.queue.refresh(), 200);
        try {
          return (await post(call.path, call.body)).jobId;
        } catch (error) {
          if (run.isDone) return null;
          if (!(error instanceof ApiError) || !error.retryAfter) throw error;
          await models.refresh();
          const { model, vae, loras, embeddings } = run.settings;
          const coming = models.onItsWay([model, vae, ...loras.map((lora) => lora.name), ...embeddings]);
          if (coming === '') throw error;
          if (run === this.current) this.stage.working(coming, null);
          await pause(run, 2000);
        }
      }
      this.#fail(run, null);
      return null;
    } finally {
      this.#sending -= 1;
    }
  }

  async #attach(run, id) {
    if (run.id === id) return;
    run.id = id;
    const { wake, ...kept } = run;
    await put('runs', { ...kept, tab }).catch(() => {});
  }

  /** News of any job of this key. */
  changed(job, preview) {
    const run = this.open.find((one) => one.id === job.id) ?? this.open.find((one) => !one.id && one.seed === job.recipe?.seed && one.dialect === job.dialect);
    if (!run) return;
    this.#attach(run, job.id);
    if (run.isCancelled) return void this.queue.cancel(job.id).catch(() => {});
    if (run !== this.current) return;
    this.stage.working(status(job), share(job));
    this.stage.preview(preview);
  }

  ended(job) {
    const run = this.open.find((one) => one.id === job.id);
    if (run) this.#finish(run, job).catch((error) => this.#fail(run, error));
  }

  async #finish(run, job) {
    if (run.isDone) return;
    if (job.state !== 'succeeded') return this.#fail(run, job.state === 'cancelled' ? null : new ApiError(job.error?.message ?? 'The job has failed.'));
    run.isDone = true;
    const entries = [];
    try {
      for (const picture of [...job.images].reverse()) entries.push(await this.gallery.add(await entry(run, job, picture)));
    } catch (error) {
      run.isDone = false;
      throw error;
    }
    this.#close(run);
    models.refresh().catch(() => {});
    if (run !== this.current) return;
    this.current = null;
    if (entries.length) this.finished(entries.pop());
  }

  /** @param {Run} run @param {Error | null} error null for a cancelled one */
  #fail(run, error) {
    if (run.isDone) return;
    run.isDone = true;
    this.#close(run);
    if (run === this.current) {
      this.current = null;
      this.stage.withdraw();
    }
    if (error === null || run.isCancelled) notice('Cancelled.');
    else errors.show(error);
  }

  #close(run) {
    this.open.splice(this.open.indexOf(run), 1);
    if (run.id) forget('runs', run.id).catch(() => {});
  }

  cancelCurrent() {
    const run = this.current;
    if (!run) return;
    run.isCancelled = true;
    this.stage.working('cancelling', null);
    run.wake?.();
    if (run.id) this.queue.cancel(run.id).catch((error) => run.isDone || errors.show(error));
  }

  /** Takes up what was under way when the page was left. */
  async resume() {
    const forgotten = { state: 'failed', error: { message: 'The server has forgotten a job that was under way.' } };
    for (const run of await all('runs')) {
      if (this.open.some((one) => one.id === run.id)) continue;
      const job = await getJson(`v1/jobs/${run.id}`).catch((error) => (error.status === 404 ? forgotten : null));
      // What is under way in another tab is that tab's, and what has ended is left over from a closed one.
      if (job === null || (run.tab !== tab && !hasEnded(job))) continue;
      run.isCancelled = run.isDone = false;
      this.open.push(run);
      if (!this.current) {
        this.current = run;
        this.stage.begin(run.before, run.width / run.height);
      }
      if (hasEnded(job)) await this.#finish(run, job).catch((error) => this.#fail(run, error));
    }
  }
}

async function entry(run, job, picture) {
  const image = await file(picture.url);
  const recipe = { ...job.recipe, seed: picture.seed, width: picture.width, height: picture.height };
  const facts = { notes: job.notes, dialect: job.dialect, took: took(job) };
  const parameters = JSON.stringify(await parametersIn(image));
  return { image, before: run.before, strokes: run.strokes, settings: run.settings, recipe, facts, parameters, at: Date.now() };
}

function took(job) {
  const time = Date.parse(job.finished_at) - Date.parse(job.started_at);
  return Number.isFinite(time) ? `${(time / 1000).toFixed(1)} s` : '';
}

const pause = (run, ms) =>
  new Promise((wake) => {
    run.wake = () => wake(undefined);
    setTimeout(wake, ms);
  });
