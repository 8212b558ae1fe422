// npm `cent.js`: every method, alone and in a pipeline.

import assert from 'node:assert/strict';
import { after as afterAll, before, test } from 'node:test';

import cent from 'cent.js';

import { API_KEY, CLIENT_EVENTS, Events, Proxy, token } from './proxy.mjs';

let proxy;
let api;
let client;
let events;
before(async () => {
  proxy = await Proxy.start();
  api = new cent.CentClient({ url: proxy.api, apiKey: API_KEY });
  client = proxy.client({ token: token({ sub: 'ada' }) });
  events = new Events(client, CLIENT_EVENTS);
  client.connect();
  await events.until('connected');
});
afterAll(async () => {
  client.disconnect();
  await proxy.stop();
});

test('c80 every method is answered', async () => {
  const published = await api.publish({ channel: 'room:api', data: { n: 1 }, tags: { a: 'b' } });
  assert.equal(published.offset, 1);
  assert.equal(published.epoch.length > 0, true);
  const skipped = await api.publish({ channel: 'room:api', data: { n: 0 }, skip_history: true });
  assert.equal(skipped.offset, undefined);
  const broadcast = await api.broadcast({ channels: ['room:api', 'nowhere:api', 'plain:api'], data: { n: 2 } });
  assert.equal(broadcast.responses[0].result.offset, 2);
  assert.equal(broadcast.responses[1].error.code, 102);
  assert.deepEqual(broadcast.responses[2], { result: {} });
  assert.deepEqual(await api.subscribe({ user: 'ada', channel: 'room:api' }), {});
  await events.until('subscribed', (event) => event.channel === 'room:api');
  const { presence } = await api.getPresence({ channel: 'room:api' });
  assert.deepEqual(Object.values(presence).map((info) => info.user), ['ada']);
  assert.deepEqual(await api.getPresenceStats({ channel: 'room:api' }), { num_clients: 1, num_users: 1 });
  const history = await api.getHistory({ channel: 'room:api', limit: 10 });
  assert.deepEqual(history.publications.map(({ offset, data }) => [offset, data.n]), [[1, 1], [2, 2]]);
  assert.deepEqual(history.publications[0].tags, { a: 'b' });
  const back = await api.getHistory({ channel: 'room:api', limit: 1, reverse: true, since: { offset: 2, epoch: history.epoch } });
  assert.deepEqual(back.publications.map(({ offset }) => offset), [1]);
  assert.deepEqual(await api.removeHistory({ channel: 'room:api' }), {});
  assert.deepEqual(await api.getChannels({ pattern: 'room:a*' }), { channels: { 'room:api': { num_clients: 1 } } });
  const { nodes } = await api.getInfo();
  assert.equal(nodes.length, 1);
  assert.equal(typeof nodes[0].uptime, 'number');
  assert.deepEqual(await api.unsubscribe({ user: 'ada', channel: 'room:api' }), {});
  await events.until('unsubscribed', (event) => event.channel === 'room:api');
  assert.deepEqual(await api.refresh({ user: 'ada' }), {});
  assert.deepEqual(await api.disconnect({ user: 'ada' }), {});
  assert.equal((await events.until('disconnected')).code, 3503);
  client.connect();
  await events.until('connected');
});

test('c80 errors are thrown', async () => {
  await assert.rejects(api.publish({ channel: 'nowhere:api', data: {} }), cent.CentException);
  await assert.rejects(api.getPresence({ channel: 'plain:api' }), cent.CentException);
});

test('c80 a pipeline answers each of its commands in order', async () => {
  const commands = [
    { method: 'publish', params: { channel: 'room:pipeline', data: { n: 1 } } },
    { method: 'broadcast', params: { channels: ['room:pipeline', 'plain:api'], data: { n: 2 } } },
    { method: 'subscribe', params: { user: 'ada', channel: 'room:pipeline' } },
    { method: 'presence', params: { channel: 'room:pipeline' } },
    { method: 'presence_stats', params: { channel: 'room:pipeline' } },
    { method: 'history', params: { channel: 'room:pipeline', limit: 10 } },
    { method: 'history_remove', params: { channel: 'room:pipeline' } },
    { method: 'channels', params: { pattern: 'room:pipe*' } },
    { method: 'info', params: {} },
    { method: 'unsubscribe', params: { user: 'ada', channel: 'room:pipeline' } },
    { method: 'refresh', params: { user: 'ada' } },
    { method: 'presence', params: { channel: 'plain:api' } },
    { method: 'disconnect', params: { user: 'nobody' } },
  ];
  const results = await api.pipeline(commands);
  assert.equal(results.length, commands.length);
  assert.equal(results[0].offset, 1);
  assert.equal(results[1].responses[0].result.offset, 2);
  assert.deepEqual(results[2], {});
  assert.equal(Object.keys(results[3].presence).length, 1);
  assert.deepEqual(results[4], { num_clients: 1, num_users: 1 });
  assert.deepEqual(results[5].publications.map(({ offset }) => offset), [1, 2]);
  assert.deepEqual(results[6], {});
  assert.deepEqual(Object.keys(results[7].channels), ['room:pipeline']);
  assert.equal(results[8].nodes.length, 1);
  assert.deepEqual([results[9], results[10]], [{}, {}]);
  assert.equal(results[11], undefined, 'an error has no result');
  assert.deepEqual(results[12], {});
});

test('c80 a pipeline of one command and one of a thousand', async () => {
  assert.deepEqual((await api.pipeline([{ method: 'publish', params: { channel: 'plain:one', data: {} } }])), [{}]);
  const publish = (n) => ({ method: 'publish', params: { channel: 'room:thousand', data: { n } } });
  const results = await api.pipeline(Array.from({ length: 1000 }, (_, n) => publish(n)));
  assert.deepEqual(results.map(({ offset }) => offset), Array.from({ length: 1000 }, (_, n) => n + 1));
});
