// The official SDK and the proxy's own page in Chromium.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { after as afterAll, before, test } from 'node:test';

import { launch } from './chromium.mjs';
import { Proxy, token } from './proxy.mjs';

const package_ = dirname(createRequire(import.meta.url).resolve('centrifuge'));
const bundle = (name) => readFileSync(join(package_, '..', 'dist', name));
const bundles = { json: bundle('centrifuge.js'), protobuf: bundle('centrifuge.protobuf.js') };

let browser;
let site;
let origin;
before(async () => {
  browser = await launch();
  site = createServer((request, response) => {
    const script = request.url.match(/^\/(json|protobuf)\.js$/);
    response.setHeader('Content-Type', script ? 'text/javascript' : 'text/html');
    const encoding = request.url === '/protobuf' ? 'protobuf' : 'json';
    response.end(script ? bundles[script[1]] : `<!doctype html><title>test</title><script src="/${encoding}.js"></script>`);
  });
  await new Promise((resolve) => site.listen(0, '127.0.0.1', resolve));
  origin = `http://127.0.0.1:${site.address().port}`;
});
afterAll(async () => {
  await browser.close();
  site.close();
});

async function open(t, url) {
  const page = await browser.newPage();
  t.after(() => page.close());
  page.setDefaultTimeout(20_000);
  page.problems = [];
  page.on('pageerror', (error) => page.problems.push(error.message));
  await page.goto(url);
  return page;
}

/** Runs in the page: connects, subscribes, publishes; what was seen. */
async function visit({ url, token: connection, channel }) {
  const client = new window.Centrifuge(url, { token: connection });
  const subscription = client.newSubscription(channel);
  const seen = new Promise((resolve) => {
    subscription.on('publication', (context) => resolve(context.data));
  });
  subscription.subscribe();
  client.connect();
  await subscription.ready(10_000);
  await subscription.publish({ from: 'browser' });
  const data = await seen;
  const presence = await subscription.presence();
  const history = await subscription.history({ limit: 1 });
  client.disconnect();
  return { data, users: Object.values(presence.clients).map((info) => info.user), offset: history.offset };
}

test('the SDK works in a page of an allowed origin', async (t) => {
  const proxy = await Proxy.start({ lines: 'allowed_origins = ["http://127.0.0.1:*"]\n' });
  t.after(() => proxy.stop());
  const page = await open(t, origin);
  const seen = await page.evaluate(visit, { url: proxy.url, token: token({ sub: 'ada' }), channel: 'room:browser' });
  assert.deepEqual(seen, { data: { from: 'browser' }, users: ['ada'], offset: 1 });
  assert.deepEqual(page.problems, []);
});

/** Runs in the page of another origin: what a stream transport delivers, with what it missed while it was away. */
async function stream({ transport, address, token: connection, channel, protobuf }) {
  const pack = (value) => (protobuf ? new TextEncoder().encode(JSON.stringify(value)) : value);
  const unpack = (data) => (protobuf ? JSON.parse(new TextDecoder().decode(data)) : data);
  const endpoint = `${transport === 'websocket' ? 'ws' : 'http'}://${address}/connection/${transport}`;
  const client = new window.Centrifuge([{ transport, endpoint }], { token: connection, emulationEndpoint: `http://${address}/emulation`, minReconnectDelay: 200 });
  const subscription = client.newSubscription(channel);
  window.seen = [];
  subscription.on('publication', (context) => window.seen.push(unpack(context.data)));
  subscription.subscribe();
  client.connect();
  await subscription.ready(10_000);
  await subscription.publish(pack({ from: 'page' }));
  const presence = await subscription.presence();
  return Object.values(presence.clients).map((info) => info.user);
}

for (const [transport, encoding] of [['websocket', 'protobuf'], ['http_stream', 'json'], ['http_stream', 'protobuf'], ['sse', 'json']]) {
  test(`a page of another origin is served over ${transport} in ${encoding}`, async (t) => {
    const proxy = await Proxy.start({ lines: 'allowed_origins = ["http://127.0.0.1:*"]\n' });
    t.after(() => proxy.stop());
    const page = await open(t, `${origin}/${encoding}`);
    const channel = `room:${transport}`;
    const users = await page.evaluate(stream, { transport, address: proxy.address, token: token({ sub: 'ada' }), channel, protobuf: encoding === 'protobuf' });
    assert.deepEqual(users, ['ada']);
    await proxy.call('disconnect', { user: 'ada', disconnect: { code: 4000, reason: 'come back' } });
    for (let n = 1; n <= 3; n += 1) await proxy.call('publish', { channel, data: n });
    await page.waitForFunction(() => window.seen.length === 4);
    assert.deepEqual(await page.evaluate(() => window.seen), [{ from: 'page' }, 1, 2, 3]);
    assert.deepEqual(page.problems, []);
  });

  test(`a page of an origin that is not allowed gets nothing over ${transport} in ${encoding}`, async (t) => {
    const proxy = await Proxy.start({ lines: 'allowed_origins = ["https://elsewhere.example.com"]\n' });
    t.after(() => proxy.stop());
    const page = await open(t, `${origin}/${encoding}`);
    const outcome = await page.evaluate(({ kind, address, connection }) => new Promise((resolve) => {
      const endpoint = `${kind === 'websocket' ? 'ws' : 'http'}://${address}/connection/${kind}`;
      const client = new window.Centrifuge([{ transport: kind, endpoint }], { token: connection, emulationEndpoint: `http://${address}/emulation` });
      client.on('error', () => {
        client.disconnect();
        resolve('refused');
      });
      client.on('connected', () => resolve('connected'));
      client.connect();
    }), { kind: transport, address: proxy.address, connection: token({ sub: 'ada' }) });
    assert.equal(outcome, 'refused');
  });
}

test('a page of another origin cannot connect', async (t) => {
  const proxy = await Proxy.start({ lines: 'allowed_origins = ["https://elsewhere.example.com"]\n' });
  t.after(() => proxy.stop());
  const page = await open(t, origin);
  const error = await page.evaluate(({ url, token: connection }) => new Promise((resolve) => {
    const client = new window.Centrifuge(url, { token: connection });
    client.on('error', (context) => {
      client.disconnect();
      resolve(context.error.message);
    });
    client.on('connected', () => resolve('connected'));
    client.connect();
  }), { url: proxy.url, token: token({ sub: 'ada' }) });
  assert.match(error, /transport closed/);
});

test('a page of another origin polls', async (t) => {
  const proxy = await Proxy.start({ lines: 'allowed_origins = ["http://127.0.0.1:*"]\n[poll]\nenabled = true\n' });
  t.after(() => proxy.stop());
  await proxy.call('publish', { channel: 'room:poll', data: 'missed' });
  const page = await open(t, origin);
  const answer = await page.evaluate(async ({ address, token: connection }) => {
    const url = `http://${address}/connection/poll?channel=room:poll&offset=0`;
    const response = await fetch(url, { headers: { Authorization: `Bearer ${connection}` } });
    return response.json();
  }, { address: proxy.address, token: token({ sub: 'ada' }) });
  assert.equal(answer.recovered, true);
  assert.deepEqual(answer.publications.map((one) => one.data), ['missed']);
});

test('a page reconnects and recovers when the server disconnects it', async (t) => {
  const proxy = await Proxy.start({ lines: 'allowed_origins = ["*"]\n' });
  t.after(() => proxy.stop());
  const page = await open(t, origin);
  await page.evaluate(async ({ url, token: connection }) => {
    const client = new window.Centrifuge(url, { token: connection, minReconnectDelay: 300 });
    window.seen = [];
    window.states = [];
    client.on('connecting', (context) => window.states.push(context.code));
    const subscription = client.newSubscription('room:return');
    subscription.on('publication', (context) => window.seen.push(context.data));
    subscription.on('subscribed', (context) => window.states.push(context.recovered));
    subscription.subscribe();
    client.connect();
    await subscription.ready(10_000);
  }, { url: proxy.url, token: token({ sub: 'ada' }) });
  await proxy.call('disconnect', { user: 'ada', disconnect: { code: 4000, reason: 'come back' } });
  for (let n = 1; n <= 3; n += 1) await proxy.call('publish', { channel: 'room:return', data: n });
  await page.waitForFunction(() => window.seen.length === 3);
  assert.deepEqual(await page.evaluate(() => window.seen), [1, 2, 3]);
  assert.deepEqual(await page.evaluate(() => window.states), [0, false, 4000, true]);
});

test('the page of the first run shows a live channel', async (t) => {
  const proxy = await Proxy.start({ firstRun: true });
  t.after(() => proxy.stop());
  const printed = proxy.printed();
  const url = printed.match(/http:\/\/\S+#token=\S+/)[0];
  const page = await open(t, url);
  await page.waitForSelector('#status[data-state="connected"]');

  await page.fill('#publish-form input', 'hello from the page');
  await page.press('#publish-form input', 'Enter');
  await page.waitForFunction(() => document.querySelector('#messages').textContent.includes('hello from the page'));
  await page.waitForFunction(() => /\d/.test(document.querySelector('#latency').textContent));

  const present = (count) => page.waitForFunction((n) => document.querySelectorAll('#presence li').length === n, count);
  await present(1);
  const other = await open(t, url);
  await other.waitForSelector('#status[data-state="connected"]');
  await present(2);

  const [, key, body] = printed.match(/curl -H 'X-API-Key: (\S+)' -d '(.+)' http/);
  const answer = await fetch(`${proxy.api}/publish`, { method: 'POST', headers: { 'X-API-Key': key }, body });
  assert.ok((await answer.json()).result);
  for (const shown of [page, other]) {
    await shown.waitForFunction(() => document.querySelector('#messages').textContent.includes('hello from curl'));
  }
  await other.close();
  await present(1);
  assert.deepEqual(page.problems, []);
});

test('the page of the first run comes back after a restart', async (t) => {
  const proxy = await Proxy.start({ firstRun: true });
  t.after(() => proxy.stop());
  const page = await open(t, proxy.printed().match(/http:\/\/\S+#token=\S+/)[0]);
  await page.waitForSelector('#status[data-state="connected"]');
  await proxy.kill();
  await page.waitForSelector('#status:not([data-state="connected"])');
  await proxy.run(proxy.address);
  await page.waitForSelector('#status[data-state="connected"]');
  assert.deepEqual(page.problems, []);
});

test('the page of the first run publishes durable orders, works them off, and shows a second user', async (t) => {
  const proxy = await Proxy.start({ firstRun: true });
  t.after(() => proxy.stop());
  const page = await open(t, proxy.printed().match(/http:\/\/\S+#token=\S+/)[0]);
  await page.setViewportSize({ width: 360, height: 740 });
  await page.waitForSelector('#status[data-state="connected"]');
  assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 360, 'nothing stands out at 360 px');

  await page.click('#order');
  await page.waitForFunction(() => document.querySelector('#work-hint').textContent.includes('waits for a worker'));
  await page.check('#work');
  await page.waitForSelector('#deliveries li');
  await page.click('#deliveries button:has-text("Fail")');
  await page.waitForFunction(() => document.querySelector('#deliveries').textContent.includes('attempt 2'));
  await page.click('#deliveries button:has-text("Done")');
  await page.waitForFunction(() => document.querySelector('#counts').textContent === '1 published, 1 done, 1 failed');
  assert.equal(await page.locator('#deliveries li').count(), 0);

  const [other] = await Promise.all([page.context().waitForEvent('page'), page.click('#as a')]);
  await other.waitForSelector('#status[data-state="connected"]');
  assert.match(await other.textContent('#as'), /^as guest · open as developer$/);
  await page.waitForFunction(() => document.querySelectorAll('#presence li').length === 2);
  await proxy.kill();
  await page.waitForFunction(() => /next try in \d+ s/.test(document.querySelector('#status').textContent));
  await page.fill('#publish-form input', 'lost');
  await page.press('#publish-form input', 'Enter');
  await page.waitForFunction(() => document.querySelector('#messages').textContent.includes('there is no connection'));
  assert.deepEqual(page.problems, []);
});
