// Own results with what they were made of, in this browser only: IndexedDB, or memory where the browser has none.

import { get, make, notice } from './dom.js';

/** Older ones are forgotten. */
const MOST = 200;
const STORES = { pictures: { keyPath: 'id', autoIncrement: true }, runs: { keyPath: 'id' }, draft: {} };

/** @type {IDBDatabase | null} */
let database = null;
const memory = { pictures: new Map(), runs: new Map(), draft: new Map() };
let nextId = 1;

/** @typedef {{id?: number, image: Blob, before: Blob, recipe: any, facts: any, parameters: string, at: number}} Entry */

export function open() {
  return new Promise((done) => {
    const without = () => {
      notice('This browser lets the page keep nothing: the gallery is gone when the tab is closed.', 'plain');
      done(undefined);
    };
    try {
      const request = indexedDB.open('pentimento', 1);
      request.onupgradeneeded = () => Object.entries(STORES).forEach(([name, options]) => request.result.createObjectStore(name, options));
      request.onsuccess = () => {
        database = request.result;
        done(undefined);
      };
      request.onerror = request.onblocked = without;
    } catch {
      without();
    }
  });
}

function ask(store, mode, use) {
  return new Promise((done, fail) => {
    const request = use(database.transaction(store, mode).objectStore(store));
    request.onsuccess = () => done(request.result);
    request.onerror = () => fail(request.error);
  });
}

export async function put(store, value, id = value?.id) {
  if (database) return ask(store, 'readwrite', (place) => (STORES[store].keyPath ? place.put(value) : place.put(value, id)));
  const at = id ?? nextId++;
  memory[store].set(at, { ...value, ...(STORES[store].keyPath ? { id: at } : {}) });
  return at;
}

export const take = (store, id) => (database ? ask(store, 'readonly', (place) => place.get(id)) : Promise.resolve(memory[store].get(id)));
export const all = (store) => (database ? ask(store, 'readonly', (place) => place.getAll()) : Promise.resolve([...memory[store].values()]));
export const forget = (store, id) => (database ? ask(store, 'readwrite', (place) => place.delete(id)) : Promise.resolve(memory[store].delete(id)));

export class Gallery {
  /** @type {Entry[]} newest first */
  entries = [];
  #addresses = new Map();
  #chosen = null;

  /** @param {(entry: Entry) => void} chosen */
  constructor(chosen) {
    this.chosen = chosen;
    get('gallery-clear').addEventListener('click', async () => {
      if (!window.confirm(`Forget ${this.entries.length} pictures? They are nowhere else, unless you have downloaded them.`)) return;
      for (const entry of [...this.entries]) await this.remove(entry);
    });
  }

  async load() {
    this.entries = (await all('pictures')).reverse();
    this.show();
  }

  /** @param {Entry} entry */
  async add(entry) {
    try {
      entry.id = await put('pictures', entry);
    } catch {
      notice('The browser has no room for more pictures: download this one, or empty the gallery.', 'bad');
      entry.id = -nextId++;
    }
    this.entries.unshift(entry);
    for (const old of this.entries.slice(MOST)) await this.remove(old);
    this.show();
    return entry;
  }

  async remove(entry) {
    this.entries = this.entries.filter((other) => other !== entry);
    URL.revokeObjectURL(this.#addresses.get(entry.id));
    this.#addresses.delete(entry.id);
    await forget('pictures', entry.id);
    this.show();
  }

  /** The entry whose picture says the same of itself. */
  like = (parameters) => this.entries.find((entry) => entry.parameters === parameters);

  address(entry) {
    if (!this.#addresses.has(entry.id)) this.#addresses.set(entry.id, URL.createObjectURL(entry.image));
    return this.#addresses.get(entry.id);
  }

  mark(entry) {
    this.#chosen = entry;
    this.show();
  }

  show() {
    get('gallery-empty').hidden = this.entries.length > 0;
    get('gallery-clear').hidden = this.entries.length === 0;
    get('pictures').replaceChildren(...this.entries.map((entry) => this.#thumbnail(entry)));
  }

  #thumbnail(entry) {
    const prompt = String(entry.recipe.prompt ?? '');
    const picture = make('img', { src: this.address(entry), alt: '', loading: 'lazy', draggable: true });
    const open = make('button', { type: 'button', className: 'thumb', 'aria-label': `Show: ${prompt.slice(0, 100) || 'no prompt'}`, 'aria-pressed': entry === this.#chosen, title: prompt.slice(0, 300), onclick: () => this.chosen(entry) }, picture);
    const away = make('button', { type: 'button', className: 'quiet away', 'aria-label': `Forget: ${prompt.slice(0, 100) || 'no prompt'}`, onclick: () => this.remove(entry) }, '×');
    return make('li', {}, open, away);
  }
}
