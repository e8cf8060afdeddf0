// For whoever works on the page: serves this folder as it is, with the page's policy, in front of a running server.
//
//   node crates/api/playground/dev.mjs http://127.0.0.1:8080 [port]

import { readFile } from 'node:fs/promises';
import http from 'node:http';

const [target = 'http://127.0.0.1:8080', port = '5173'] = process.argv.slice(2);
const { hostname, port: targetPort } = new URL(target);
const TYPES = { html: 'text/html', js: 'text/javascript', css: 'text/css', svg: 'image/svg+xml' };

async function own(pathname) {
  const name = pathname === '/' ? 'index.html' : /^\/playground\/([a-z_]+\.[a-z]+)$/.exec(pathname)?.[1];
  const type = TYPES[name?.split('.').pop() ?? ''];
  return type ? { type, bytes: await readFile(new URL(name, import.meta.url)) } : null;
}

http.createServer(async (request, response) => {
  const { pathname } = new URL(request.url, target);
  const file = await own(pathname).catch(() => null);
  const headers = { ...request.headers, accept: pathname === '/' ? 'text/html' : (request.headers.accept ?? '*/*') };
  delete headers['if-none-match'];
  if (file) headers['accept-encoding'] = 'identity';
  const passed = http.request({ hostname, port: targetPort, path: request.url, method: request.method, headers }, (answer) => {
    if (!file) {
      response.writeHead(answer.statusCode, answer.headers);
      return void answer.pipe(response);
    }
    // The server's own headers, so that the policy is the true one.
    answer.resume();
    const { etag, 'content-length': length, ...kept } = answer.headers;
    response.writeHead(200, { ...kept, 'content-type': `${file.type}; charset=utf-8`, 'cache-control': 'no-store' });
    response.end(file.bytes);
  });
  passed.on('error', () => response.writeHead(502).end('the server does not answer\n'));
  response.on('close', () => passed.destroy());
  request.pipe(passed);
}).listen(Number(port), '127.0.0.1', () => console.log(`http://127.0.0.1:${port}`));
