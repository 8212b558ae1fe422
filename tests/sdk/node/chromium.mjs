// Starts Chromium, which speaks to nobody but the tests.

import { chromium } from 'playwright-core';

const executablePath = process.env.CHROMIUM ?? '/usr/bin/chromium';
const ARGS = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'];

export function launch(more = []) {
  return chromium.launch({ executablePath, headless: true, args: [...ARGS, ...more] });
}
