// The playground in a real Chromium, as a person uses it: the whole way from a dropped picture to a result, a mask, a
// cancelled job, a reload, a wrong key, a phone, the keyboard, and what axe-core finds.
//
// B is a server without keys, KEYED one with the key SECRET, IMG a picture. SHOTS, where it is set, gets screenshots.
// Node looks for the packages from this file's folder upwards; see README.md beside it.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { chromium } from 'playwright-core';

const { B, KEYED, SECRET, IMG, SHOTS, CHROMIUM } = process.env;
const axe = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
/** Generous: a debug build on a busy machine. */
const LONG = { timeout: 240_000 };

const browser = await chromium.launch({ executablePath: CHROMIUM || '/usr/bin/chromium', args: ['--no-sandbox', '--disable-gpu'] });

/** A page that fails the run when it complains, or asks anybody but its server. */
async function visit(base, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  await context.grantPermissions(['clipboard-read', 'clipboard-write'], { origin: base }).catch(() => {});
  const page = await context.newPage();
  page.setDefaultTimeout(60_000);
  const complaints = [];
  page.on('console', (message) => message.type() === 'error' && complaints.push(`${message.text()} (${message.location().url})`));
  page.on('pageerror', (error) => complaints.push(String(error)));
  page.on('request', (request) => {
    const url = new URL(request.url());
    if (['http:', 'https:'].includes(url.protocol) && url.origin !== new URL(base).origin) complaints.push(`asked ${url.origin}`);
  });
  await page.goto(base);
  return { page, context, complaints };
}

async function drop(page, file, name = 'picture.png') {
  const content = (await readFile(file)).toString('base64');
  await page.evaluate(([base64, name]) => {
    const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
    const dataTransfer = new DataTransfer();
    dataTransfer.items.add(new File([bytes], name, { type: 'image/png' }));
    for (const kind of ['dragover', 'drop']) document.querySelector('#frame').dispatchEvent(new DragEvent(kind, { bubbles: true, cancelable: true, dataTransfer }));
  }, [content, name]);
  await page.locator('#edit').waitFor();
}

const paint = (page) => page.locator('#paint').click();
const finished = (page) => page.locator('#about').waitFor(LONG);
const shot = (page, name, options = {}) => (SHOTS ? page.screenshot({ path: path.join(SHOTS, `${name}.png`), ...options }) : undefined);
const said = (page) => page.locator('#notices').innerText();
const set = (page, id, value) => page.locator(`#${id}`).evaluate((control, value) => {
  control.value = value;
  control.dispatchEvent(new Event('input', { bubbles: true }));
}, String(value));

async function accessible(page, where) {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => window.axe.run({ resultTypes: ['violations'] }));
  const serious = violations.filter(({ impact }) => ['serious', 'critical'].includes(impact));
  assert.deepEqual(serious.map(({ id, nodes }) => [id, nodes.map(({ target, failureSummary }) => `${target}: ${failureSummary}`)]), [], `axe-core on ${where}`);
}

async function wholeWay() {
  const { page, complaints } = await visit(B);
  await page.locator('.server.good').waitFor();
  await accessible(page, 'the empty page');
  await shot(page, 'light-empty');
  await drop(page, IMG);
  // A prompt of a person who means no good is a text everywhere.
  const prompt = '<img src=x onerror=alert(1)> snowy mountains at night';
  await page.locator('#prompt').fill(prompt);
  await page.locator('#seed').fill('42');
  await paint(page);
  await finished(page);
  assert.equal(await page.locator('#parameters dd').first().innerText(), prompt);
  assert.equal(await page.locator('#pictures li').count(), 1);
  assert.match(await page.locator('#parameters').innerText(), /Seed\s+42/);
  const size = await page.locator('#after').evaluate((image) => [image.naturalWidth, image.naturalHeight]);
  assert.deepEqual(size, [192, 128]);
  await page.locator('#seam').focus();
  await page.keyboard.press('ArrowLeft');
  assert.equal(await page.locator('#compare').evaluate((box) => box.style.getPropertyValue('--seam')), '49%');
  await accessible(page, 'a result');
  await shot(page, 'light-result', { fullPage: true });

  // The same picture back in brings its settings along; from the gallery with the original.
  const [download] = await Promise.all([page.waitForEvent('download'), page.locator('#download').click()]);
  const file = await download.path();
  await page.locator('#prompt').fill('something else');
  await set(page, 'seed', '7');
  await drop(page, file);
  await page.locator('#notices', { hasText: 'are back' }).waitFor();
  assert.equal(await page.locator('#prompt').inputValue(), prompt);
  assert.equal(await page.locator('#seed').inputValue(), '42');

  const other = await visit(B);
  await drop(other.page, file);
  await other.page.locator('#notices', { hasText: 'made here' }).waitFor();
  assert.equal(await other.page.locator('#prompt').inputValue(), prompt);
  assert.equal(await other.page.locator('[name=preset]:checked').inputValue(), 'fast');
  assert.deepEqual(other.complaints, []);
  await other.context.close();

  // A reload loses nothing.
  await page.reload();
  await page.locator('.server.good').waitFor();
  assert.equal(await page.locator('#pictures li').count(), 1);
  assert.equal(await page.locator('#prompt').inputValue(), prompt);
  await page.locator('#edit').waitFor();
  await page.locator('.thumb').click();
  await finished(page);
  await page.locator('#again').click();
  await page.locator('#edit').waitFor();

  // The code is the request, whatever the shell makes of its signs.
  await set(page, 'prompt', 'a $HOME `date` "quoted"');
  assert.match(await page.locator('#code').innerText(), /"prompt": "a \\\$HOME \\`date\\` \\\\"quoted\\\\""/);
  for (const language of ['python', 'js', 'curl']) await page.locator(`[data-language=${language}]`).click();
  await page.locator('[data-dialect=modelslab]').click();
  assert.match(await page.locator('#code').innerText(), /api\/v1\/enterprise\/img2img[^]*"num_inference_steps": 31/);
  await page.locator('#copy').click();
  assert.match(await page.evaluate(() => navigator.clipboard.readText()), /init_image/);

  // A refusal stands at its field.
  await page.locator('#more').evaluate((box) => (box.open = true));
  await set(page, 'steps', 9);
  await paint(page);
  await page.locator('#steps-error').waitFor();
  assert.match(await page.locator('#steps-error').innerText(), /\[1, 8\]/);
  await set(page, 'steps', 4);
  await page.locator('#seed').fill('-7');
  await paint(page);
  await page.locator('#seed-error').waitFor();
  await page.locator('#die').click();
  assert.match(await page.locator('#seed').inputValue(), /^\d+$/);
  // Browsers log every status that is not 2xx, and the refusal above was one.
  assert.deepEqual(complaints.filter((line) => !line.includes('status of 400')), []);
  await page.context().close();
}

/** Levels of a picture in base64, in the line in the middle. */
const middleLine = (page, base64) => page.evaluate(async (base64) => {
  const image = await createImageBitmap(await (await fetch(`data:image/png;base64,${base64}`)).blob());
  const canvas = Object.assign(document.createElement('canvas'), { width: image.width, height: image.height });
  const context = canvas.getContext('2d');
  context.drawImage(image, 0, 0);
  return [...context.getImageData(0, image.height / 2, image.width, 1).data].filter((_, at) => at % 4 === 0);
}, base64);

async function maskByDegrees() {
  const { page, complaints } = await visit(B, { bypassCSP: true });
  await page.locator('.server.good').waitFor();
  await drop(page, IMG);
  await page.locator('#prompt').fill('a red house by the sea');
  await page.locator('#brush-on').click();
  assert.equal(await page.locator('#brush-level-field').isVisible(), false);
  await page.locator('#by-degrees').check();
  assert.match(await page.locator('#brush-hint').innerText(), /as much as you say/);
  const box = await page.locator('#mask').boundingBox();
  const stroke = async (from, to) => {
    await page.mouse.move(box.x + box.width * from, box.y + box.height / 2);
    await page.mouse.down();
    await page.mouse.move(box.x + box.width * to, box.y + box.height / 2, { steps: 5 });
    await page.mouse.up();
  };
  await set(page, 'soft-edge', 0);
  await stroke(0.1, 0.9);
  await set(page, 'brush-level', 40);
  assert.equal(await page.locator('#brush-level-out').innerText(), '40 %');
  // Over a part of the first one, whose place it takes.
  await stroke(0.6, 0.9);
  await accessible(page, 'the mask by degrees');
  await shot(page, 'light-mask-by-degrees');
  await page.locator('#more').evaluate((box) => (box.open = true));
  await set(page, 'steps', 4);
  const asked = page.waitForRequest((request) => request.url().endsWith('/inpaint'));
  await paint(page);
  const body = (await asked).postDataJSON();
  assert.equal(body.differential_diffusion, 'yes');
  assert.equal(body.soft_edge, undefined);
  const levels = await middleLine(page, body.mask_image);
  const level = (x) => levels[Math.round(levels.length * x)];
  assert.deepEqual([level(0.01), level(0.3)], [0, 255], String(levels));
  assert.ok(Math.abs(level(0.75) - 102) <= 2, String(levels));
  await finished(page);
  // A mask that only says whether: every stroke is white again.
  await page.locator('#view-edit').click();
  await page.locator('#by-degrees').uncheck();
  const again = page.waitForRequest((request) => request.url().endsWith('/inpaint'));
  await paint(page);
  const plain = (await again).postDataJSON();
  assert.equal(plain.differential_diffusion, undefined);
  assert.ok((await middleLine(page, plain.mask_image))[Math.round(levels.length * 0.75)] >= 254);
  await finished(page);
  // The edge of one by degrees fades, on a canvas without `filter` as Safari's as well.
  await page.evaluate(() => delete CanvasRenderingContext2D.prototype.filter);
  await page.locator('#view-edit').click();
  await page.locator('#by-degrees').check();
  await set(page, 'soft-edge', 24);
  const third = page.waitForRequest((request) => request.url().endsWith('/inpaint'));
  await paint(page);
  const faded = await middleLine(page, (await third).postDataJSON().mask_image);
  const between = (line) => line.filter((level) => level > 8 && level < 94).length;
  assert.ok(between(faded) > between(levels) + 4, `${levels}\n${faded}`);
  await finished(page);
  assert.deepEqual(complaints, []);
  await page.context().close();
}

async function maskAndCancel() {
  const { page, complaints } = await visit(B, { colorScheme: 'dark' });
  await page.locator('.server.good').waitFor();
  await drop(page, IMG);
  await page.locator('#prompt').fill('a red house by the sea');
  await page.locator('#brush-on').click();
  assert.equal(await page.locator('[name=preset]:checked').inputValue(), 'fine');
  const box = await page.locator('#mask').boundingBox();
  const at = (x, y) => [box.x + box.width * x, box.y + box.height * y];
  await page.mouse.move(...at(0.3, 0.3));
  await page.mouse.down();
  await page.mouse.move(...at(0.6, 0.5), { steps: 8 });
  await page.mouse.up();
  // By the keyboard, and one of the two strokes undone.
  await page.locator('#mask').focus();
  await page.keyboard.down('Space');
  for (let i = 0; i < 4; i++) await page.keyboard.press('ArrowRight');
  await page.keyboard.up('Space');
  assert.equal(await page.locator('#brush-undo').isDisabled(), false);
  await page.keyboard.press('z');
  await accessible(page, 'the mask');
  await shot(page, 'dark-mask');
  await page.locator('#more').evaluate((box) => (box.open = true));
  await set(page, 'steps', 151);
  await paint(page);
  await page.locator('#steps-error', { hasText: '150' }).waitFor();
  await set(page, 'steps', 8);
  await paint(page);
  await page.locator('.job').waitFor(LONG).catch(() => {});
  await finished(page);
  assert.match(await page.locator('#parameters').innerText(), /UniPC/);
  // What was not painted over has come back as it was.
  const kept = await page.evaluate(() => {
    const pixel = (id) => {
      const image = document.getElementById(id);
      const canvas = Object.assign(document.createElement('canvas'), { width: image.naturalWidth, height: image.naturalHeight });
      const context = canvas.getContext('2d');
      context.drawImage(image, 0, 0);
      return [...context.getImageData(0, canvas.height - 8, canvas.width, 8).data].join();
    };
    return pixel('before') === pixel('after');
  });
  assert.ok(kept, 'the kept pixels are the same');
  await shot(page, 'dark-result', { fullPage: true });

  // A long job: seen in the queue with a preview, kept over a reload, cancelled.
  await page.locator('#again').click();
  await page.locator('#edit').waitFor();
  await set(page, 'steps', 150);
  await set(page, 'strength', 1);
  await set(page, 'count', 4);
  await paint(page);
  await page.locator('.job').waitFor(LONG);
  await page.locator('.job .line', { hasText: ' of ' }).waitFor(LONG);
  await page.locator('.job img').waitFor(LONG);
  await shot(page, 'dark-running', { fullPage: true });
  await page.reload();
  await page.locator('.job').waitFor(LONG);
  await page.locator('#working').waitFor();
  await page.locator('#working-cancel').click();
  await page.locator('#notices', { hasText: 'Cancelled' }).waitFor(LONG);
  await page.locator('#jobs-empty').waitFor(LONG);
  assert.equal(await page.locator('#pictures li').count(), 1);
  assert.deepEqual(complaints, []);
  await page.context().close();
}

async function keys() {
  const { page, complaints } = await visit(KEYED);
  await page.locator('#key-dialog').waitFor();
  assert.match(await page.locator('#key-why').innerText(), /only those who have a key/);
  await page.locator('#key').fill('not-this-one');
  await page.locator('#key-save').click();
  await page.locator('#key-why', { hasText: 'does not take this key' }).waitFor();
  await accessible(page, 'the question for a key');
  await shot(page, 'light-key');
  await page.locator('#key').fill(SECRET);
  await page.keyboard.press('Enter');
  await page.locator('.server.good').waitFor();
  assert.equal(await page.locator('#key-dialog').isVisible(), false);
  assert.match(await page.locator('#code').innerText(), /PENTIMENTO_KEY/);
  assert.equal((await page.locator('#code').innerText()).includes(SECRET), false);
  await page.locator('#sample').click();
  await page.locator('#edit').waitFor();
  await paint(page);
  await finished(page);
  const others = complaints.filter((line) => !/status of 40[013]/.test(line));
  assert.deepEqual(others, []);
  await page.context().close();
}

async function phone() {
  const { page, complaints } = await visit(B, { viewport: { width: 375, height: 740 }, hasTouch: true, isMobile: true, deviceScaleFactor: 2 });
  await page.locator('.server.good').waitFor();
  const fits = () => page.evaluate(() => document.documentElement.scrollWidth);
  assert.equal(await fits(), 375);
  await shot(page, 'phone-empty');
  await page.locator('#sample').tap();
  await page.locator('#edit').waitFor();
  await page.locator('#paint').tap();
  await finished(page);
  assert.equal(await fits(), 375);
  await accessible(page, 'a phone');
  await shot(page, 'phone-result', { fullPage: true });
  assert.deepEqual(complaints, []);
  await page.context().close();
}

/** The code that the page shows, run as it is by who reads it: the server gets the very prompt. */
async function code() {
  const { page, complaints } = await visit(KEYED);
  await page.locator('#key').fill(SECRET);
  await page.locator('#key-save').click();
  await page.locator('.server.good').waitFor();
  await drop(page, IMG);
  await page.locator('#brush-on').click();
  await page.locator('#mask').click();
  const prompt = 'a "red" house, \\ $HOME `id` $(id) \'s\nEND\n{né}';
  await page.locator('#prompt').fill(prompt);
  await page.locator('#seed').fill('9007199254740990');
  const folder = await mkdtemp(path.join(tmpdir(), 'playground-'));
  // The files that the programs read come from the page, too.
  for (const name of ['picture', 'mask']) {
    const [download] = await Promise.all([page.waitForEvent('download'), page.locator(`#save-${name}`).click()]);
    assert.equal(download.suggestedFilename(), `${name}.png`);
    await download.saveAs(path.join(folder, `${name}.png`));
  }
  const programs = { curl: ['bash', 'call.sh'], python: ['python3', 'call.py'], js: [process.execPath, 'call.mjs'] };
  const options = { cwd: folder, env: { ...process.env, PENTIMENTO_KEY: SECRET }, maxBuffer: 1 << 26 };
  for (const dialect of ['novita', 'modelslab']) {
    for (const [language, [program, name]] of Object.entries(programs)) {
      await page.locator(`[data-dialect=${dialect}]`).click();
      await page.locator(`[data-language=${language}]`).click();
      await writeFile(path.join(folder, name), await page.locator('#code').textContent());
      const { stdout } = await promisify(execFile)(program, [name], options);
      const [job] = (await (await fetch(`${KEYED}/v1/jobs?limit=1`, { headers: { authorization: SECRET } })).json()).jobs;
      assert.equal(job.recipe.prompt, prompt, `${dialect} in ${language}: ${stdout}`);
      assert.deepEqual([job.dialect, job.recipe.inpaint, job.recipe.seed], [dialect, dialect === 'modelslab', 9007199254740990], language);
    }
  }
  await rm(folder, { recursive: true });
  assert.deepEqual(complaints.filter((line) => !/status of 40[013]/.test(line)), []);
  await page.context().close();
}

/** Without a pointer: from the top of the page to a picture. */
async function keyboard() {
  const { page, complaints } = await visit(B);
  await page.locator('.server.good').waitFor();
  const reach = async (id) => {
    for (let i = 0; i < 80; i++) {
      await page.keyboard.press('Tab');
      if (await page.evaluate((id) => document.activeElement?.id === id, id)) return;
    }
    assert.fail(`#${id} cannot be reached by Tab`);
  };
  await reach('sample');
  await page.keyboard.press('Enter');
  await page.locator('#edit').waitFor();
  await reach('prompt');
  await page.keyboard.press('Control+A');
  await page.keyboard.type('the sea at sunset');
  await reach('seed');
  await reach('die');
  await page.keyboard.press('Space');
  await reach('paint');
  await page.keyboard.press('Enter');
  await finished(page);
  assert.deepEqual(complaints, []);
  await page.context().close();
}

const wanted = process.argv.slice(2);
for (const part of [wholeWay, maskAndCancel, maskByDegrees, keys, code, phone, keyboard]) {
  if (wanted.length && !wanted.includes(part.name)) continue;
  await part();
  console.log(`${part.name}: as it should be`);
}
await browser.close();
console.log('all calls were understood');
