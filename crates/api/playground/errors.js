// What went wrong, beside the control that it is about.

import { get, make, notice } from './dom.js';
import { askForKey, setServer } from './key.js';
import { CONTROL_OF } from './settings.js';

export function clear() {
  for (const line of document.querySelectorAll('.field-error, .notice.bad')) line.remove();
  for (const control of document.querySelectorAll('#palette [aria-invalid]')) {
    control.removeAttribute('aria-invalid');
    control.removeAttribute('aria-describedby');
  }
}

/** @param {string} id of the control */
export function atField(id, message) {
  const control = get(id);
  const line = make('p', { className: 'field-error', id: `${id}-error` }, message);
  control.setAttribute('aria-invalid', 'true');
  control.setAttribute('aria-describedby', line.id);
  (control.closest('.field') ?? control.parentElement).append(line);
  const folded = control.closest('details');
  if (folded) folded.open = true;
  control.addEventListener('input', () => {
    line.remove();
    control.removeAttribute('aria-invalid');
  }, { once: true });
  control.focus();
}

/** Of a call that a person made. */
export function show(error) {
  if (error.needsKey) return askForKey(error);
  const fields = Object.entries(error.fields ?? {});
  const isHere = ([name]) => Object.hasOwn(CONTROL_OF, name) && !get(CONTROL_OF[name]).closest('[hidden]');
  const placed = fields.filter(isHere);
  for (const [name, message] of placed) atField(CONTROL_OF[name], message);
  if (placed.length < fields.length || fields.length === 0) notice(error.message || 'Something went wrong.', 'bad');
}

/** Of a call that the page makes by itself, again and again. */
export function ofServer(error) {
  if (error.needsKey) askForKey(error);
  else setServer('bad', error.message);
}
