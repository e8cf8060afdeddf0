// The caller's key: asked for when the server wants one, and what the server says about itself beside it.

import { key } from './api.js';
import { get } from './dom.js';

/** The line in the header. @param {'good' | 'bad' | ''} kind */
export function setServer(kind, text) {
  get('server').className = `server ${kind}`;
  get('server-text').textContent = text;
}

/** @param {import('./api.js').ApiError} error */
export function askForKey(error) {
  const isMissing = key.get() === '';
  setServer('bad', isMissing ? 'asks for a key' : 'does not know this key');
  get('key-why').textContent = isMissing
    ? 'This server answers only those who have a key. It is kept until this tab is closed.'
    : `The server does not take this key: ${error.message}. Its operator makes keys with “pentimento keys new”.`;
  if (!isMissing) get('key').setAttribute('aria-invalid', 'true');
  if (!get('key-dialog').open) get('key-dialog').showModal();
}

/** @param {() => void} changed */
export function listen(changed) {
  const dialog = get('key-dialog');
  const mark = () => get('key-button').classList.toggle('has-key', key.get() !== '');
  const take = (value) => {
    key.set(value.trim());
    get('key').value = '';
    get('key').removeAttribute('aria-invalid');
    mark();
    dialog.close();
    changed();
  };
  get('key-button').addEventListener('click', () => dialog.showModal());
  get('key-cancel').addEventListener('click', () => dialog.close());
  get('key-forget').addEventListener('click', () => take(''));
  dialog.querySelector('form').addEventListener('submit', (event) => {
    event.preventDefault();
    take(get('key').value);
  });
  mark();
}
