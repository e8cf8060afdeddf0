// Talks to the server that this page came from. Addresses are relative, so that it works behind a proxy with a prefix.

const KEY = 'pentimento-key';

/** The caller's key, kept until the tab is closed. */
export const key = {
  get: () => sessionStorage.getItem(KEY) ?? '',
  set: (value) => (value ? sessionStorage.setItem(KEY, value) : sessionStorage.removeItem(KEY)),
};

/** A refusal in any of the three shapes: Novita's, ModelsLab's, and the server's own. */
export class ApiError extends Error {
  /** @param {string} message @param {{status?: number, fields?: Record<string, string>, needsKey?: boolean, retryAfter?: number}} [facts] */
  constructor(message, { status = 0, fields = {}, needsKey = false, retryAfter = 0 } = {}) {
    super(message);
    Object.assign(this, { status, fields, needsKey, retryAfter });
  }
}

const text = (value) => (typeof value === 'string' ? value : '');

/** @param {Response} response @param {any} body @returns {ApiError | null} */
export function refusal(response, body) {
  const said = body !== null && typeof body === 'object' ? body : {};
  const failed = said.status === 'error' || said.status === 'failed';
  if (response.ok && !failed) return null;
  const status = response.status;
  const retryAfter = Number(response.headers.get('retry-after') ?? said.retry_after) || 0;
  if (said.error && typeof said.error === 'object') {
    const message = text(said.error.message);
    const needsKey = said.error.kind === 'unauthenticated';
    return new ApiError(message, { status, needsKey, retryAfter });
  }
  if (typeof said.reason === 'string') {
    const field = text(said.metadata?.field);
    const needsKey = ['MISSING_API_KEY', 'INVALID_API_KEY'].includes(said.reason);
    return new ApiError(text(said.message), { status, needsKey, retryAfter, fields: field ? { [field]: text(said.message) } : {} });
  }
  if (failed && said.message && typeof said.message === 'object') {
    const fields = Object.fromEntries(Object.entries(said.message).map(([name, lines]) => [name, [lines].flat().map(String).join(' ')]));
    return new ApiError(Object.values(fields).join(' '), { status, retryAfter, fields });
  }
  const message = text(said.message);
  const needsKey = message === 'Invalid API key' || status === 401;
  const tip = text(said.tip);
  return new ApiError([message, tip].filter(Boolean).join(': ') || `The server answered ${status}.`, { status, needsKey, retryAfter });
}

function headers(more = {}) {
  const secret = key.get();
  return secret ? { ...more, authorization: `Bearer ${secret}` } : more;
}

async function send(path, options = {}) {
  try {
    return await fetch(path, { ...options, headers: headers(options.headers), credentials: 'omit' });
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new ApiError('The server cannot be reached.');
  }
}

/** @returns {Promise<{body: any, jobId: string | null}>} */
async function call(path, options = {}) {
  const response = await send(path, options);
  const body = await response.json().catch(() => null);
  const refused = refusal(response, body);
  if (refused) throw refused;
  return { body, jobId: response.headers.get('x-job-id') };
}

export const getJson = async (path) => (await call(path)).body;
export const remove = async (path) => (await call(path, { method: 'DELETE' })).body;
export const post = (path, body, signal) =>
  call(path, { method: 'POST', signal, body: JSON.stringify(body), headers: { 'content-type': 'application/json' } });

/** The file behind a link of the server, by its path alone: the page may be behind another name than links have. */
export async function file(url) {
  const path = new URL(url, document.baseURI).pathname;
  // Where pictures are in a bucket, links lead there, and this page asks nobody but its server.
  const response = await send(`${path.slice(path.indexOf('/files/') + 1)}?here`);
  if (!response.ok) throw new ApiError(`The picture cannot be fetched (${response.status}).`);
  return response.blob();
}

/**
 * Reads server-sent events. EventSource cannot send a key.
 * @param {string} path @param {(name: string, data: any) => void} tell @param {AbortSignal} signal
 */
export async function events(path, tell, signal) {
  let last = '';
  for (;;) {
    const response = await send(path, { signal, headers: last ? { 'last-event-id': last } : {} });
    if (response.status === 204) return;
    if (!response.ok || !response.body) throw refusal(response, await response.json().catch(() => null));
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = '';
    for (;;) {
      const { value, done } = await reader.read().catch(() => ({ value: '', done: true }));
      if (done) break;
      const blocks = (rest + value).split('\n\n');
      rest = blocks.pop() ?? '';
      for (const block of blocks) {
        const lines = block.split('\n').map((line) => [line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 1).replace(/^ /, '')]);
        const field = (name) => lines.filter(([found]) => found === name).map(([, content]) => content).join('\n');
        last = field('id') || last;
        if (field('data')) tell(field('event') || 'message', JSON.parse(field('data')));
        if (field('event') === 'end') return void reader.cancel();
      }
    }
    if (signal.aborted) return;
    await new Promise((wake) => setTimeout(wake, 2000));
  }
}
