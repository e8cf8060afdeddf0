// The settings as a program to copy, in both dialects.

import { key } from './api.js';
import { get, notice, press } from './dom.js';
import { code, request } from './requests.js';
import { dialect, PRESETS, settings, wantedSeed } from './settings.js';

const shown = { dialect: dialect(), language: 'curl' };
let last = dialect();
const EXAMPLE = 'snowy mountains at night';

/** @param {import('./stage.js').Stage} stage */
export function show(stage) {
  if (last !== dialect()) shown.dialect = last = dialect();
  // The other dialect takes other values.
  const preset = Object.values(PRESETS).find((one) => one.dialect === shown.dialect);
  const values = shown.dialect === dialect() ? settings : { ...settings, ...preset?.set, strength: settings.strength };
  const seed = wantedSeed();
  const size = stage.hasPicture ? stage.size : { width: 512, height: 512 };
  const mask = shown.dialect === 'modelslab' && stage.hasMask ? '…' : undefined;
  const call = request({ ...values, prompt: values.prompt || EXAMPLE }, { dialect: shown.dialect, seed: seed ?? NaN, image: '…', mask, ...size });
  if (!Number.isFinite(call.body.seed)) delete call.body.seed;
  get('code-files').hidden = !stage.hasPicture;
  get('save-mask').hidden = mask === undefined;
  get('code').textContent = code(call, shown.language, new URL('.', document.baseURI).href, key.get() !== '');
  for (const name of ['dialect', 'language']) {
    const buttons = [...document.querySelectorAll(`[data-${name}]`)];
    press(buttons, buttons.find((button) => button.dataset[name] === shown[name]));
  }
}

/** @param {import('./stage.js').Stage} stage */
export function listen(stage) {
  for (const name of ['dialect', 'language']) {
    for (const button of document.querySelectorAll(`[data-${name}]`)) {
      button.addEventListener('click', () => {
        shown[name] = button.dataset[name];
        show(stage);
      });
    }
  }
  get('save-picture').addEventListener('click', async () => save(await stage.before(), 'picture.png'));
  get('save-mask').addEventListener('click', async () => save(await stage.maskPicture(), 'mask.png'));
  get('copy').addEventListener('click', async () => {
    try {
      await navigator.clipboard.writeText(get('code').textContent);
      notice('Copied.');
    } catch {
      getSelection()?.selectAllChildren(get('code'));
      notice('The browser does not let the page copy: the text is selected.', 'plain');
    }
  });
}

/** A file of the page's own, into the folder where the browser puts them. */
function save(blob, name) {
  const href = URL.createObjectURL(blob);
  Object.assign(document.createElement('a'), { href, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(href), 60_000);
}
