// npm `centrifuge` as a worker of a queue group: deliveries are messages, and RPCs say what became of them.

import assert from 'node:assert/strict';
import { after as afterAll, before, test } from 'node:test';

import { CLIENT_EVENTS, Events, Proxy, pack, token, unpack } from './proxy.mjs';

const LINES = `
[durable.embedded]
directory = "durable"

[[channel.namespaces]]
name = "orders"
delivery = "durable"
allow_subscribe_for_client = true
`;

let proxy;
before(async () => {
  proxy = await Proxy.start({ lines: LINES });
});
afterAll(() => proxy.stop());

test('a worker gets each publication as a message until it says that it is done', async (t) => {
  const claims = { sub: 'worker', consume: { billing: ['orders:*'] } };
  const client = proxy.client({ token: token(claims) });
  const events = new Events(client, CLIENT_EVENTS);
  t.after(() => client.disconnect());
  client.connect();
  await client.ready();
  const rpc = async (method, data) => unpack((await client.rpc(`ringmain.${method}`, pack(data))).data);
  const rules = { group: 'billing', channels: ['orders:*'], credit: 1, backoff: { base_ms: 500 } };
  assert.deepEqual(await rpc('consume', rules), { group: 'billing', credit: 1 });
  await proxy.call('publish', { channel: 'orders:1', data: { n: 1 }, idempotency_key: 'a' });
  await proxy.call('publish', { channel: 'orders:1', data: { n: 2 } });
  const first = (await events.until('message')).data;
  assert.deepEqual([first.data, first.offset, first.attempt, first.key], [{ n: 1 }, 1, 1, 'a']);
  await rpc('nak', { delivery: first.delivery, reason: 'not yet' });
  // The credit is free while the first one waits for its next attempt.
  const second = (await events.until('message')).data;
  assert.deepEqual([second.data, second.attempt], [{ n: 2 }, 1]);
  assert.deepEqual(await rpc('ack', { delivery: second.delivery }), { acked: 1 });
  const again = (await events.until('message', ({ data }) => data.event_id === first.event_id)).data;
  assert.equal(again.attempt, 2);
  assert.deepEqual(await rpc('ack', { delivery: again.delivery }), { acked: 1 });
  await assert.rejects(rpc('consume', { group: 'other', channels: ['orders:*'] }), { code: 103 });
});
