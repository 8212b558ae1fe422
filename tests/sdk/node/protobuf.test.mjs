// npm `centrifuge`, its Protobuf build, in Node: payloads of any bytes, everything else as in JSON.

import assert from 'node:assert/strict';
import { after as afterAll, before, test } from 'node:test';

import { Centrifuge } from 'centrifuge/build/protobuf';
import WebSocket from 'ws';

import { CLIENT_EVENTS, Events, Proxy, SUBSCRIPTION_EVENTS, token } from './proxy.mjs';

let proxy;
before(async () => {
  proxy = await Proxy.start();
});
afterAll(() => proxy.stop());

const BYTES = Uint8Array.from([0, 1, 0xff, 0x7b, 0x0a]);
const json = (value) => new TextEncoder().encode(JSON.stringify(value));
const parsed = (bytes) => JSON.parse(new TextDecoder().decode(bytes));

async function connected(t, claims = { sub: 'ada' }) {
  const sockets = [];
  class Recorded extends WebSocket {
    constructor(...args) {
      super(...args);
      sockets.push(this);
    }
  }
  const client = new Centrifuge(proxy.url, {
    websocket: Recorded,
    token: token(claims),
    minReconnectDelay: 50,
    maxReconnectDelay: 300,
  });
  const events = new Events(client, CLIENT_EVENTS);
  t.after(() => client.disconnect());
  client.connect();
  await client.ready();
  assert.equal(sockets[0].protocol, 'centrifuge-protobuf');
  return { client, events, sockets };
}

async function subscribed(client, channel) {
  const subscription = client.newSubscription(channel);
  const events = new Events(subscription, SUBSCRIPTION_EVENTS);
  subscription.subscribe();
  return { subscription, events, context: await events.until('subscribed') };
}

test('publications of any bytes reach subscribers with the publisher', async (t) => {
  const one = await connected(t, { sub: 'ada', info: { name: 'Ada' } });
  const two = await connected(t, { sub: 'bob' });
  const first = await subscribed(one.client, 'room:protobuf');
  const second = await subscribed(two.client, 'room:protobuf');
  await first.subscription.publish(BYTES);
  for (const { events } of [first, second]) {
    const publication = await events.until('publication');
    assert.deepEqual(Uint8Array.from(publication.data), BYTES);
    assert.equal(publication.offset, 1);
    assert.equal(publication.info.user, 'ada');
    assert.deepEqual(parsed(publication.info.connInfo), { name: 'Ada' });
  }
  const history = await first.subscription.history({ limit: 10 });
  assert.deepEqual(Uint8Array.from(history.publications[0].data), BYTES);
  const stats = await first.subscription.presenceStats();
  assert.deepEqual([stats.numClients, stats.numUsers], [2, 2]);
  const presence = await first.subscription.presence();
  assert.deepEqual(Object.values(presence.clients).map(({ user }) => user).sort(), ['ada', 'bob']);
});

test('a JSON client and a Protobuf client talk in one channel', async (t) => {
  const binary = await connected(t);
  const text = proxy.client({ token: token({ sub: 'bob' }) });
  t.after(() => text.disconnect());
  text.connect();
  await text.ready();
  const ours = await subscribed(binary.client, 'room:mixed');
  const theirs = await subscribed(text, 'room:mixed');
  await ours.subscription.publish(json({ from: 'protobuf' }));
  assert.deepEqual((await theirs.events.until('publication')).data, { from: 'protobuf' });
  await theirs.subscription.publish({ from: 'json' });
  const isTheirs = ({ offset }) => offset === 2;
  assert.deepEqual(parsed((await ours.events.until('publication', isTheirs)).data), { from: 'json' });
});

test('what was missed while the socket was gone is recovered', async (t) => {
  const { client, events, sockets } = await connected(t);
  const room = await subscribed(client, 'room:recovered');
  await proxy.call('publish', { channel: 'room:recovered', data: { n: 1 } });
  await room.events.until('publication');
  sockets[0].terminate();
  await events.until('connecting', ({ code }) => code !== 0);
  await proxy.call('publish', { channel: 'room:recovered', data: { n: 2 } });
  const context = await room.events.until('subscribed');
  assert.equal(context.wasRecovering, true);
  assert.equal(context.recovered, true);
  const publication = await room.events.until('publication');
  assert.deepEqual([publication.offset, parsed(publication.data)], [2, { n: 2 }]);
});

test('100 subscriptions in the first frame, errors and server-side subscriptions are understood', async (t) => {
  const { client, events } = await connected(t, { sub: 'ada', channels: ['room:server-side'] });
  const all = Array.from({ length: 100 }, (_, n) => client.newSubscription(`plain:many-${n}`));
  for (const subscription of all) subscription.subscribe();
  await Promise.all(all.map((subscription) => subscription.ready()));
  await proxy.call('publish', { channel: 'room:server-side', data: [1] });
  const publication = await events.until('publication');
  assert.deepEqual([publication.channel, parsed(publication.data)], ['room:server-side', [1]]);
  await assert.rejects(client.publish('closed:x', json(1)), ({ code }) => code === 103);
});

test('a disconnect of the server is final', async (t) => {
  const { client, events } = await connected(t, { sub: 'leaver' });
  await proxy.call('disconnect', { user: 'leaver' });
  const { code } = await events.until('disconnected');
  assert.equal(code, 3503);
  assert.equal(client.state, 'disconnected');
});
