// The jobs of this key that have not ended, live: a list that is asked for, and events of those that matter most.

import { ApiError, events, getJson, remove } from './api.js';
import { duration, get, make } from './dom.js';

/** A browser has six connections to a server, and a call of Novita's holds one. */
const MOST_STREAMS = 2;
const OPEN = 'v1/jobs?state=fetching,queued,running&limit=30';
const SOON = 1500;
const LATER = 8000;

export const hasEnded = (job) => ['succeeded', 'failed', 'cancelled'].includes(job.state);

/** What is to be said of a job that has not ended. */
export function status(job) {
  const left = typeof job.seconds_left === 'number' ? `about ${duration(job.seconds_left)}` : '';
  if (job.state === 'fetching') return 'fetching its pictures';
  if (job.state === 'queued') return [job.queue_position > 1 ? `number ${job.queue_position} in line` : 'next in line', left].filter(Boolean).join(' · ');
  if (!job.progress?.total) return 'beginning';
  const { done, total } = job.progress;
  return [done < total ? `${done} of ${total}` : 'finishing', left].filter(Boolean).join(' · ');
}

export const share = (job) => (job.state === 'running' && job.progress?.total ? job.progress.done / job.progress.total : null);

/** Sets a bar, or lets it say that nothing is known. */
export function setBar(bar, value) {
  if (value === null) bar.removeAttribute('value');
  else bar.value = value;
}

export class Queue {
  /** @type {Map<string, {job: any, preview: string, stream: AbortController | null, card: any}>} */
  open = new Map();
  #timer = 0;
  #isAsking = false;

  /** @param {{changed: (job: any, preview: string) => void, ended: (job: any) => void, failed: (error: Error) => void, isOwn: (id: string) => boolean, isBusy: () => boolean}} tell */
  constructor(tell) {
    this.tell = tell;
    document.addEventListener('visibilitychange', () => document.hidden || this.refresh());
  }

  /** Asks now, and then again from time to time. */
  async refresh() {
    clearTimeout(this.#timer);
    if (this.#isAsking) return;
    this.#isAsking = true;
    let pause = LATER;
    try {
      this.#take((await getJson(OPEN)).jobs);
      pause = this.open.size || this.tell.isBusy() ? SOON : LATER;
    } catch (error) {
      this.tell.failed(error);
      if (error instanceof ApiError && error.needsKey) pause = 0;
      else pause = Math.max(LATER, 1000 * error.retryAfter || 0);
    } finally {
      this.#isAsking = false;
    }
    if (pause) this.#timer = setTimeout(() => this.refresh(), document.hidden ? Math.max(pause, LATER) : pause);
  }

  /** With another key other jobs are one's own. */
  restart() {
    for (const id of [...this.open.keys()]) this.#drop(id);
    return this.refresh();
  }

  async cancel(id) {
    const job = await remove(`v1/jobs/${id}`);
    if (hasEnded(job)) this.#end(job);
  }

  #take(jobs) {
    for (const job of jobs) {
      const known = this.open.get(job.id);
      if (known) Object.assign(known.job, job);
      else this.open.set(job.id, { job, preview: '', stream: null, card: card(job, () => this.#cancelFromCard(job.id)) });
      this.#show(job.id);
    }
    const listed = new Set(jobs.map((job) => job.id));
    for (const [id, { stream }] of this.open) if (!listed.has(id) && !stream) this.#settle(id);
    this.#openStreams();
    get('jobs-empty').hidden = this.open.size > 0;
  }

  #cancelFromCard(id) {
    this.cancel(id).catch((error) => this.tell.failed(error));
  }

  #openStreams() {
    const rank = ({ job }) => (this.tell.isOwn(job.id) ? 2 : 0) + (job.state === 'running' ? 1 : 0);
    const wanted = [...this.open.values()].sort((one, other) => rank(other) - rank(one));
    let free = MOST_STREAMS - wanted.filter(({ stream }) => stream).length;
    for (const entry of wanted) if (!entry.stream && free-- > 0) this.#watch(entry);
  }

  async #watch(entry) {
    const { id } = entry.job;
    const stream = (entry.stream = new AbortController());
    const tell = (name, data) => {
      if (name === 'preview') this.#preview(entry, data);
      else if (name === 'progress') entry.job.progress = data;
      else if (name === 'state') Object.assign(entry.job, data);
      else if (name === 'end') return data.deleted ? this.#drop(id) : this.#end(data);
      return this.#show(id);
    };
    await events(`v1/jobs/${id}/events`, tell, stream.signal).catch(() => {});
    entry.stream = null;
    if (this.open.has(id) && !stream.signal.aborted) this.#settle(id);
  }

  #preview(entry, { base64, content_type: type }) {
    const file = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
    const old = entry.preview;
    entry.preview = URL.createObjectURL(new Blob([file], { type: type === 'image/jpeg' ? type : 'image/png' }));
    // Whoever shows the old one is told of the new one first.
    setTimeout(() => URL.revokeObjectURL(old), 1000);
  }

  #show(id) {
    const entry = this.open.get(id);
    if (!entry) return;
    const { job, preview } = entry;
    entry.card.update(job, preview);
    if (!entry.card.isConnected) get('jobs').append(entry.card);
    this.tell.changed(job, preview);
  }

  /** It is not among the open ones any more. */
  async #settle(id) {
    const job = await getJson(`v1/jobs/${id}`).catch((error) => (error.status === 404 ? null : undefined));
    if (job === null) this.#drop(id);
    else if (job && hasEnded(job)) this.#end(job);
  }

  #end(job) {
    const isKnown = this.open.has(job.id);
    this.#drop(job.id);
    if (isKnown) this.tell.ended(job);
  }

  #drop(id) {
    const entry = this.open.get(id);
    if (!entry) return;
    this.open.delete(id);
    entry.stream?.abort();
    entry.card.remove();
    setTimeout(() => URL.revokeObjectURL(entry.preview), 1000);
    get('jobs-empty').hidden = this.open.size > 0;
  }
}

function card(job, cancel) {
  const prompt = String(job.recipe?.prompt ?? '');
  const picture = make('img', { alt: '', hidden: true });
  const line = make('span', { className: 'line' });
  const bar = make('progress', { max: 1, 'aria-label': 'Progress' });
  const facts = [job.recipe?.model, job.dialect === 'novita' ? 'Novita' : 'ModelsLab', job.recipe?.inpaint ? 'mask' : ''].filter(Boolean).join(' · ');
  const item = make('li', { className: 'job' }, make('span', { className: 'small-picture' }, picture), make('div', {}, make('b', {}, prompt || 'no prompt'), make('small', {}, facts), bar, line),
    make('button', { type: 'button', className: 'quiet', 'aria-label': `Cancel: ${prompt.slice(0, 100)}`, onclick: cancel }, 'Cancel'));
  item.update = (now, preview) => {
    line.textContent = status(now);
    setBar(bar, share(now));
    if (preview && picture.getAttribute('src') !== preview) Object.assign(picture, { src: preview, hidden: false });
  };
  item.update(job, '');
  return item;
}
