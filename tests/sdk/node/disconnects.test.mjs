// npm `centrifuge` in Node: what the SDK does with each disconnect code, as the server sends it.

import assert from 'node:assert/strict';
import { after as afterAll, before, test } from 'node:test';

import { CLIENT_EVENTS, Events, Proxy, after, token } from './proxy.mjs';

const RECONNECT = [3001, 3004, 3005, 3006, 3008, 3009, 3010, 3011, 3012, 3013, 3100, 3499, 4000, 4321, 4499];
const TERMINAL = [3500, 3501, 3502, 3503, 3504, 3505, 3506, 3507, 3508, 3999, 4500, 4999];

let proxy;
before(async () => {
  proxy = await Proxy.start({ lines: 'user_connection_limit = 2\nping_interval = "2s"\npong_timeout = "1s"\n' });
});
afterAll(() => proxy.stop());

async function connected(t, user, options = {}) {
  const client = proxy.client({ token: token({ sub: user }), ...options });
  t.after(() => client.disconnect());
  const events = new Events(client, CLIENT_EVENTS);
  client.connect();
  await events.until('connected');
  return { client, events };
}

for (const code of RECONNECT) {
  test(`the SDK reconnects after ${code}`, async (t) => {
    const { events } = await connected(t, `user-${code}`);
    await proxy.call('disconnect', { user: `user-${code}`, disconnect: { code, reason: 'for a test' } });
    const away = await events.until('connecting', (event) => event.code === code);
    assert.equal(away.reason, 'for a test');
    await events.until('connected');
    assert.equal(events.named('disconnected').length, 0);
  });
}

test('the SDK sees a transport that closed, and reconnects, after 3000: the socket is dropped without a word', async (t) => {
  const { events } = await connected(t, 'dropped');
  await proxy.call('disconnect', { user: 'dropped', disconnect: { code: 3000, reason: 'for a test' } });
  const away = await events.until('connecting', (event) => event.code !== 0);
  assert.deepEqual([away.code, away.reason], [1, 'transport closed']);
  await events.until('connected');
  assert.equal(events.named('disconnected').length, 0);
});

for (const code of TERMINAL) {
  test(`the SDK stays away after ${code}`, async (t) => {
    const { client, events } = await connected(t, `user-${code}`);
    await proxy.call('disconnect', { user: `user-${code}`, disconnect: { code, reason: 'for a test' } });
    const away = await events.until('disconnected');
    assert.deepEqual([away.code, away.reason], [code, 'for a test']);
    assert.equal(client.state, 'disconnected');
    client.connect();
    await events.until('connected');
  });
}

test('the API disconnects with 3503 unless told otherwise', async (t) => {
  const { events } = await connected(t, 'default');
  await proxy.call('disconnect', { user: 'default' });
  assert.equal((await events.until('disconnected')).code, 3503);
});

test('an invalid token is terminal', async (t) => {
  const client = proxy.client({ token: `${token({ sub: 'ada' })}x` });
  t.after(() => client.disconnect());
  const events = new Events(client, CLIENT_EVENTS);
  client.connect();
  assert.equal((await events.until('disconnected')).code, 3500);
});

test('a connection without a token is terminal where one is needed', async (t) => {
  const client = proxy.client({ token: '' });
  t.after(() => client.disconnect());
  const events = new Events(client, CLIENT_EVENTS);
  client.connect();
  assert.equal((await events.until('disconnected')).code, 3501);
});

test('a connection over the limit of its user is terminal', async (t) => {
  await connected(t, 'limited');
  await connected(t, 'limited');
  const third = proxy.client({ token: token({ sub: 'limited' }) });
  t.after(() => third.disconnect());
  const events = new Events(third, CLIENT_EVENTS);
  third.connect();
  assert.equal((await events.until('disconnected')).code, 3504);
});

test('an expired connection comes back with a new token', async (t) => {
  let asked = 0;
  const getToken = async () => {
    asked += 1;
    return token({ sub: 'expired', exp: after(3600) });
  };
  const { events } = await connected(t, 'expired', { token: token({ sub: 'expired', exp: after(3600) }), getToken });
  await proxy.call('refresh', { user: 'expired', expired: true });
  assert.equal((await events.until('connecting', (event) => event.code !== 0)).code, 3005);
  await events.until('connected');
  assert.ok(asked <= 1);
});

test('pings keep the connection open', async (t) => {
  const { client, events } = await connected(t, 'pinged', { maxServerPingDelay: 1000 });
  // The SDK arms a timer anew with each ping; without one it would be away after 3 s.
  const handle = client._handleServerPing;
  assert.equal(typeof handle, 'function', 'the SDK handles pings here');
  let pings = 0;
  await new Promise((resolve, reject) => {
    client._handleServerPing = (...args) => {
      pings += 1;
      if (pings === 3) resolve();
      return handle.apply(client, args);
    };
    client.on('connecting', (context) => reject(new Error(JSON.stringify(context))));
  });
  assert.equal(events.named('connected').length, 1);
});
