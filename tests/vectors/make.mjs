// Encodes every case of `cases.json` with the npm SDK's own Protobuf codec: a line of name and hex for each.

import { readFileSync } from 'node:fs';

import { Centrifuge } from 'centrifuge/build/protobuf';

const cases = JSON.parse(readFileSync(process.argv[2], 'utf8'));
// The SDK does not export its codec, but every client has one.
const codec = new Centrifuge('ws://localhost/', { websocket: class {} })._codec;

const PAYLOADS = new Set(['data', 'conn_info', 'chan_info']);
const utf8 = new TextEncoder();

// Payloads stand as JSON values in the cases, or as {"$bytes": "<hex>"}; the codec takes bytes.
function payload(value) {
  const hex = value?.$bytes;
  return hex === undefined ? utf8.encode(JSON.stringify(value)) : Uint8Array.from(Buffer.from(hex, 'hex'));
}

function message(object) {
  if (Array.isArray(object)) return object.map(message);
  if (object === null || typeof object !== 'object') return object;
  const fields = Object.entries(object);
  return Object.fromEntries(fields.map(([name, value]) => [name, PAYLOADS.has(name) ? payload(value) : message(value)]));
}

function line(name, bytes) {
  console.log(`${name} ${Buffer.from(bytes).toString('hex')}`);
}

for (const { name, json } of cases.commands) line(`commands/${name}`, codec.encodeCommands([message(json)]));
for (const { name, json } of cases.replies) line(`replies/${name}`, codec.encodeReplies([message(json)]));
for (const { name, json } of cases.emulations) line(`emulations/${name}`, codec.encodeEmulationRequest(message(json)));
