// Small helpers around the document. Invariant: text from a server or a file becomes a text node and never markup.

/** @param {string} id @returns {any} */
export const get = (id) => document.getElementById(id);

/**
 * An element with properties and children; children that are texts become text nodes.
 * @param {string} name @param {Record<string, any>} [properties] @param {...any} children @returns {any}
 */
export function make(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key.startsWith('on')) element.addEventListener(key.slice(2), value);
    else if (key.includes('-')) element.setAttribute(key, String(value));
    else element[key] = value;
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** A line below the header. It goes by itself unless it is bad. */
export function notice(text, kind = 'good') {
  const line = make('p', { className: `notice ${kind}` }, text);
  const away = make('button', { type: 'button', className: 'quiet', 'aria-label': 'Close', onclick: () => line.remove() }, '×');
  line.append(away);
  const all = get('notices');
  for (const old of all.children) if (old.textContent === line.textContent) old.remove();
  all.append(line);
  while (all.children.length > 3) all.firstChild.remove();
  if (kind !== 'bad') setTimeout(() => line.remove(), 8000);
}

/** Seconds as a person says them. */
export function duration(seconds) {
  if (seconds < 1) return 'a moment';
  if (seconds < 90) return `${Math.ceil(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

/** Bytes as a person says them. */
export function bytes(count) {
  if (count < 1e6) return `${Math.round(count / 1e3)} kB`;
  if (count < 1e9) return `${Math.round(count / 1e6)} MB`;
  return `${(count / 1e9).toFixed(1)} GB`;
}

/** Marks one of the buttons as pressed. */
export function press(buttons, chosen) {
  for (const button of buttons) button.setAttribute('aria-pressed', String(button === chosen));
}
