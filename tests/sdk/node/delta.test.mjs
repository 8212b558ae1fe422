// npm `centrifuge` in Node: patches, and recovery in cache mode.

import assert from 'node:assert/strict';
import { after as afterAll, before, test } from 'node:test';

import { CLIENT_EVENTS, Events, Proxy, SUBSCRIPTION_EVENTS } from './proxy.mjs';

let proxy;
before(async () => {
  proxy = await Proxy.start();
});
afterAll(() => proxy.stop());

/** A payload that differs little from its neighbours. */
function quote(n) {
  return { symbol: 'RMN', text: 'the quick brown fox jumps over the lazy dog — grüße 😀', price: 100 + n / 4, n };
}

async function publish(channel, from, to) {
  for (let n = from; n <= to; n += 1) await proxy.call('publish', { channel, data: quote(n) });
}

async function arrange(t, channel, options) {
  const client = proxy.client({ minReconnectDelay: 300 });
  t.after(() => client.disconnect());
  const clientEvents = new Events(client, CLIENT_EVENTS);
  const subscription = client.newSubscription(channel, options);
  const events = new Events(subscription, SUBSCRIPTION_EVENTS);
  subscription.subscribe();
  client.connect();
  const context = await events.until('subscribed');
  return { client, clientEvents, subscription, events, context };
}

async function expect(events, from, to) {
  for (let n = from; n <= to; n += 1) {
    const publication = await events.until('publication');
    assert.deepEqual([publication.offset, publication.data], [n, quote(n)]);
  }
}

test('patched publications are what was published, also across lost connections', async (t) => {
  const { client, clientEvents, events } = await arrange(t, 'delta:across', { delta: 'fossil' });
  await publish('delta:across', 1, 5);
  await expect(events, 1, 5);
  for (let round = 0; round < 3; round += 1) {
    const from = 6 + round * 6;
    client.cut();
    await clientEvents.until('connecting', (event) => event.code === 1);
    await publish('delta:across', from, from + 2);
    assert.equal((await events.until('subscribed')).recovered, true);
    await publish('delta:across', from + 3, from + 5);
    await expect(events, from, from + 5);
  }
  client.cut();
  await clientEvents.until('connecting', (event) => event.code === 1);
  await events.until('subscribed');
  await publish('delta:across', 24, 26);
  await expect(events, 24, 26);
});

test('a client without patches gets the same beside one with them', async (t) => {
  const patched = await arrange(t, 'delta:beside', { delta: 'fossil' });
  const whole = await arrange(t, 'delta:beside');
  await publish('delta:beside', 1, 20);
  await Promise.all([expect(patched.events, 1, 20), expect(whole.events, 1, 20)]);
});

test('a subscriber in cache mode starts with the latest publication', async (t) => {
  await publish('cache:latest', 1, 3);
  const { client, clientEvents, events } = await arrange(t, 'cache:latest');
  await expect(events, 3, 3);
  client.cut();
  await clientEvents.until('connecting', (event) => event.code === 1);
  await publish('cache:latest', 4, 9);
  await events.until('subscribed');
  const publication = await events.until('publication');
  assert.deepEqual(publication.data, quote(9), 'what is stale is not sent');
  await publish('cache:latest', 10, 10);
  await expect(events, 10, 10);
});
