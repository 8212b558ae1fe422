// npm `centrifuge` in Node: lost connections, restarted servers, drained servers.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { CLIENT_EVENTS, Events, Proxy, SUBSCRIPTION_EVENTS, token } from './proxy.mjs';

/** A server of its own, a connected client, a subscription: `position` is where it is. */
async function arrange(t, channel, options = {}) {
  const proxy = await Proxy.start();
  const client = proxy.client(options);
  t.after(async () => {
    client.disconnect();
    await proxy.stop();
  });
  const clientEvents = new Events(client, CLIENT_EVENTS);
  const subscription = client.newSubscription(channel);
  const events = new Events(subscription, SUBSCRIPTION_EVENTS);
  subscription.subscribe();
  client.connect();
  const position = (await events.until('subscribed')).streamPosition;
  return { proxy, client, clientEvents, subscription, events, position };
}

async function publish(proxy, channel, from, to) {
  for (let n = from; n <= to; n += 1) await proxy.call('publish', { channel, data: { n } });
}

async function expect(events, from, to) {
  for (let n = from; n <= to; n += 1) {
    const publication = await events.until('publication');
    assert.deepEqual([publication.offset, publication.data.n], [n, n]);
  }
}

test('c78 what was missed during a lost connection is recovered in order', async (t) => {
  const { proxy, client, clientEvents, events, position } = await arrange(t, 'room:lost', { minReconnectDelay: 300 });
  await publish(proxy, 'room:lost', 1, 2);
  await expect(events, 1, 2);
  for (let round = 0; round < 5; round += 1) {
    client.cut();
    await clientEvents.until('connecting', (event) => event.code === 1);
    await publish(proxy, 'room:lost', 3 + round * 3, 5 + round * 3);
    const again = await events.until('subscribed');
    assert.equal(again.wasRecovering, true);
    assert.equal(again.recovered, true);
    assert.equal(again.streamPosition.epoch, position.epoch);
    await expect(events, 3 + round * 3, 5 + round * 3);
  }
});

test('a forced reconnect while publishing loses and repeats nothing', async (t) => {
  const { proxy, clientEvents, events } = await arrange(t, 'room:forced');
  const total = 200;
  const publisher = publish(proxy, 'room:forced', 1, total);
  for (let round = 0; round < 5; round += 1) {
    await proxy.call('disconnect', { user: 'ada', disconnect: { code: 4000, reason: 'come back' } });
    await clientEvents.until('connecting', (event) => event.code === 4000);
    await clientEvents.until('connected');
  }
  await publisher;
  await proxy.call('publish', { channel: 'room:forced', data: { n: total + 1 } });
  const last = (await until(events, total + 1)).map((event) => event.offset);
  assert.deepEqual(last, Array.from({ length: total + 1 }, (_, n) => n + 1));
  assert.ok(events.named('subscribed').slice(1).every((event) => event.recovered), 'always recovered');
});

/** All publications once the one with this offset has come. */
async function until(events, offset) {
  await events.until('publication', (event) => event.offset === offset);
  return events.named('publication');
}

test('more missed than kept is reported as not recovered', async (t) => {
  const { proxy, client, clientEvents, events } = await arrange(t, 'three:over', { minReconnectDelay: 1000, maxReconnectDelay: 1500 });
  client.cut();
  await clientEvents.until('connecting', (event) => event.code === 1);
  await proxy.call('batch', { commands: Array.from({ length: 10 }, (_, n) => ({ publish: { channel: 'three:over', data: { n: n + 1 } } })) });
  const again = await events.until('subscribed');
  assert.equal(again.wasRecovering, true);
  if (!again.recovered) {
    assert.equal(again.streamPosition.offset, 10);
    await publish(proxy, 'three:over', 11, 11);
    await expect(events, 11, 11);
  } else {
    assert.fail('seven of ten publications were no longer kept');
  }
});

test('a restarted server is a new epoch', async (t) => {
  const { proxy, clientEvents, events, position } = await arrange(t, 'room:restart');
  await publish(proxy, 'room:restart', 1, 3);
  await expect(events, 1, 3);
  await proxy.restart();
  const again = await events.until('subscribed');
  assert.equal(again.wasRecovering, true);
  assert.equal(again.recovered, false);
  assert.notEqual(again.streamPosition.epoch, position.epoch);
  assert.equal(again.streamPosition.offset, 0);
  assert.equal(clientEvents.named('disconnected').length, 0);
  await publish(proxy, 'room:restart', 1, 1);
  await expect(events, 1, 1);
});

test('a drained server sends its clients to the next one', async (t) => {
  const { proxy, clientEvents, events } = await arrange(t, 'room:drain');
  assert.equal(await proxy.kill('SIGTERM'), 0);
  const away = await clientEvents.until('connecting', (event) => event.code !== 0);
  assert.deepEqual([away.code, away.reason], [3001, 'shutdown']);
  await proxy.run(proxy.address);
  await events.until('subscribed');
  assert.equal(clientEvents.named('disconnected').length, 0);
});

test('server-side subscriptions recover through the connect command', async (t) => {
  const proxy = await Proxy.start();
  const client = proxy.client({ token: token({ sub: 'ada', channels: ['room:server-side'] }), minReconnectDelay: 300 });
  t.after(async () => {
    client.disconnect();
    await proxy.stop();
  });
  const events = new Events(client, CLIENT_EVENTS);
  client.connect();
  await events.until('subscribed');
  await publish(proxy, 'room:server-side', 1, 1);
  await expect(events, 1, 1);
  client.cut();
  await events.until('connecting', (event) => event.code === 1);
  await publish(proxy, 'room:server-side', 2, 4);
  const again = await events.until('subscribed');
  assert.equal(again.recovered, true);
  await expect(events, 2, 4);
});

test('a subscription that starts from a known position recovers', async (t) => {
  const { proxy, client, position } = await arrange(t, 'room:since');
  await publish(proxy, 'room:since', 1, 5);
  const other = proxy.client({ token: token({ sub: 'bob' }) });
  t.after(() => other.disconnect());
  const subscription = other.newSubscription('room:since', { since: { offset: 2, epoch: position.epoch } });
  const events = new Events(subscription, SUBSCRIPTION_EVENTS);
  subscription.subscribe();
  other.connect();
  assert.equal((await events.until('subscribed')).recovered, true);
  await expect(events, 3, 5);
  assert.equal(client.state, 'connected');
});
