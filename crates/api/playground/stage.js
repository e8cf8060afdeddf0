// The large picture: a place to drop one, the original with its mask, and before and after.

import { get, make, press } from './dom.js';
import { Mask, listen as listenToBrush } from './mask.js';
import { decode, draw, fitted, png } from './picture.js';
import { settings } from './settings.js';

export class Stage {
  /** @type {ImageBitmap | null} */
  #bitmap = null;
  /** @type {Blob | null} the file as it was given */
  source = null;
  #addresses = { before: '', after: '' };

  /** @param {{changed: () => void, masked: () => void, cancel: () => void}} tell */
  constructor(tell) {
    this.tell = tell;
    this.mask = new Mask(() => this.#maskChanged());
    listenToBrush(this.mask, () => {
      this.show('edit');
      tell.masked();
    });
    get('view-edit').addEventListener('click', () => this.show('edit'));
    get('view-result').addEventListener('click', () => this.show('result'));
    get('seam').addEventListener('input', (event) => this.#seam(event.target.value));
    get('working-cancel').addEventListener('click', () => tell.cancel());
    this.#seam(50);
  }

  get hasPicture() {
    return this.#bitmap !== null;
  }

  get hasMask() {
    return this.hasPicture && !get('brush-tools').hidden && !this.mask.isEmpty;
  }

  get size() {
    return { width: get('picture').width, height: get('picture').height };
  }

  /** @param {Blob} blob */
  async use(blob) {
    const bitmap = await decode(blob);
    this.#bitmap?.close();
    this.#bitmap = bitmap;
    this.source = blob;
    this.mask.clear();
    get('drop').hidden = true;
    get('brush').hidden = false;
    document.querySelector('.views').hidden = false;
    this.fit();
    this.show('edit');
  }

  /** Draws the picture in the size that is set. */
  fit() {
    if (!this.#bitmap) return;
    const size = fitted(this.#bitmap, settings.longest);
    draw(get('picture'), this.#bitmap, size);
    this.mask.resize(size);
    get('frame').style.setProperty('--ratio', String(size.width / size.height));
    get('size').textContent = `${size.width} × ${size.height}`;
  }

  /** Opens the tools with these strokes. */
  restoreMask(strokes) {
    if (strokes.length === 0) return;
    if (get('brush-tools').hidden) get('brush-on').click();
    this.mask.strokes = [];
    for (const stroke of strokes) this.mask.strokes.push(stroke);
    this.mask.strokes.push(strokes[0]);
    this.mask.undo();
  }

  /** The picture as it is sent. */
  before = () => png(get('picture'));
  maskPicture = () => png(this.mask.picture());

  /** @param {'edit' | 'result'} view */
  show(view) {
    const isResult = view === 'result';
    get('edit').hidden = isResult || !this.hasPicture;
    get('compare').hidden = !isResult;
    get('drop').hidden = isResult || this.hasPicture;
    get('brush').hidden = isResult || !this.hasPicture;
    get('about').hidden = !isResult || !get('about').dataset.entry;
    press([get('view-edit'), get('view-result')], get(isResult ? 'view-result' : 'view-edit'));
    if (!isResult) this.mask.draw();
  }

  /** A run begins: what comes is laid over this. @param {Blob} before */
  begin(before, ratio) {
    this.#put('before', before);
    this.#address('after', this.#addresses.before);
    delete get('about').dataset.entry;
    get('compare').classList.add('is-working');
    get('compare').style.setProperty('--ratio', String(ratio));
    get('view-result').disabled = false;
    document.querySelector('.views').hidden = false;
    this.#seam(0);
    this.show('result');
    this.working('sending the picture', null);
    get('frame').scrollIntoView({ block: 'nearest' });
  }

  /** @param {string} text @param {number | null} share */
  working(text, share) {
    get('working').hidden = false;
    get('working-text').textContent = text;
    const bar = get('working-bar');
    if (share === null) bar.removeAttribute('value');
    else bar.value = share;
  }

  preview(address) {
    if (address && !get('working').hidden) this.#address('after', address);
  }

  /** Nothing runs any more. */
  rest() {
    get('working').hidden = true;
    get('compare').classList.remove('is-working');
  }

  /** A finished picture. @param {import('./gallery.js').Entry} entry */
  result(entry, address) {
    this.rest();
    this.#put('before', entry.before);
    this.#address('after', address);
    get('compare').style.setProperty('--ratio', String(entry.recipe.width / entry.recipe.height));
    get('after').alt = `After: ${String(entry.recipe.prompt ?? '').slice(0, 200)}`;
    get('view-result').disabled = false;
    document.querySelector('.views').hidden = false;
    get('about').dataset.entry = 'yes';
    get('download').href = address;
    get('download').download = `pentimento-${entry.recipe.seed}.png`;
    get('parameters').replaceChildren(...parameters(entry));
    this.#seam(50);
    this.show('result');
  }

  /** The picture on show is gone, or its run has failed. */
  withdraw() {
    this.rest();
    delete get('about').dataset.entry;
    get('view-result').disabled = true;
    this.show('edit');
  }

  #maskChanged() {
    get('brush-undo').disabled = get('brush-clear').disabled = this.mask.strokes.length === 0;
    this.tell.changed();
  }

  #seam(value) {
    get('seam').value = value;
    get('compare').style.setProperty('--seam', `${value}%`);
  }

  #put(which, blob) {
    if (this.#addresses[which]) URL.revokeObjectURL(this.#addresses[which]);
    this.#addresses[which] = URL.createObjectURL(blob);
    get(which).src = this.#addresses[which];
  }

  #address(which, address) {
    get(which).src = address;
  }
}

function parameters({ recipe, facts }) {
  const loras = (recipe.loras ?? []).map((lora) => `${lora.name} ${lora.strength}`).join(', ');
  const rows = {
    Prompt: recipe.prompt, 'Not this': recipe.negative_prompt, Model: recipe.model, Seed: recipe.seed, Strength: recipe.strength,
    Steps: recipe.steps, Guidance: recipe.guidance_scale, Scheduler: (recipe.scheduler ?? '').replace(/(Discrete)?Scheduler$/, ''), LoRAs: loras, Embeddings: (recipe.embeddings ?? []).join(', '),
    VAE: recipe.vae, Size: `${recipe.width} × ${recipe.height}`, Took: facts.took, Note: (facts.notes ?? []).join(' '),
  };
  const said = Object.entries(rows).filter(([, value]) => value !== null && value !== undefined && value !== '');
  return said.map(([name, value]) => make('div', {}, make('dt', {}, name), make('dd', {}, String(value))));
}
