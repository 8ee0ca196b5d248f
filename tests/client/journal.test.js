// The journal must be able to fail: each damage to a clean run is found, and a clean run with cuts is not blamed.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Journal } from './journal.js';

const PUBLISHED = Array.from({ length: 30 }, (_, n) => ({ id: `id-${n}`, data: { n, text: 'grüße' } }));
const ready = (seq) => ({ type: 'sys.ready', cursor: `q7m2kd-${seq}` });
const event = (n) => ({ v: 1, id: `id-${n}`, seq: n + 1, cursor: `q7m2kd-${n + 1}`, type: 'test.item', data: PUBLISHED[n].data });

/** Two connections: events 0 to 19, a cut, and from event 18 on again. */
function cleanRun() {
  const first = PUBLISHED.slice(0, 20).map((_, n) => event(n));
  const second = PUBLISHED.slice(18).map((_, n) => event(n + 18));
  return [ready(0), ...first, ready(18), ...second];
}

function faultsOf(frames) {
  const journal = new Journal();
  for (const frame of frames) journal.frame(JSON.stringify(frame), frame.type.startsWith('sys.') ? null : frame.cursor);
  return journal.verdict(PUBLISHED);
}

const DAMAGES = {
  'an event is missing': (run) => run.splice(5, 1),
  'an event comes twice on one connection': (run) => run.splice(5, 0, run[5]),
  'two events are swapped': (run) => run.splice(5, 2, run[6], run[5]),
  'the last event is missing': (run) => run.pop(),
  'an event nobody published': (run) => run.push({ ...event(29), id: 'phantom', seq: 31, cursor: 'q7m2kd-31' }),
  'other data': (run) => run.splice(5, 1, { ...run[5], data: { n: 4, text: 'gru?e' } }),
  'other data when it comes again': (run) => run.splice(23, 1, { ...run[23], data: {} }),
  'a seq that another event had': (run) => run.splice(30, 1, { ...run[30], seq: 5 }),
  'a cursor of another place': (run) => run.splice(30, 1, { ...run[30], cursor: 'q7m2kd-3' }),
  'a resume past events that never came': (run) => run.splice(21, 1, ready(22)),
  'a resume that leaves events out': (run) => run.splice(21, 3, ready(20)) && run.splice(22, 1),
  'a reset': (run) => run.splice(21, 0, { type: 'sys.reset', reason: 'epoch' }),
  'an event before ready': (run) => run.splice(0, 1),
};

test('a clean run with a cut and duplicates is not blamed', () => assert.deepEqual(faultsOf(cleanRun()), []));

for (const [name, damage] of Object.entries(DAMAGES)) {
  test(`found: ${name}`, () => {
    const run = cleanRun();
    damage(run);
    assert.notDeepEqual(faultsOf(run), []);
  });
}
