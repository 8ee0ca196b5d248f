// Runs every test file beside it, or those named as arguments, one after the other in this one process, and leaves with
// code 1 when a test failed. `node --test` would give each file a process of its own, whose runner in Node 20 can spin for ever
// when a file is ended early.
import { readdirSync } from 'node:fs';
import path from 'node:path';

const here = import.meta.dirname;
const asked = process.argv.slice(2);
const files = readdirSync(here).filter((name) => name.endsWith('.test.js') && (asked.length === 0 || asked.includes(name)));

for (const file of files.sort()) await import(path.join(here, file));
