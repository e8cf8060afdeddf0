// The mask: strokes over the picture, kept as a list so that each can be undone. White is painted anew.

import { get } from './dom.js';

/** Pixels that an arrow key moves the brush. */
const STRIDE = 8;
/** Longest side on the screen, so that strokes are smooth over small pictures. */
const SHARP = 1024;
/** Two colours, so that it is seen over every picture. */
const STRIPES = ['#2b22c9', '#f4f2ff'];
const STRIPE = 9;

export class Mask {
  /** @type {{erase: boolean, level?: number, width: number, points: [number, number][]}[]} */
  strokes = [];
  #shape = document.createElement('canvas');
  #canvas = get('mask');
  /** Of the picture; strokes are in its pixels. */
  #size = { width: 0, height: 0 };
  #scale = 1;
  #stripes = null;
  #open = null;
  #cursor = [0, 0];
  #holds = false;
  softEdge = 0;
  erase = false;
  #byDegrees = false;

  /** @param {() => void} changed */
  constructor(changed) {
    this.changed = changed;
    const canvas = this.#canvas;
    canvas.addEventListener('pointerdown', (event) => this.#down(event));
    canvas.addEventListener('pointermove', (event) => this.#move(event));
    for (const name of ['pointerup', 'pointercancel']) canvas.addEventListener(name, () => this.#up());
    canvas.addEventListener('keydown', (event) => this.#key(event));
    canvas.addEventListener('keyup', (event) => event.key === ' ' && this.#up());
    canvas.addEventListener('blur', () => this.#up());
    for (const name of ['focus', 'blur']) canvas.addEventListener(name, () => this.draw());
  }

  /** Whether it says how much each part may change, and not only whether it does. */
  get byDegrees() {
    return this.#byDegrees;
  }

  set byDegrees(on) {
    if (on === this.#byDegrees) return;
    this.#byDegrees = on;
    if (this.#size.width > 0) this.#redraw();
  }

  get isEmpty() {
    return this.strokes.every((stroke) => stroke.erase);
  }

  /** A mask for another picture. */
  resize({ width, height }) {
    if (this.#size.width === width && this.#size.height === height) return;
    this.#size = { width, height };
    this.#scale = Math.max(1, SHARP / Math.max(width, height));
    const drawn = { width: Math.round(width * this.#scale), height: Math.round(height * this.#scale) };
    Object.assign(this.#canvas, drawn);
    Object.assign(this.#shape, drawn);
    this.#stripes = stripes(this.#canvas.getContext('2d'));
    this.#cursor = [width / 2, height / 2];
    this.clear();
  }

  clear() {
    this.strokes = [];
    this.#redraw();
  }

  undo() {
    this.strokes.pop();
    this.#redraw();
  }

  /** White strokes on black, as both edges of the server expect it; by degrees they are as light as they count, and fade. */
  picture() {
    const canvas = document.createElement('canvas');
    Object.assign(canvas, this.#size);
    const context = canvas.getContext('2d');
    context.fillStyle = '#000';
    context.fillRect(0, 0, canvas.width, canvas.height);
    this.#drawShape(context, this.#byDegrees ? this.softEdge : 0);
    return canvas;
  }

  /** What is painted over, with the fading edge that the server will make, and the brush of who has no pointer. */
  draw() {
    const context = this.#canvas.getContext('2d');
    const { width, height } = this.#canvas;
    context.clearRect(0, 0, width, height);
    context.globalCompositeOperation = 'source-over';
    this.#drawShape(context, this.softEdge * this.#scale);
    // The edge fades inwards only, since the server keeps what was not painted over; by degrees it is part of the mask.
    if (!this.#byDegrees) {
      context.globalCompositeOperation = 'destination-in';
      context.drawImage(this.#shape, 0, 0);
    }
    context.globalCompositeOperation = 'source-in';
    context.fillStyle = this.#stripes;
    context.fillRect(0, 0, width, height);
    context.globalCompositeOperation = 'source-over';
    if (document.activeElement === this.#canvas && this.#canvas.matches(':focus-visible')) {
      context.beginPath();
      const [x, y] = this.#cursor;
      context.arc(x * this.#scale, y * this.#scale, (this.#width() * this.#scale) / 2, 0, 7);
      context.lineWidth = 3;
      context.strokeStyle = '#fff';
      context.stroke();
      context.setLineDash([6, 6]);
      context.strokeStyle = '#000';
      context.stroke();
      context.setLineDash([]);
    }
  }

  /** The strokes, with an edge that fades over so many pixels: the shadow of a shape beside the canvas, as Safari's canvas has no `filter`. */
  #drawShape(context, edge) {
    const { width, height } = context.canvas;
    context.save();
    // Half of it is the deviation of the blur.
    if (edge > 0) Object.assign(context, { shadowColor: '#fff', shadowBlur: edge, shadowOffsetX: width });
    context.drawImage(this.#shape, edge > 0 ? -width : 0, 0, width, height);
    context.restore();
  }

  #width() {
    return Number(get('brush-size').value) * (Math.max(this.#size.width, this.#size.height) / 512);
  }

  #place(event) {
    const box = this.#canvas.getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * this.#size.width, ((event.clientY - box.top) / box.height) * this.#size.height];
  }

  #begin(point) {
    this.#open = { erase: this.erase, level: Number(get('brush-level').value) / 100, width: this.#width(), points: [point] };
    this.strokes.push(this.#open);
    this.#stroke(this.#open);
    this.draw();
  }

  #extend(point) {
    this.#open.points.push(point);
    this.#stroke({ ...this.#open, points: this.#open.points.slice(-2) });
    this.draw();
  }

  #down(event) {
    if (event.button !== 0) return;
    event.preventDefault();
    this.#canvas.setPointerCapture(event.pointerId);
    this.#cursor = this.#place(event);
    this.#begin(this.#cursor);
  }

  #move(event) {
    if (this.#open && !this.#holds) {
      for (const part of event.getCoalescedEvents?.() ?? [event]) this.#extend(this.#place(part));
    }
  }

  #up() {
    if (!this.#open) return;
    this.#open = null;
    this.#holds = false;
    this.changed();
  }

  #key(event) {
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const step = steps[event.key];
    if (step) {
      const limit = (value, most) => Math.min(most, Math.max(0, value));
      this.#cursor = [limit(this.#cursor[0] + step[0] * STRIDE, this.#size.width), limit(this.#cursor[1] + step[1] * STRIDE, this.#size.height)];
      if (this.#open) this.#extend(this.#cursor);
      else this.draw();
    } else if (event.key === ' ') {
      if (!this.#open) this.#begin(this.#cursor);
      this.#holds = true;
    } else if (event.key === 'z' || event.key === 'Z') {
      this.undo();
    } else {
      return;
    }
    event.preventDefault();
  }

  #stroke({ erase, level = 1, width, points }) {
    const context = this.#shape.getContext('2d');
    context.setTransform(this.#scale, 0, 0, this.#scale, 0, 0);
    context.strokeStyle = '#fff';
    context.lineWidth = width;
    context.lineCap = context.lineJoin = 'round';
    context.beginPath();
    context.moveTo(points[0][0], points[0][1]);
    for (const [x, y] of points) context.lineTo(x, y);
    const share = this.#byDegrees ? level : 1;
    // A lighter stroke takes the place of what is below it, which it would otherwise add to.
    if (erase || share < 1) {
      context.globalCompositeOperation = 'destination-out';
      context.stroke();
    }
    if (!erase) {
      context.globalCompositeOperation = 'source-over';
      context.globalAlpha = share;
      context.stroke();
      context.globalAlpha = 1;
    }
    context.resetTransform();
  }

  #redraw() {
    this.#shape.getContext('2d').clearRect(0, 0, this.#shape.width, this.#shape.height);
    this.strokes.forEach((stroke) => this.#stroke(stroke));
    this.draw();
    this.changed();
  }
}

function stripes(context) {
  const tile = document.createElement('canvas');
  tile.width = tile.height = 4 * STRIPE;
  const drawing = tile.getContext('2d');
  drawing.fillStyle = STRIPES[0];
  drawing.fillRect(0, 0, tile.width, tile.height);
  drawing.strokeStyle = STRIPES[1];
  drawing.lineWidth = STRIPE / 2;
  // Also beyond the tile, so that its corners fit its neighbours.
  for (const shift of [-tile.width, 0, tile.width]) {
    drawing.moveTo(shift, tile.height);
    drawing.lineTo(shift + tile.width, 0);
  }
  drawing.stroke();
  return context.createPattern(tile, 'repeat');
}

/** Connects the tools with the mask. @param {Mask} mask @param {() => void} opened */
export function listen(mask, opened) {
  const pressed = (id, on) => get(id).setAttribute('aria-pressed', String(on));
  get('brush-on').addEventListener('click', () => {
    const on = get('brush-tools').hidden;
    get('brush-tools').hidden = get('mask').hidden = get('brush-hint').hidden = !on;
    pressed('brush-on', on);
    if (on) opened();
    else mask.clear();
    get('brush-on').textContent = on ? 'No mask' : 'Paint a mask';
  });
  get('brush-erase').addEventListener('click', () => {
    mask.erase = !mask.erase;
    pressed('brush-erase', mask.erase);
  });
  get('brush-size').addEventListener('input', () => mask.draw());
  get('brush-level').addEventListener('input', (event) => (get('brush-level-out').textContent = `${event.target.value} %`));
  get('brush-undo').addEventListener('click', () => mask.undo());
  get('brush-clear').addEventListener('click', () => mask.clear());
}
