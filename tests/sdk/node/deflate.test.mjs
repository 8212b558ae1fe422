// npm `ws` and the SDK over it, compressed: an independent implementation of RFC 7692 on zlib itself.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after as afterAll, before, test } from 'node:test';

import WebSocket from 'ws';

import { Events, Proxy, until } from './proxy.mjs';

const BOTH = 'permessage-deflate; server_no_context_takeover; client_no_context_takeover';

let echo;
let proxy;
before(async () => {
  const directory = mkdtempSync(join(tmpdir(), 'ringmain-'));
  const ready = join(directory, 'ready.json');
  const reactor = process.env.RINGMAIN_TEST_REACTOR ?? 'uring';
  const args = ['echo', '--deflate', '--listen', '127.0.0.1:0', '--reactor', reactor, '--ready-file', ready];
  const child = spawn(process.env.RINGMAIN_BIN, args, { cwd: directory, stdio: 'ignore' });
  const answer = await until('the ready file', () => {
    try {
      return JSON.parse(readFileSync(ready, 'utf8'));
    } catch {
      return undefined;
    }
  });
  echo = { child, directory, url: `ws://${answer.listen[0]}/` };
  proxy = await Proxy.start({ lines: '[websocket]\ncompression = true\n' });
});
afterAll(async () => {
  echo.child.kill('SIGKILL');
  rmSync(echo.directory, { recursive: true, force: true });
  await proxy.stop();
});

/** What the server agreed to; empty for nothing. */
async function agreement(socket) {
  const [response] = await once(socket, 'upgrade');
  return response.headers['sec-websocket-extensions'] ?? '';
}

/** Sends one message, in fragments if there are several parts, and resolves with the echo. */
async function echoed(socket, parts, options = {}) {
  const answer = new Promise((resolve, reject) => {
    socket.once('message', (data, binary) => resolve({ data, binary }));
    socket.once('close', (code) => reject(new Error(`closed with ${code}`)));
  });
  parts.forEach((part, index) => socket.send(part, { ...options, fin: index + 1 === parts.length }));
  return answer;
}

const noise = Buffer.from(Array.from({ length: 20_000 }, (_, index) => (index * index * 7919) >> 5 & 255));
const text = 'grüße aus der Ferne, immer wieder. '.repeat(3000);

for (const serverNoContextTakeover of [false, true]) {
  for (const clientNoContextTakeover of [false, true]) {
    for (const bits of [8, 9, 10, 12, 15, undefined]) {
      const name = `${serverNoContextTakeover} ${clientNoContextTakeover} ${bits}`;
      test(`messages come back compressed: ${name}`, async () => {
        const perMessageDeflate = { serverNoContextTakeover, clientNoContextTakeover, threshold: 0 };
        if (bits) Object.assign(perMessageDeflate, { serverMaxWindowBits: bits, clientMaxWindowBits: bits });
        const socket = new WebSocket(echo.url, { perMessageDeflate });
        const [agreed] = await Promise.all([agreement(socket), once(socket, 'open')]);
        assert.equal(agreed.includes('server_no_context_takeover'), serverNoContextTakeover);
        assert.equal(agreed.includes('client_no_context_takeover'), clientNoContextTakeover);
        if (bits) assert.ok(agreed.includes(`server_max_window_bits=${bits}`), agreed);
        for (let round = 0; round < 3; round += 1) {
          assert.equal((await echoed(socket, [text])).data.toString(), text);
          assert.deepEqual((await echoed(socket, [noise])).data, noise);
          assert.equal((await echoed(socket, [''])).data.length, 0);
          const parts = [text.slice(0, 10), '', text.slice(10, 5000), text.slice(5000)];
          assert.equal((await echoed(socket, parts)).data.toString(), text);
          assert.equal((await echoed(socket, ['plain'], { compress: false })).data.toString(), 'plain');
        }
        socket.close();
        await once(socket, 'close');
      });
    }
  }
}

test('the SDK publishes and receives over compressed connections, beside one that is not', async (t) => {
  const seen = await Promise.all([true, false].map(async (compressed) => {
    const sockets = [];
    class Socket extends WebSocket {
      constructor(url, protocols) {
        super(url, protocols, { perMessageDeflate: compressed && { threshold: 0 } });
        sockets.push(agreement(this));
      }
    }
    const client = proxy.client({ websocket: Socket });
    t.after(() => client.disconnect());
    const subscription = client.newSubscription('plain:deflate');
    const events = new Events(subscription, ['subscribed', 'publication']);
    subscription.subscribe();
    client.connect();
    await events.until('subscribed');
    assert.equal(await sockets[0], compressed ? BOTH : '');
    return { subscription, events };
  }));
  const data = { words: 'again and again '.repeat(200) };
  await seen[0].subscription.publish({ ...data, from: 'compressed' });
  await seen[1].subscription.publish({ ...data, from: 'plain' });
  for (const { events } of seen) {
    assert.deepEqual((await events.until('publication')).data, { ...data, from: 'compressed' });
    assert.deepEqual((await events.until('publication')).data, { ...data, from: 'plain' });
  }
});
