// npm `centrifuge` over HTTP streaming (JSON and Protobuf) and server-sent events, in Node.

import assert from 'node:assert/strict';
import { after as afterAll, before, test } from 'node:test';

import { Centrifuge } from 'centrifuge';
import { Centrifuge as ProtobufCentrifuge } from 'centrifuge/build/protobuf';
import { EventSource } from 'eventsource';

import { CLIENT_EVENTS, Events, Proxy, SUBSCRIPTION_EVENTS, after, token } from './proxy.mjs';

const STREAMS = '[http_stream]\nenabled = true\n[sse]\nenabled = true\n';

let proxy;
before(async () => {
  proxy = await Proxy.start({ lines: STREAMS });
});
afterAll(() => proxy.stop());

const TRANSPORTS = [
  { name: 'http_stream', Client: Centrifuge, decode: (data) => data, encode: (data) => data },
  { name: 'sse', Client: Centrifuge, decode: (data) => data, encode: (data) => data },
  {
    name: 'http_stream',
    title: 'http_stream in Protobuf',
    Client: ProtobufCentrifuge,
    decode: (data) => JSON.parse(new TextDecoder().decode(data)),
    encode: (data) => new TextEncoder().encode(JSON.stringify(data)),
  },
];

function client({ name, Client }, options = {}, to = proxy) {
  return new Client([{ transport: name, endpoint: `http://${to.address}/connection/${name}` }], {
    emulationEndpoint: `http://${to.address}/emulation`,
    eventsource: EventSource,
    token: token({ sub: 'ada' }),
    minReconnectDelay: 50,
    maxReconnectDelay: 300,
    ...options,
  });
}

/** A connected client, ended with the test. */
async function connected(t, transport, options, to) {
  const one = client(transport, options, to);
  const events = new Events(one, CLIENT_EVENTS);
  t.after(() => one.disconnect());
  one.connect();
  const context = await events.until('connected');
  assert.equal(context.transport, transport.name);
  return { client: one, events };
}

async function subscribed(one, channel, options) {
  const subscription = one.newSubscription(channel, options);
  const events = new Events(subscription, SUBSCRIPTION_EVENTS);
  subscription.subscribe();
  const context = await events.until('subscribed');
  return { subscription, events, context };
}

for (const transport of TRANSPORTS) {
  const { name, title = name, decode, encode } = transport;

  test(`${title}: publish, presence, history and a publication larger than a packet`, async (t) => {
    const { client: one } = await connected(t, transport);
    const channel = `room:${title.replaceAll(' ', '-')}`;
    const { subscription, events } = await subscribed(one, channel);
    await subscription.publish(encode({ text: 'grüße' }));
    const publication = await events.until('publication');
    assert.deepEqual(decode(publication.data), { text: 'grüße' });
    assert.equal(publication.info.user, 'ada');
    const presence = await subscription.presence();
    assert.deepEqual(Object.values(presence.clients).map((info) => info.user), ['ada']);
    const history = await subscription.history({ limit: 10 });
    assert.equal(history.offset, 1);
    const large = 'ß😀'.repeat(20_000);
    await proxy.call('publish', { channel, data: { large } });
    const second = await events.until('publication');
    assert.deepEqual(decode(second.data), { large });
  });

  test(`${title}: a thousand publications in order`, async (t) => {
    const { client: one } = await connected(t, transport);
    const channel = `plain:${title.replaceAll(' ', '-')}`;
    const { events } = await subscribed(one, channel);
    for (let batch = 0; batch < 10; batch += 1) {
      const commands = Array.from({ length: 100 }, (_, n) => ({ publish: { channel, data: batch * 100 + n } }));
      await proxy.call('batch', { commands });
    }
    for (let n = 0; n < 1000; n += 1) {
      const publication = await events.until('publication');
      assert.equal(decode(publication.data), n);
    }
  });

  test(`${title}: an error answers a subscribe, and many subscriptions at once work`, async (t) => {
    const { client: one } = await connected(t, transport);
    const closed = one.newSubscription('closed:x');
    const events = new Events(closed, SUBSCRIPTION_EVENTS);
    closed.subscribe();
    assert.equal((await events.until('unsubscribed')).code, 103);
    const many = Array.from({ length: 100 }, (_, n) => one.newSubscription(`plain:many-${n}`));
    for (const subscription of many) subscription.subscribe();
    await Promise.all(many.map((subscription) => subscription.ready(10_000)));
  });

  test(`${title}: the server's codes decide whether the client comes back, and it recovers`, async (t) => {
    const user = `user-${title.replaceAll(' ', '-')}`;
    const { client: one, events } = await connected(t, transport, { token: token({ sub: user }) });
    const channel = `room:return-${user}`;
    const { events: seen } = await subscribed(one, channel);
    await proxy.call('disconnect', { user, disconnect: { code: 4000, reason: 'come back' } });
    assert.equal((await events.until('connecting', ({ code }) => code === 4000)).reason, 'come back');
    for (let n = 1; n <= 3; n += 1) await proxy.call('publish', { channel, data: n });
    await events.until('connected');
    for (let n = 1; n <= 3; n += 1) assert.equal(decode((await seen.until('publication')).data), n);
    await proxy.call('disconnect', { user });
    const end = await events.until('disconnected');
    assert.deepEqual([end.code, end.reason], [3503, 'force disconnect']);
  });

  test(`${title}: an expired token is renewed`, async (t) => {
    let asked = 0;
    const getToken = async () => {
      asked += 1;
      return token({ sub: 'ada' });
    };
    await connected(t, transport, { token: token({ sub: 'ada', exp: after(-10) }), getToken });
    assert.equal(asked, 1);
  });

  test(`${title}: pings keep a client connected`, async (t) => {
    const quick = await Proxy.start({ lines: `ping_interval = "1s"\npong_timeout = "500ms"\n${STREAMS}` });
    t.after(() => quick.stop());
    const { client: one, events } = await connected(t, transport, {}, quick);
    const { subscription } = await subscribed(one, 'room:pinged');
    for (let n = 0; n < 5; n += 1) {
      await new Promise((resolve) => setTimeout(resolve, 600));
      await subscription.publish(encode(n));
    }
    assert.deepEqual(events.named('disconnected'), []);
    assert.equal(events.named('connecting').length, 1);
  });

  test(`${title}: the client comes back after the proxy restarts`, async (t) => {
    const fragile = await Proxy.start({ lines: STREAMS });
    t.after(() => fragile.stop());
    const { client: one, events } = await connected(t, transport, {}, fragile);
    const { events: seen } = await subscribed(one, 'room:restart');
    await fragile.restart();
    await events.until('connected');
    await seen.until('subscribed');
    await fragile.call('publish', { channel: 'room:restart', data: 'again' });
    assert.equal(decode((await seen.until('publication')).data), 'again');
  });
}
