// Pages of strangers in Chromium, on the host of the proxy, against what is for operators and services: the admin listener and the
// internal one. They read nothing and change nothing.

import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { after as afterAll, before, test } from 'node:test';

import { launch } from './chromium.mjs';
import { API_KEY, Proxy } from './proxy.mjs';

/** A name of the stranger's that means this host. */
const STRANGE = 'evil.example';
const LINES = `
allowed_origins = ["*"]

[server]
internal_listen = ["127.0.0.1:0"]

[durable.embedded]
directory = "durable"

[[channel.namespaces]]
name = "orders"
delivery = "durable"
`;
const SECRET = '4711-secret';
/** What a page could show of what it has read. */
const TELLS = /4711|billing|ringmain_|"phase"|"paths"|"epoch"/;
const PAGES = ['/ready', '/metrics', '/api/openapi.json'];
const ASKS = [
  ['/api/queue/delete', { group: 'billing' }],
  ['/api/queue/groups', {}],
  ['/api/dlq/list', {}],
  ['/api/replay', { channels: ['orders:*'] }],
  ['/api/publish', { channel: 'room:1', data: 'from a stranger' }],
  ['/api/publish', { channel: 'orders:1', data: 'from a stranger' }],
  ['/api/history_remove', { channel: 'room:1' }],
  ['/api/history', { channel: 'room:1', limit: 10 }],
  ['/api/info', {}],
];

let browser;
let site;
/** One whose server API asks for a key, and one whose does not. */
const proxies = {};
before(async () => {
  proxies.key = await start('');
  proxies.open = await start('insecure = true');
  browser = await launch([`--host-resolver-rules=MAP ${STRANGE} 127.0.0.1`]);
  site = createServer((request, response) => {
    response.setHeader('Content-Type', 'text/html');
    if (request.url === '/sandboxed') response.setHeader('Content-Security-Policy', 'sandbox allow-scripts allow-forms');
    response.end('<!doctype html><title>stranger</title><body>');
  });
  await new Promise((resolve) => site.listen(0, '127.0.0.1', resolve));
});
afterAll(async () => {
  await browser.close();
  site.close();
  await Promise.all(Object.values(proxies).map((proxy) => proxy.stop()));
});

/** A proxy with something to lose. */
async function start(api) {
  const proxy = await Proxy.start({ lines: LINES, api });
  await proxy.call('publish', { channel: 'orders:1', data: { card: SECRET } });
  await proxy.call('publish', { channel: 'room:1', data: { card: SECRET } });
  await proxy.call('queue/fetch', { group: 'billing', channels: ['orders:*'], limit: 1, wait_ms: 20_000 });
  return proxy;
}

/** What a stranger would want to read or change. */
async function kept(proxy) {
  const { groups } = await proxy.call('queue/groups');
  const { publications } = await proxy.call('history', { channel: 'room:1', limit: 10 });
  const { events } = await proxy.call('replay', { channels: ['orders:*'] });
  return {
    groups: groups.map((group) => group.group),
    history: publications.map((one) => one.data.card),
    log: events.map((one) => one.data.card),
  };
}

async function open(t, url) {
  const context = await browser.newContext();
  t.after(() => context.close());
  const page = await context.newPage();
  page.setDefaultTimeout(20_000);
  await page.goto(url);
  return page;
}

/** Runs in the page: everything that a page can do about another server. What it could read, and which elements were loaded. */
async function attack({ base, pages, asks, key }) {
  const read = [];
  const loaded = [];
  const ask = async (path, init) => {
    try {
      const response = await fetch(base + path, init);
      read.push({ path, init, status: response.status, text: await response.text() });
    } catch {
      // The browser keeps the answer, or the question, to itself.
    }
  };
  const element = (name, where, more = {}) => new Promise((resolve) => {
    const made = Object.assign(document.createElement(name), more, where);
    made.onload = () => {
      loaded.push({ name, where });
      resolve(made);
    };
    made.onerror = resolve;
    document.body.append(made);
  });
  const ended = (source) => new Promise((resolve) => {
    source.onopen = () => loaded.push({ name: source.constructor.name, where: source.url });
    source.onmessage = (event) => read.push({ path: source.url, status: 200, text: String(event.data) });
    source.onerror = resolve;
    source.onclose = resolve;
  });
  const credentials = ['omit', 'include'];
  for (const path of pages) {
    const asks = credentials.flatMap((given) => ['cors', 'no-cors'].map((mode) => ask(path, { credentials: given, mode })));
    await Promise.all([
      ...asks,
      ask(path, { method: 'DELETE' }),
      ask(path, { headers: { 'X-API-Key': key } }),
      element('img', { src: base + path }),
      element('script', { src: base + path }),
      element('link', { href: base + path }, { rel: 'stylesheet' }),
      element('iframe', { src: base + path }),
    ]);
    const source = new EventSource(base + path, { withCredentials: true });
    await ended(source);
    source.close();
  }
  // Chromium makes those that come behind one that failed wait.
  await ended(new WebSocket(base.replace('http', 'ws') + pages[0]));
  for (const [path, question] of asks) {
    const body = JSON.stringify(question);
    const plain = credentials.flatMap((given) => ['cors', 'no-cors'].flatMap((mode) => ['text/plain', 'application/x-www-form-urlencoded'].map(
      (type) => ask(path, { method: 'POST', credentials: given, mode, headers: { 'Content-Type': type }, body }),
    )));
    await Promise.all([
      ...plain,
      ask(path, { method: 'POST', mode: 'no-cors', body: new Blob([body]) }),
      ask(path, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body }),
      ask(path, { method: 'POST', headers: { 'Content-Type': 'application/json', 'X-API-Key': key }, body }),
      ask(path, { method: 'DELETE', body }),
      ask(path, { mode: 'no-cors' }),
      element('img', { src: base + path }),
    ]);
    // A form whose body is the question, with a member that nobody reads.
    const target = await element('iframe', {}, { name: `answer${document.forms.length}` });
    const form = Object.assign(document.createElement('form'), { method: 'POST', action: base + path, enctype: 'text/plain', target: target.name });
    form.append(Object.assign(document.createElement('input'), { name: body.replace(/}$/, `${body === '{}' ? '' : ','}"_":"`), value: '"}' }));
    document.body.append(form);
    const shown = new Promise((resolve) => {
      target.onload = resolve;
    });
    form.submit();
    await shown;
  }
  return { read, loaded: loaded.filter(({ name }) => name !== 'iframe') };
}

/** The page reads nothing, shows nothing and changes nothing. Everything that it could read comes back. */
async function isHarmless(page, proxy, base, key) {
  const before = await kept(proxy);
  assert.deepEqual(before, { groups: ['billing'], history: [SECRET], log: [SECRET] });
  const { read, loaded } = await page.evaluate(attack, { base, pages: PAGES, asks: ASKS, key });
  assert.deepEqual(loaded, []);
  for (const one of read) assert.doesNotMatch(one.text, TELLS, JSON.stringify(one));
  await Promise.all(page.frames().slice(1).map(async (frame) => assert.doesNotMatch(await frame.content(), TELLS, frame.url())));
  assert.deepEqual(await kept(proxy), before);
  return read;
}

// At the admin listener the key alone makes no page welcome; elsewhere whoever has it is.
const listeners = [
  ['the admin listener', 'key', 'admin', API_KEY],
  ['the internal listener', 'key', 'internal', 'guessed'],
  ['an internal listener that asks for no key', 'open', 'internal', 'guessed'],
];
for (const [kind, place] of [
  ['another port', () => `http://127.0.0.1:${site.address().port}/`],
  ['another site', () => `http://${STRANGE}:${site.address().port}/`],
  ['no origin', () => `http://${STRANGE}:${site.address().port}/sandboxed`],
]) {
  test(`a page of ${kind} gets nothing from any listener`, async (t) => {
    for (const [name, which, listener, key] of listeners) {
      const proxy = proxies[which];
      const page = await open(t, place());
      const read = await isHarmless(page, proxy, `http://${proxy[listener]}`, key);
      const told = read.filter(({ status }) => status !== 0);
      assert.deepEqual(told, [], `${name} does not tell the browser that the page may read`);
    }
  });
}

for (const [name, which, listener, key] of listeners) {
  test(`a page under a name that was made to mean this host gets nothing from ${name}`, async (t) => {
    const proxy = proxies[which];
    const base = `http://${STRANGE}:${proxy[listener].split(':')[1]}`;
    // Health says nothing, and is there for everybody: here it is the page of the stranger.
    const page = await open(t, `${base}/health`);
    const read = await isHarmless(page, proxy, base, key);
    assert.ok(read.length > PAGES.length * 4 + ASKS.length * 8, 'it may read what it is told');
    const answered = read.filter(({ status }) => ![401, 403, 404, 405].includes(status));
    assert.deepEqual(answered, []);
  });
}

test('a page of the admin listener itself reads what it is allowed to', async (t) => {
  const proxy = proxies.key;
  const page = await open(t, `http://${proxy.admin}/health`);
  const read = await page.evaluate(async (key) => {
    const metrics = await fetch('/metrics');
    const headers = { 'Content-Type': 'application/json', 'X-API-Key': key };
    const groups = await fetch('/api/queue/groups', { method: 'POST', headers, body: '{}' });
    return [await metrics.text(), await groups.text()];
  }, API_KEY);
  assert.match(read[0], /^ringmain_/m);
  assert.match(read[1], /billing/);
});
