// The README's "Try it", run as it stands there: its four blocks in the terminals that it names, `pkill` and all. So that
// this cannot touch anything else, they run in a network and a process namespace of their own, which needs root, as the
// power cuts do. `cargo run --release` there starts the binary under test. Nothing published may be missing afterwards.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { chmod, copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { binary } from '../client/server.js';

const ROOT = path.resolve(import.meta.dirname, '../..');
const run = promisify(execFile);

// `cargo run` in the first terminal; then one terminal reads while another publishes, pulls the plug and resumes.
// A namespace holds on to the disks of a checker that runs at the same time, so it lets go of them first.
const STAGE = `set -u
awk '$1 ~ "^/dev/loop" { print $2 }' /proc/mounts | xargs -r umount -l
ip link set lo up
waits() { for _ in $(seq 300); do "$@" && return; sleep 0.1; done; echo "in vain: $*" >&2; exit 1; }
serves() { curl -sf -o /dev/null http://127.0.0.1:8082/readyz; }
reads() { grep -qs sys.ready frames.txt; }
PATH="$PWD/bin:$PATH" bash block-1.sh >first.out 2>&1 &
waits serves
bash block-2.sh >second.out 2>&1 &
waits reads
# A person reads a sentence between the two, and the killed process is gone.
(cat block-3.sh; echo 'while pgrep -x tidings >/dev/null; do sleep 0.1; done'; cat block-4.sh) >third.sh
bash third.sh >third.out 2>third.err
cat server.log >>third.err
cat frames.txt
echo resumed
cat third.out
`;

/** The `sh` blocks below a heading. */
function blocksBelow(heading, text) {
  const section = text.split(`\n## ${heading}\n`)[1]?.split('\n## ')[0] ?? '';
  return [...section.matchAll(/^```sh\n([\s\S]*?)^```$/gm)].map(([, block]) => block);
}

/** The events of SSE frames that arrived whole. */
function eventsOf(frames) {
  const whole = frames.split('\n\n').slice(0, -1);
  const data = whole.map((frame) => /^data: (.*)$/m.exec(frame)?.[1]).filter((found) => found !== undefined);
  return data.map((found) => JSON.parse(found)).filter(({ type }) => !type.startsWith('sys.'));
}

test('README: what it says to type works, and nothing is missing after kill -9', { timeout: 120_000 }, async (t) => {
  const directory = await mkdtemp(path.join(tmpdir(), 'tidings-readme-'));
  t.after(() => rm(directory, { recursive: true, force: true }));
  const blocks = blocksBelow('Try it', await readFile(path.join(ROOT, 'README.md'), 'utf8'));
  assert.equal(blocks.length, 4, 'the stage below knows four blocks');
  await Promise.all(blocks.map((block, at) => writeFile(path.join(directory, `block-${at + 1}.sh`), block)));
  await mkdir(path.join(directory, 'target/release'), { recursive: true });
  await copyFile(binary(), path.join(directory, 'target/release/tidings'));
  await mkdir(path.join(directory, 'bin'));
  await writeFile(path.join(directory, 'bin/cargo'), '#!/bin/sh\n[ "$*" = "run --release" ] && exec target/release/tidings\n');
  await chmod(path.join(directory, 'bin/cargo'), 0o755);
  const { stdout: repository } = await run('git', ['-C', ROOT, 'rev-parse', '--absolute-git-dir']);
  const log = ['-C', ROOT, 'log', '--reverse', '--pretty=format:%h'];
  const commits = (await run('git', log, { maxBuffer: 2 ** 26 })).stdout.split('\n');

  const namespaces = ['--net', '--pid', '--fork', '--kill-child', '--mount-proc', 'bash', '-c', STAGE];
  const options = { cwd: directory, env: { ...process.env, GIT_DIR: repository.trim() }, maxBuffer: 2 ** 28, timeout: 100_000 };
  const { stdout } = await run('unshare', namespaces, options);
  const [before, after] = stdout.split('resumed\n');
  const [seen, resumed] = [eventsOf(before), eventsOf(after)];
  const told = await readFile(path.join(directory, 'third.err'), 'utf8');
  assert.ok(seen.length > 0 && resumed.length > 0, `${seen.length} events before, ${resumed.length} after:\n${after}\n${told}`);
  assert.equal(resumed[0].seq, seen.at(-1).seq + 1, 'the first frame continues the last one');
  const all = [...seen, ...resumed];
  assert.deepEqual(all.map(({ seq }) => seq), all.map((_, at) => at + 1));
  assert.deepEqual(all.slice(0, -1).map(({ data }) => data.commit), commits, told);
  assert.deepEqual(all.at(-1).data, { text: 'back again' });
});
