// npm `centrifuge` in Node: connecting, subscribing, publishing, presence, history, tokens.

import assert from 'node:assert/strict';
import { after as afterAll, before, test } from 'node:test';

import { CLIENT_EVENTS, Events, Proxy, SUBSCRIPTION_EVENTS, after, isWebSocket, pack, token, unpack } from './proxy.mjs';

let proxy;
before(async () => {
  proxy = await Proxy.start({ lines: 'channel_limit = 1000\n' });
});
afterAll(() => proxy.stop());

/** A connected client, ended with the test. */
async function connected(t, options) {
  const client = proxy.client(options);
  const events = new Events(client, CLIENT_EVENTS);
  t.after(() => client.disconnect());
  client.connect();
  await client.ready();
  return { client, events };
}

/** A subscription that is subscribed. */
async function subscribed(client, channel, options) {
  const subscription = client.newSubscription(channel, options);
  const events = new Events(subscription, SUBSCRIPTION_EVENTS);
  subscription.subscribe();
  const context = await events.until('subscribed');
  return { subscription, events, context };
}

test('c78 publications of a client reach all subscribers with the publisher', async (t) => {
  const one = await connected(t, { token: token({ sub: 'ada', info: { name: 'Ada' } }) });
  const two = await connected(t, { token: token({ sub: 'bob' }) });
  const first = await subscribed(one.client, 'room:publish');
  const second = await subscribed(two.client, 'room:publish');
  await first.subscription.publish(pack({ text: 'grüße' }));
  for (const { events } of [first, second]) {
    const publication = await events.until('publication');
    assert.deepEqual(publication.data, { text: 'grüße' });
    assert.equal(publication.offset, 1);
    assert.equal(publication.info.user, 'ada');
    assert.deepEqual(publication.info.connInfo, { name: 'Ada' });
  }
});

test('publications of the API reach subscribers with tags and without info', async (t) => {
  const { client } = await connected(t);
  const { events } = await subscribed(client, 'plain:api');
  await proxy.call('publish', { channel: 'plain:api', data: [1, null], tags: { a: 'b' } });
  const publication = await events.until('publication');
  assert.deepEqual(publication.data, [1, null]);
  assert.deepEqual(publication.tags, { a: 'b' });
  assert.equal(publication.info, undefined);
});

test('subscriptions made before connecting travel with the connect command', async (t) => {
  const client = proxy.client();
  t.after(() => client.disconnect());
  const all = Array.from({ length: 50 }, (_, n) => {
    const subscription = client.newSubscription(`room:early-${n}`);
    subscription.subscribe();
    return subscription;
  });
  client.connect();
  await Promise.all(all.map((subscription) => subscription.ready()));
});

test('a batch of commands in one frame is answered', async (t) => {
  const { client } = await connected(t);
  const { events } = await subscribed(client, 'plain:batch');
  client.startBatching();
  const answers = Array.from({ length: 100 }, (_, n) => client.publish('plain:batch', pack(n)));
  client.stopBatching();
  await Promise.all(answers);
  for (let n = 0; n < 100; n += 1) {
    assert.equal((await events.until('publication')).data, n);
  }
});

test('c78 presence, stats, join and leave', async (t) => {
  const one = await connected(t, { token: token({ sub: 'ada', info: 1 }) });
  const watcher = await subscribed(one.client, 'room:presence');
  const own = await watcher.events.until('join');
  assert.equal(own.info.user, 'ada');
  const two = await connected(t, { token: token({ sub: 'bob' }) });
  const other = await subscribed(two.client, 'room:presence');
  assert.equal((await watcher.events.until('join')).info.user, 'bob');
  const presence = await watcher.subscription.presence();
  assert.deepEqual(Object.values(presence.clients).map((info) => info.user).sort(), ['ada', 'bob']);
  assert.deepEqual(unpack(presence.clients[own.info.client].connInfo), 1);
  assert.deepEqual(await watcher.subscription.presenceStats(), { numClients: 2, numUsers: 2 });
  other.subscription.unsubscribe();
  assert.equal((await watcher.events.until('leave')).info.user, 'bob');
  other.subscription.subscribe();
  assert.equal((await watcher.events.until('join')).info.user, 'bob');
  two.client.disconnect();
  assert.equal((await watcher.events.until('leave')).info.user, 'bob');
  assert.deepEqual(await watcher.subscription.presenceStats(), { numClients: 1, numUsers: 1 });
});

test('history is paged forward and backward', async (t) => {
  const { client } = await connected(t);
  const { subscription } = await subscribed(client, 'room:history');
  for (let n = 1; n <= 5; n += 1) await subscription.publish(pack({ n }));
  const position = await subscription.history({ limit: 0 });
  assert.equal(position.offset, 5);
  assert.deepEqual(position.publications, []);
  const offsets = async (options) => (await subscription.history(options)).publications.map((publication) => publication.offset);
  assert.deepEqual(await offsets({ limit: -1 }), [1, 2, 3, 4, 5]);
  assert.deepEqual(await offsets({ limit: 2, since: { offset: 2, epoch: position.epoch } }), [3, 4]);
  assert.deepEqual(await offsets({ limit: 2, reverse: true }), [5, 4]);
  await assert.rejects(subscription.history({ limit: 1, since: { offset: 1, epoch: 'wrong' } }), { code: 112 });
});

test('refused commands reject with their code', async (t) => {
  const { client } = await connected(t);
  await assert.rejects(client.publish('three:no', pack({})), { code: 103 });
  await assert.rejects(client.publish('nowhere:no', pack({})), { code: 102 });
  await assert.rejects(client.presence('plain:no'), { code: 108 });
  await assert.rejects(client.history('plain:no', { limit: 1 }), { code: 108 });
  await assert.rejects(client.rpc('method', pack({})), { code: 108 });
  const refused = client.newSubscription('closed:no');
  const events = new Events(refused, SUBSCRIPTION_EVENTS);
  refused.subscribe();
  assert.equal((await events.until('unsubscribed')).code, 103);
  assert.equal(client.state, 'connected');
});

test('an expired token is replaced through getToken before the connection opens', async (t) => {
  let asked = 0;
  const getToken = async () => {
    asked += 1;
    return token({ sub: 'ada' });
  };
  const { events } = await connected(t, { token: token({ sub: 'ada', exp: after(-10) }), getToken });
  assert.equal(asked, 1);
  assert.equal(events.named('disconnected').length, 0);
});

test('a connection is refreshed through getToken when its token runs out', async (t) => {
  let asked = 0;
  const asks = new Promise((resolve) => {
    t.getToken = async () => {
      asked += 1;
      if (asked === 3) resolve();
      return token({ sub: 'ada', exp: after(2) });
    };
  });
  const { client, events } = await connected(t, { token: '', getToken: t.getToken });
  await asks;
  await client.publish('plain:refresh', pack(1));
  assert.equal(events.named('connected').length, 1, 'one connection all the time');
});

test('a subscription token opens a closed channel and is refreshed', async (t) => {
  const { client } = await connected(t);
  let asked = 0;
  let thrice;
  const refreshed = new Promise((resolve) => {
    thrice = resolve;
  });
  const getToken = async ({ channel }) => {
    asked += 1;
    if (asked === 3) thrice();
    return token({ sub: 'ada', channel, exp: after(2), info: { seat: 1 } });
  };
  const { events } = await subscribed(client, 'closed:token', { getToken });
  await refreshed;
  await proxy.call('publish', { channel: 'closed:token', data: 'still' });
  assert.equal((await events.until('publication')).data, 'still');
  assert.equal(events.named('subscribed').length, 1, 'one subscription all the time');
});

test('a subscription that is not refreshed is made again with a new token', async (t) => {
  const { client } = await connected(t);
  let asked = 0;
  const getToken = async ({ channel }) => {
    asked += 1;
    // The refresh of the first token brings one that has expired already.
    return token({ sub: 'ada', channel, exp: after(asked === 2 ? -5 : 2) });
  };
  const { events } = await subscribed(client, 'closed:again', { getToken, minResubscribeDelay: 50, maxResubscribeDelay: 200 });
  const subscribing = await events.until('subscribing', (event) => event.code !== 0);
  assert.equal(subscribing.code, 2501);
  await events.until('subscribed');
});

test('server-side subscriptions of the token deliver', async (t) => {
  const { events } = await connected(t, { token: token({ sub: 'ada', channels: ['room:mine'] }) });
  const context = await events.until('subscribed');
  assert.equal(context.channel, 'room:mine');
  assert.equal(context.recoverable, true);
  await proxy.call('publish', { channel: 'room:mine', data: 'hello' });
  const publication = await events.until('publication');
  assert.deepEqual([publication.channel, publication.data], ['room:mine', 'hello']);
});

test('server-side subscriptions of the API come and go', async (t) => {
  const { events } = await connected(t, { token: token({ sub: 'guest' }) });
  await proxy.call('subscribe', { user: 'guest', channel: 'room:guests' });
  assert.equal((await events.until('subscribed')).channel, 'room:guests');
  await proxy.call('publish', { channel: 'room:guests', data: 1 });
  assert.equal((await events.until('publication')).data, 1);
  await proxy.call('unsubscribe', { user: 'guest', channel: 'room:guests' });
  assert.equal((await events.until('unsubscribed')).channel, 'room:guests');
});

test('a client-side subscription that the API ends stays ended', async (t) => {
  const { client } = await connected(t, { token: token({ sub: 'kicked' }) });
  const { subscription, events } = await subscribed(client, 'plain:kicked');
  await proxy.call('unsubscribe', { user: 'kicked', channel: 'plain:kicked' });
  assert.equal((await events.until('unsubscribed')).code, 2000);
  subscription.subscribe();
  await events.until('subscribed');
});

test('a payload over the limit ends the client for good', { skip: !isWebSocket && 'streams answer 413' }, async (t) => {
  const { client, events } = await connected(t);
  client.publish('plain:big', pack('x'.repeat(70_000))).catch(() => {});
  assert.equal((await events.until('disconnected')).code, 3, 'message size limit exceeded');
});

test('payloads of many shapes arrive as they were', async (t) => {
  const { client } = await connected(t);
  const { events } = await subscribed(client, 'plain:shapes');
  const shapes = [0, -1.5, '', 'a\n\u2028"\\', true, false, [], {}, { a: { b: [null, 1e21] } }, 'x'.repeat(50_000), '😀'.repeat(1000)];
  for (const shape of shapes) {
    await client.publish('plain:shapes', pack(shape));
    assert.deepEqual((await events.until('publication')).data, shape);
  }
});

// Over streams the subscriptions follow in one emulation request, whose body has a limit of 64 KiB.
const FIRST_FRAME = isWebSocket ? 1000 : 500;

test(`${FIRST_FRAME} subscriptions in the first frame are all answered`, async (t) => {
  const { client } = await connected(t);
  client.disconnect();
  const all = Array.from({ length: FIRST_FRAME }, (_, n) => {
    const subscription = client.newSubscription(`plain:many-${n}`);
    subscription.subscribe();
    return subscription;
  });
  client.connect();
  await Promise.all(all.map((subscription) => subscription.ready(20_000)));
  const events = new Events(all.at(-1), SUBSCRIPTION_EVENTS);
  await proxy.call('publish', { channel: `plain:many-${FIRST_FRAME - 1}`, data: 'last' });
  assert.equal((await events.until('publication')).data, 'last');
});

test('a thousand publications arrive in order, and one larger than any packet', async (t) => {
  const { client } = await connected(t);
  const { events } = await subscribed(client, 'plain:thousand');
  for (let batch = 0; batch < 10; batch += 1) {
    const commands = Array.from({ length: 100 }, (_, n) => ({ publish: { channel: 'plain:thousand', data: batch * 100 + n } }));
    await proxy.call('batch', { commands });
  }
  for (let n = 0; n < 1000; n += 1) assert.equal((await events.until('publication')).data, n);
  const large = 'ß😀'.repeat(20_000);
  await proxy.call('publish', { channel: 'plain:thousand', data: { large } });
  assert.deepEqual((await events.until('publication')).data, { large });
});
