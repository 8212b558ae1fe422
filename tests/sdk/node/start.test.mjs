// The tutorial of docs/start.md, block by block, in an empty directory, as a reader would type it.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';

const { RINGMAIN_BIN: binary, RINGMAIN_ROOT: root } = process.env;
if (!binary || !root) throw new Error('RINGMAIN_BIN names the binary under test, RINGMAIN_ROOT the source tree');

/** The shell blocks of the page, in order. */
function blocks() {
  const page = readFileSync(path.join(root, 'docs', 'start.md'), 'utf8');
  return [...page.matchAll(/^```sh\n(.*?)^```$/gms)].map((found) => found[1]);
}

/** Runs a script to its end. What is left of it in the background is stopped. */
function run(script, directory) {
  return new Promise((resolve) => {
    const shell = spawn('sh', ['-e', '-c', script], {
      cwd: directory,
      detached: true,
      env: { ...process.env, PATH: `${path.dirname(binary)}:${process.env.PATH}` },
    });
    let output = '';
    shell.stdout.on('data', (data) => (output += data));
    shell.stderr.on('data', (data) => (output += data));
    shell.on('exit', (status) => {
      try {
        process.kill(-shell.pid, 'SIGKILL');
      } catch {
        // Nothing is left.
      }
      resolve({ status, output });
    });
  });
}

test('every block of the tutorial works, one after the other', { timeout: 180_000 }, async (t) => {
  const directory = mkdtempSync(path.join(tmpdir(), 'ringmain-start-'));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  const script = blocks();
  assert.ok(script.length > 10, 'the page has its blocks');
  const { status, output } = await run(script.join('\n'), directory);
  assert.equal(status, 0, output);
  const file = (name) => readFileSync(path.join(directory, name), 'utf8');
  const lines = (name) => file(name).trim().split('\n');
  assert.deepEqual(lines('received.txt'), [
    'subscribed to lobby (recoverable)',
    "3 { text: 'hello' }",
    "4 { text: 'bye' }",
    'disconnected 0 disconnect called',
  ]);
  assert.deepEqual(lines('first.txt'), ['{"channel":"lobby","data":{"text":"first"},"offset":2}']);
  assert.deepEqual(lines('chat.txt').slice(-3), [
    "1 { text: 'hello' }",
    "2 { text: 'bye' }",
    'disconnected 0 disconnect called',
  ]);
  assert.match(output, /did you mean `client\.ping_interval`\?/);
});
