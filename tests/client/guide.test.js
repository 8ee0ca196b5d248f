// Runs every program of static/guide.md against a real server, in the order of the page, and compares what it prints with the
// block that follows it. A block without such a block is not run, so each language must have one.
import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test from 'node:test';
import assert from 'node:assert/strict';
import { promisify } from 'node:util';
import { startServer, token } from './server.js';

const run = promisify(execFile);
const GUIDE = path.resolve(import.meta.dirname, '../../static/guide.md');
const RUN_MS = 180_000;

// How a program of each language is started, from a file in a directory of its own.
const LANGUAGES = {
  sh: { file: 'guide.sh', command: ['bash', '-euo', 'pipefail', 'guide.sh'] },
  js: { file: 'guide.mjs', command: ['node', 'guide.mjs'] },
  go: { file: 'main.go', command: ['go', 'run', 'main.go'] },
};

async function programs() {
  const text = await readFile(GUIDE, 'utf8');
  const blocks = [...text.matchAll(/^```(\w*)\n(.*?)^```$/gms)].map(([, language, body]) => ({ language, body }));
  return blocks.flatMap((block, at) =>
    block.language in LANGUAGES ? [{ ...block, expected: blocks[at + 1]?.language === 'text' ? blocks[at + 1].body : null }] : [],
  );
}

test('every program of the guide prints what the guide says', { timeout: 300_000 }, async (t) => {
  const server = await startServer({ 'demo.enabled': true });
  t.after(() => server.stop());
  const env = {
    ...process.env,
    TIDINGS_URL: server.origin,
    ALICE: token('alice', { topics: ['*'] }),
    BACKEND: token('backend', { scope: 'publish' }),
  };
  const all = await programs();
  assert.deepEqual(new Set(all.map(({ language }) => language)), new Set(Object.keys(LANGUAGES)));
  for (const { language, body, expected } of all) {
    const { file, command } = LANGUAGES[language];
    assert.notEqual(expected, null, `a program without what it prints: ${body.slice(0, 80)}`);
    const directory = await mkdtemp(path.join(tmpdir(), 'tidings-guide-'));
    await writeFile(path.join(directory, file), body);
    // curl ends with 28 when its time is over, as the guide has it do.
    const { stdout } = await run(command[0], command.slice(1), { cwd: directory, env, timeout: RUN_MS }).catch((error) => {
      assert.equal(error.code, 28, `${language}: ${error.message}\n${error.stderr}`);
      return error;
    });
    await rm(directory, { recursive: true, force: true });
    assert.equal(stdout, expected, language);
  }
});
