// The ways in for a picture: a file, a drop, the clipboard, our sample.

import { get, notice } from './dom.js';

const SAMPLE = 'playground/sample.png';

/** @param {{file: (picture: Blob) => Promise<void>, address: (address: string) => boolean, sampled: () => void}} tell */
export function listen(tell) {
  const choose = () => get('file').click();
  get('choose').addEventListener('click', choose);
  get('replace').addEventListener('click', choose);
  get('file').addEventListener('change', (event) => {
    const [picture] = event.target.files;
    event.target.value = '';
    if (picture) tell.file(picture);
  });
  get('sample').addEventListener('click', async () => {
    const response = await fetch(SAMPLE);
    await tell.file(await response.blob());
    tell.sampled();
  });
  listenToDrops(tell);
  addEventListener('paste', (event) => {
    const [picture] = event.clipboardData?.files ?? [];
    if (!picture) return;
    event.preventDefault();
    tell.file(picture);
  });
}

function listenToDrops(tell) {
  const over = (is) => get('frame').classList.toggle('is-over', is);
  addEventListener('dragover', (event) => {
    event.preventDefault();
    over(true);
  });
  addEventListener('dragleave', (event) => event.relatedTarget === null && over(false));
  addEventListener('drop', (event) => {
    event.preventDefault();
    over(false);
    const address = event.dataTransfer?.getData('text/uri-list') || event.dataTransfer?.getData('text/plain') || '';
    const [picture] = event.dataTransfer?.files ?? [];
    if (tell.address(address)) return;
    if (picture) tell.file(picture);
    else notice('Drop a picture file; a picture of another page has to be saved first.', 'bad');
  });
}
