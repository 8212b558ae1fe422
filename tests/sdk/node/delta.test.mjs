// npm `centrifuge` in Node with delta: every payload is what was published, across reconnects.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { CLIENT_EVENTS, Events, Proxy, SUBSCRIPTION_EVENTS } from './proxy.mjs';

/** Numbers from a fixed seed. */
function numbers() {
  let state = 7;
  return (below) => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    return (state >>> 8) % below;
  };
}

/** Documents that change a little, a lot, or altogether. */
function documents(count) {
  const random = numbers();
  const words = ['größer', '日本語', 'fox', '🦊', '"quoted"', 'back\\slash', 'line\nbreak', 'plain'];
  const word = () => words[random(words.length)] + random(100);
  let rows = Array.from({ length: 20 }, (_, id) => ({ id, text: word(), price: random(1000) }));
  return Array.from({ length: count }, (_, n) => {
    const kind = random(10);
    if (kind === 0) rows = Array.from({ length: random(30) }, (__, id) => ({ id, text: word(), price: random(1000) }));
    else if (kind === 1) rows = rows.slice().reverse();
    else if (kind === 2) return { n, only: word() };
    else rows = rows.map((row) => (random(4) === 0 ? { ...row, text: row.text + word() } : row));
    return { n, rows };
  });
}

test('c78 every payload arrives as it was published, across lost connections', async (t) => {
  const proxy = await Proxy.start();
  const client = proxy.client();
  t.after(async () => {
    client.disconnect();
    await proxy.stop();
  });
  const clientEvents = new Events(client, CLIENT_EVENTS);
  const subscription = client.newSubscription('delta:docs', { delta: 'fossil' });
  const events = new Events(subscription, SUBSCRIPTION_EVENTS);
  subscription.subscribe();
  client.connect();
  await events.until('subscribed');

  const all = documents(150);
  let at = 0;
  const publish = async (count) => {
    for (let n = 0; n < count; n += 1, at += 1) await proxy.call('publish', { channel: 'delta:docs', data: all[at] });
  };
  for (let round = 0; round < 10; round += 1) {
    await publish(8);
    client.cut();
    await clientEvents.until('connecting', (event) => event.code === 1);
    await publish(round % 3 === 0 ? 0 : 6);
    const again = await events.until('subscribed');
    assert.equal(again.recovered, true);
  }
  await publish(all.length - at);
  await events.until('publication', (event) => event.offset === all.length);
  const got = events.named('publication');
  assert.deepEqual(got.map((event) => event.offset), all.map((_, n) => n + 1));
  assert.deepEqual(got.map((event) => event.data), all);
  const stats = subscription.deltaStats();
  assert.ok(stats.numDeltaPayloads > all.length / 2, JSON.stringify(stats));
  assert.ok(stats.compressionRatio > 0.3, JSON.stringify(stats));
  assert.deepEqual(events.named('error'), []);
});

test('the latest publication comes with the subscription', async (t) => {
  const proxy = await Proxy.start();
  const clients = [];
  t.after(async () => {
    for (const client of clients) client.disconnect();
    await proxy.stop();
  });
  const all = documents(10);
  for (const [n, data] of all.entries()) {
    await proxy.call('publish', { channel: 'latest:docs', data });
    const client = proxy.client();
    clients.push(client);
    const subscription = client.newSubscription('latest:docs', { delta: 'fossil' });
    const events = new Events(subscription, SUBSCRIPTION_EVENTS);
    subscription.subscribe();
    client.connect();
    client.events = events;
    const publication = await events.until('publication');
    assert.equal(publication.offset, n + 1);
    assert.deepEqual(publication.data, data);
  }
  for (const [n, client] of clients.entries()) {
    if (n < all.length - 1) await client.events.until('publication', (event) => event.offset === all.length);
    assert.deepEqual(client.events.named('publication').map((event) => event.data), all.slice(n));
  }
});

test('a filter lets through what matches', async (t) => {
  const proxy = await Proxy.start();
  const client = proxy.client();
  t.after(async () => {
    client.disconnect();
    await proxy.stop();
  });
  const subscription = client.newSubscription('latest:filtered', { tagsFilter: { key: 'kind', cmp: 'eq', val: 'even' } });
  const events = new Events(subscription, SUBSCRIPTION_EVENTS);
  subscription.subscribe();
  client.connect();
  await events.until('subscribed');
  for (let n = 1; n <= 10; n += 1) {
    await proxy.call('publish', { channel: 'latest:filtered', data: { n }, tags: { kind: n % 2 === 0 ? 'even' : 'odd' } });
  }
  await events.until('publication', (event) => event.offset === 10);
  assert.deepEqual(events.named('publication').map((event) => event.data.n), [2, 4, 6, 8, 10]);
});

test('a client without patches gets the same beside one with them', async (t) => {
  const proxy = await Proxy.start();
  const clients = [];
  t.after(async () => {
    for (const client of clients) client.disconnect();
    await proxy.stop();
  });
  const seen = [];
  for (const options of [{ delta: 'fossil' }, {}]) {
    const client = proxy.client();
    clients.push(client);
    const subscription = client.newSubscription('delta:beside', options);
    const events = new Events(subscription, SUBSCRIPTION_EVENTS);
    seen.push(events);
    subscription.subscribe();
    client.connect();
    await events.until('subscribed');
  }
  const all = documents(20);
  for (const data of all) await proxy.call('publish', { channel: 'delta:beside', data });
  for (const events of seen) {
    await events.until('publication', (event) => event.offset === all.length);
    assert.deepEqual(events.named('publication').map((event) => event.data), all);
  }
});
