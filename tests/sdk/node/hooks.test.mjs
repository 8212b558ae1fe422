// npm `centrifuge` in Node with a small backend behind the proxy: it decides who connects, subscribes, publishes, and answers RPC.

import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { after as afterAll, before, test } from 'node:test';

import { CLIENT_EVENTS, Events, Proxy, SUBSCRIPTION_EVENTS, after, pack, unpack } from './proxy.mjs';

/** What the backend answers, by path. */
const routes = {
  '/connect': ({ data, channels }) => {
    if (data?.user === 'banned') return { disconnect: { code: 4501, reason: 'banned' } };
    if (data?.user === 'late') return { error: { code: 450, message: 'come again', temporary: true } };
    const user = data?.user ?? '';
    return { result: { user, info: { name: user }, data: { hello: user, asked: channels ?? [] }, channels: ['room:lobby'], expire_at: after(2), meta: { plan: 'gold' } } };
  },
  '/refresh': ({ user, meta }) => ({ result: user === 'brief' ? { expired: true } : { expire_at: after(2), info: { name: user, plan: meta?.plan } } }),
  '/subscribe': ({ user, channel }) => {
    if (channel.endsWith('forbidden')) return { error: { code: 403, message: 'not yours' } };
    return { result: { info: { seat: 7 }, data: { welcome: user }, override: { force_recovery: { value: true } } } };
  },
  '/publish': ({ user, data }) => {
    if (data?.word === 'rude') return { error: { code: 451, message: 'be kind' } };
    return { result: { data: { ...data, by: user }, tags: { checked: 'yes' } } };
  },
  '/rpc': ({ method, data, user }) => {
    if (method === 'nothing') return { result: {} };
    if (method === 'fail') return { error: { code: 460, message: 'no such thing' } };
    return { result: { data: { method, data, user } } };
  },
};

let backend;
let proxy;
const calls = [];
before(async () => {
  backend = createServer((request, response) => {
    const parts = [];
    request.on('data', (part) => parts.push(part));
    request.on('end', () => {
      const body = JSON.parse(Buffer.concat(parts).toString());
      calls.push({ path: request.url, headers: request.headers, body });
      response.setHeader('Content-Type', 'application/json');
      response.end(JSON.stringify(routes[request.url](body)));
    });
  });
  await new Promise((resolve) => backend.listen(0, '127.0.0.1', resolve));
  const endpoint = (path) => `endpoint = "http://127.0.0.1:${backend.address().port}${path}"`;
  proxy = await Proxy.start({
    lines: `
[client.proxy.connect]
enabled = true
${endpoint('/connect')}
include_connection_meta = true

[client.proxy.refresh]
enabled = true
${endpoint('/refresh')}
include_connection_meta = true

[channel.proxy.subscribe]
${endpoint('/subscribe')}

[channel.proxy.publish]
${endpoint('/publish')}

[rpc.proxy]
${endpoint('/rpc')}

[rpc.without_namespace]
proxy_enabled = true

[[channel.namespaces]]
name = "hooked"
history_size = 10
history_ttl = "60s"
subscribe_proxy_enabled = true
publish_proxy_enabled = true
`,
  });
});
afterAll(async () => {
  await proxy.stop();
  backend.closeAllConnections();
  backend.close();
});

async function connect(t, user) {
  const client = proxy.client({ token: '', data: pack({ user }) });
  t.after(() => client.disconnect());
  const events = new Events(client, CLIENT_EVENTS);
  client.connect();
  return { client, events };
}

test('the backend says who connects and what to', async (t) => {
  const { events } = await connect(t, 'ada');
  const connected = await events.until('connected');
  assert.deepEqual(connected.data, { hello: 'ada', asked: [] });
  assert.equal((await events.until('subscribed')).channel, 'room:lobby');
  const { body } = calls.find((call) => call.path === '/connect');
  assert.equal(body.data.user, 'ada');
});

test('the backend refuses a connection for good, or for now', async (t) => {
  const banned = await connect(t, 'banned');
  const away = await banned.events.until('disconnected');
  assert.deepEqual([away.code, away.reason], [4501, 'banned']);
  const late = await connect(t, 'late');
  const error = await late.events.until('error');
  assert.equal(error.error.code, 450);
});

test('the backend prolongs connections, and lets them end', async (t) => {
  const { client, events } = await connect(t, 'stays');
  await events.until('connected');
  const before = calls.length;
  await new Promise((resolve) => {
    const timer = setInterval(() => {
      const refreshed = calls.slice(before).filter((call) => call.path === '/refresh' && call.body.user === 'stays');
      if (refreshed.length >= 2) {
        clearInterval(timer);
        assert.deepEqual(refreshed[0].body.meta, { plan: 'gold' });
        resolve();
      }
    }, 20);
  });
  assert.equal(client.state, 'connected');
  assert.equal(events.named('connected').length, 1);
  const brief = await connect(t, 'brief');
  await brief.events.until('connected');
  assert.equal((await brief.events.until('connecting', (event) => event.code !== 0)).code, 3005);
});

test('the backend admits subscribers and changes what they publish', async (t) => {
  const { client, events } = await connect(t, 'bob');
  await events.until('connected');
  const subscription = client.newSubscription('hooked:open');
  const seen = new Events(subscription, SUBSCRIPTION_EVENTS);
  subscription.subscribe();
  const subscribed = await seen.until('subscribed');
  assert.deepEqual(subscribed.data, { welcome: 'bob' });
  assert.equal(subscribed.recoverable, true);
  await subscription.publish(pack({ word: 'hi' }));
  const publication = await seen.until('publication');
  assert.deepEqual(publication.data, { word: 'hi', by: 'bob' });
  assert.deepEqual(publication.tags, { checked: 'yes' });
  assert.deepEqual(publication.info.chanInfo, { seat: 7 });
  await assert.rejects(subscription.publish(pack({ word: 'rude' })), { code: 451, message: 'be kind' });
  const refused = client.newSubscription('hooked:forbidden');
  const refusals = new Events(refused, SUBSCRIPTION_EVENTS);
  refused.subscribe();
  const end = await refusals.until('unsubscribed');
  assert.deepEqual([end.code, end.reason], [403, 'not yours']);
});

test('the backend answers calls', async (t) => {
  const { client, events } = await connect(t, 'eve');
  await events.until('connected');
  const answer = await client.rpc('add', pack([1, 2]));
  assert.deepEqual(unpack(answer.data), { method: 'add', data: [1, 2], user: 'eve' });
  assert.equal(unpack((await client.rpc('nothing', pack(null))).data) ?? undefined, undefined);
  await assert.rejects(client.rpc('fail', pack({})), { code: 460, message: 'no such thing' });
});
