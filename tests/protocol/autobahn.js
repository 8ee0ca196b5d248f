// Judges a report of Autobahn's fuzzing client: `node autobahn.js <directory> <cases at least>`. A case is good when it is
// OK, informational, or not strict: the last are right by the RFC and only later than Autobahn would like. Each failure
// that we know stands here with its reason; one that no longer fails must be taken off.
import { readFileSync } from 'node:fs';
import path from 'node:path';

const KNOWN = {};
const GOOD = new Set(['OK', 'INFORMATIONAL', 'NON-STRICT']);

const [directory, wanted] = process.argv.slice(2);
const results = Object.entries(JSON.parse(readFileSync(path.join(directory, 'index.json'), 'utf8')).tidings);
const counts = new Map();
const wrong = [];
for (const [name, { behavior, behaviorClose, remoteCloseCode }] of results) {
  counts.set(behavior, (counts.get(behavior) ?? 0) + 1);
  const isGood = GOOD.has(behavior) && GOOD.has(behaviorClose);
  if (isGood && name in KNOWN) wrong.push(`${name} no longer fails: take it off the list`);
  if (!isGood && !(name in KNOWN)) wrong.push(`${name}: ${behavior}, closing ${behaviorClose}, code ${remoteCloseCode}`);
}
if (results.length < Number(wanted)) wrong.push(`only ${results.length} of ${wanted} cases ran`);
console.log(`autobahn: ${results.length} cases, ${[...counts].map(([behavior, count]) => `${count} ${behavior}`).join(', ')}`);
for (const one of wrong) console.error(`autobahn: ${one}`);
process.exitCode = wrong.length > 0 ? 1 : 0;
