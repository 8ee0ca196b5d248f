// Runs every test file beside it, or those named as arguments, one after the other in this one process with one Chromium,
// and leaves with code 1 when a test failed.
import { readdirSync } from 'node:fs';
import { after, test } from 'node:test';
import path from 'node:path';
import { closeBrowser } from './browser.js';

const here = import.meta.dirname;
const asked = process.argv.slice(2);
const files = readdirSync(here).filter((name) => name.endsWith('.test.js') && (asked.length === 0 || asked.includes(name)));

after(closeBrowser);
// The runner ends when all tests that it knows are done: this one is not before it knows them all.
let loaded;
test('every file is loaded', () => new Promise((done) => (loaded = done)));
for (const file of files.sort()) await import(path.join(here, file));
loaded();
