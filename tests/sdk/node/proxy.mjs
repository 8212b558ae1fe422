// Starts the real binary for a test, and the small tools that the tests share: tokens, the server API, recorded events.

import { spawn } from 'node:child_process';
import { createHmac } from 'node:crypto';
import { once } from 'node:events';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';

import { Centrifuge as JsonCentrifuge } from 'centrifuge';
import { Centrifuge as ProtobufCentrifuge } from 'centrifuge/build/protobuf';
import { EventSource } from 'eventsource';
import WebSocket from 'ws';

export const API_KEY = 'api-key-of-the-tests';
const SECRET = 'token-secret-of-the-tests-0123456789';
const DEADLINE_MS = 20_000;

const binary = process.env.RINGMAIN_BIN;
if (!binary) throw new Error('RINGMAIN_BIN names the binary under test');
const reactor = process.env.RINGMAIN_TEST_REACTOR ?? 'uring';

/** How clients are connected: transport and encoding. */
const WIRES = ['websocket-json', 'websocket-protobuf', 'http_stream-json', 'http_stream-protobuf', 'sse-json'];
export const wire = process.env.RINGMAIN_TEST_WIRE ?? WIRES[0];
if (!WIRES.includes(wire)) throw new Error(`RINGMAIN_TEST_WIRE is one of ${WIRES}`);
const [transport, encoding] = wire.split('-');
export const isWebSocket = transport === 'websocket';
const isProtobuf = encoding === 'protobuf';

/** A value as the SDK wants it: bytes with Protobuf. */
export function pack(value) {
  return isProtobuf ? new TextEncoder().encode(JSON.stringify(value)) : value;
}

/** What the SDK hands out, with bytes read as the JSON that they are. */
export function unpack(value) {
  if (!isProtobuf) return value;
  if (value instanceof Uint8Array) return value.length === 0 ? undefined : JSON.parse(new TextDecoder().decode(value));
  if (Array.isArray(value)) return value.map(unpack);
  if (value instanceof Map) return new Map([...value].map(([key, item]) => [key, unpack(item)]));
  if (value && Object.getPrototypeOf(value) === Object.prototype) {
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, unpack(item)]));
  }
  return value;
}

const NAMESPACES = `
[[channel.namespaces]]
name = "room"
presence = true
join_leave = true
history_size = 300
history_ttl = "300s"
force_recovery = true
force_push_join_leave = true
allow_subscribe_for_client = true
allow_publish_for_client = true
allow_presence_for_client = true
allow_history_for_client = true

[[channel.namespaces]]
name = "three"
history_size = 3
history_ttl = "300s"
force_recovery = true
allow_subscribe_for_client = true

[[channel.namespaces]]
name = "delta"
allowed_delta_types = ["fossil"]
delta_publish = true
history_size = 300
history_ttl = "300s"
force_recovery = true
allow_subscribe_for_client = true

[[channel.namespaces]]
name = "latest"
allowed_delta_types = ["fossil"]
delta_publish = true
history_size = 1
history_ttl = "300s"
force_recovery = true
force_recovery_mode = "cache"
auto_cache_recover = true
allow_tags_filter = true
allow_subscribe_for_client = true

[[channel.namespaces]]
name = "plain"
allow_subscribe_for_client = true
allow_publish_for_client = true

[[channel.namespaces]]
name = "closed"
`;

export function config(lines = '', api = '') {
  return `
[http_api]
key = "${API_KEY}"
${api}

[drain]
notice = "0s"
window = "100ms"
grace = "2s"

[client.token]
hmac_secret_key = "${SECRET}"

[http_stream]
enabled = true

[sse]
enabled = true

[client]
expired_close_delay = "2s"
expired_sub_close_delay = "2s"
${lines}
${NAMESPACES}`;
}

/** Asks until there is an answer; for facts without an event: a file, a process. */
export async function until(what, ask) {
  const end = Date.now() + DEADLINE_MS;
  for (;;) {
    const answer = await ask();
    if (answer) return answer;
    if (Date.now() > end) throw new Error(`waited for ${what}`);
    await pause(5);
  }
}

/** A running ringmain. */
export class Proxy {
  static async start({ lines = '', api = '', listen = '127.0.0.1:0', firstRun = false } = {}) {
    const proxy = new Proxy();
    proxy.directory = mkdtempSync(join(tmpdir(), 'ringmain-'));
    proxy.config = config(lines, api);
    proxy.firstRun = firstRun;
    await proxy.run(listen);
    return proxy;
  }

  async run(listen) {
    const ready = join(this.directory, 'ready.json');
    rmSync(ready, { force: true });
    const args = ['--listen', listen, '--shards', '2', '--reactor', reactor, '--admin', '127.0.0.1:0', '--ready-file', ready];
    if (!this.firstRun) {
      const path = join(this.directory, 'ringmain.toml');
      writeFileSync(path, this.config);
      args.unshift('--config', path);
    }
    this.log = join(this.directory, 'log');
    const log = openSync(this.log, 'a');
    const environment = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('RINGMAIN_')));
    this.child = spawn(binary, args, { cwd: this.directory, stdio: ['ignore', log, log], env: environment });
    closeSync(log);
    this.exited = once(this.child, 'exit');
    const answer = await until('the ready file', () => {
      if (this.child.exitCode !== null) throw new Error(`ringmain ended:\n${readFileSync(this.log, 'utf8')}`);
      try {
        return JSON.parse(readFileSync(ready, 'utf8'));
      } catch {
        return undefined;
      }
    });
    this.address = answer.listen[0];
    this.url = `ws://${this.address}/connection/websocket`;
    this.admin = answer.admin;
    this.internal = answer.internal[0];
    this.api = `http://${this.internal ?? this.address}/api`;
  }

  printed() {
    return readFileSync(this.log, 'utf8');
  }

  async kill(signal = 'SIGKILL') {
    this.child.kill(signal);
    const [status] = await this.exited;
    return status;
  }

  /** Kills the process and starts another on the same port: all memory is gone. */
  async restart() {
    await this.kill();
    await this.run(this.address);
  }

  async stop() {
    await this.kill();
    rmSync(this.directory, { recursive: true, force: true });
  }

  /** Calls a method of the server API and returns its result. */
  async call(method, params = {}) {
    const response = await fetch(`${this.api}/${method}`, {
      method: 'POST',
      headers: { 'X-API-Key': API_KEY },
      body: JSON.stringify(params),
    });
    const answer = await response.json();
    if (answer.error) throw new Error(`${method}: ${JSON.stringify(answer.error)}`);
    return answer.result;
  }

  /** A client of the official SDK; `client.sockets` are the WebSockets it has opened, `client.cut` breaks its connection. */
  client(options = {}) {
    const sockets = [];
    const streams = [];
    class Recorded extends WebSocket {
      constructor(...args) {
        super(...args);
        sockets.push(this);
      }
    }
    const broken = (url, init = {}) => {
      const end = new AbortController();
      if (!String(url).endsWith('/emulation')) streams.push(end);
      const signals = [end.signal, init.signal].filter(Boolean);
      return fetch(url, { ...init, signal: AbortSignal.any(signals) });
    };
    class Source extends EventSource {
      constructor(url, init) {
        super(url, { ...init, fetch: broken });
      }
    }
    const Client = isProtobuf ? ProtobufCentrifuge : JsonCentrifuge;
    const endpoint = isWebSocket ? this.url : [{ transport, endpoint: `http://${this.address}/connection/${transport}` }];
    const client = new Client(endpoint, {
      websocket: Recorded,
      eventsource: Source,
      fetch: broken,
      readableStream: ReadableStream,
      emulationEndpoint: `http://${this.address}/emulation`,
      token: token({ sub: 'ada' }),
      minReconnectDelay: 50,
      maxReconnectDelay: 300,
      ...options,
    });
    client.sockets = sockets;
    client.cut = () => (isWebSocket ? sockets.at(-1).terminate() : streams.at(-1).abort(new Error('cut')));
    return client;
  }
}

/** An HS256 token over these claims. */
export function token(claims) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const text = `${part({ alg: 'HS256', typ: 'JWT' })}.${part(claims)}`;
  return `${text}.${createHmac('sha256', SECRET).update(text).digest('base64url')}`;
}

/** Seconds since the epoch, so many from now. */
export function after(seconds) {
  return Math.floor(Date.now() / 1000) + seconds;
}

/** Records events of a client or subscription, in order; `until` waits for one that was not waited for before. */
export class Events {
  constructor(emitter, names) {
    this.all = [];
    this.taken = 0;
    this.wake = () => {};
    for (const name of names) {
      emitter.on(name, (context) => {
        this.all.push({ name, ...unpack({ ...context }) });
        this.wake();
      });
    }
  }

  async until(name, matches = () => true) {
    const timer = new AbortController();
    const late = pause(DEADLINE_MS, 'late', { signal: timer.signal }).catch(() => undefined);
    try {
      for (;;) {
        for (; this.taken < this.all.length; this.taken += 1) {
          const event = this.all[this.taken];
          if (event.name === name && matches(event)) {
            this.taken += 1;
            return event;
          }
        }
        const woken = new Promise((resolve) => {
          this.wake = resolve;
        });
        if ((await Promise.race([woken, late])) === 'late') {
          throw new Error(`waited for ${name}; came: ${JSON.stringify(this.all)}`);
        }
      }
    } finally {
      timer.abort();
    }
  }

  named(name) {
    return this.all.filter((event) => event.name === name);
  }
}

export const CLIENT_EVENTS = ['connecting', 'connected', 'disconnected', 'message', 'error', 'subscribed', 'subscribing', 'unsubscribed', 'publication', 'join', 'leave'];
export const SUBSCRIPTION_EVENTS = ['subscribing', 'subscribed', 'unsubscribed', 'publication', 'join', 'leave', 'error'];
