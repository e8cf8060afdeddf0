// Light, dark, or as the system has it.

import { get } from './dom.js';

const STORE = 'pentimento-theme';
const THEMES = { auto: ['◐', 'as the system'], light: ['☀', 'light'], dark: ['☾', 'dark'] };

function set(theme) {
  document.documentElement.dataset.theme = theme;
  get('theme').textContent = THEMES[theme][0];
  get('theme').setAttribute('aria-label', `Colours: ${THEMES[theme][1]}`);
  localStorage.setItem(STORE, theme);
}

export function listen() {
  const kept = localStorage.getItem(STORE) ?? '';
  set(Object.hasOwn(THEMES, kept) ? kept : 'auto');
  get('theme').addEventListener('click', () => {
    const names = Object.keys(THEMES);
    set(names[(names.indexOf(document.documentElement.dataset.theme) + 1) % names.length]);
  });
}
