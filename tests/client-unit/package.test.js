// The package as it stands: small, installable, without dependencies, each file with its say, and nothing that a hostile
// text could become markup or code through.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';

const STATIC = path.resolve(import.meta.dirname, '../../static');
/** Neither minified nor bundled: what a browser loads. A change that needs more says why, here. */
const CLIENT_BYTES_MAX = 100_000;
const CLIENT_GZIP_BYTES_MAX = 37_000;
const ADAPTER_BYTES_MAX = 9_000;
const FILE_LINES_MAX = 500;

const source = (file) => readFileSync(path.join(STATIC, file), 'utf8');
const importsOf = (file) => [...source(file).matchAll(/^(?:import|export)[^'"]*?from '([^']+)'/gm)].map(([, name]) => name);

/** A module and everything that it loads. */
function loaded(file, seen = new Set()) {
  if (seen.has(file)) return seen;
  seen.add(file);
  for (const name of importsOf(file)) {
    if (name.startsWith('.')) loaded(path.join(path.dirname(file), name), seen);
  }
  return seen;
}

const CLIENT = [...loaded('tidings.js')];
const MODULES = [...new Set(['views.js', 'alerts.js', 'react.js', 'angular.js', 'query.js'].flatMap((file) => [...loaded(file)]).concat(CLIENT))];

test('the client stays within its size', () => {
  const text = CLIENT.map(source).join('');
  const sizes = { files: CLIENT.length, bytes: Buffer.byteLength(text), gzip: CLIENT.reduce((sum, file) => sum + gzipSync(source(file), { level: 6 }).length, 0) };
  console.log(`client: ${sizes.files} files, ${sizes.bytes} bytes, ${sizes.gzip} gzipped one by one`);
  assert.ok(sizes.bytes <= CLIENT_BYTES_MAX, `${sizes.bytes} bytes`);
  assert.ok(sizes.gzip <= CLIENT_GZIP_BYTES_MAX, `${sizes.gzip} bytes gzipped`);
  for (const adapter of ['react.js', 'angular.js', 'query.js', 'alerts.js']) assert.ok(Buffer.byteLength(source(adapter)) <= ADAPTER_BYTES_MAX, adapter);
});

test('the client imports nothing but itself; an adapter only its library', () => {
  assert.ok(CLIENT.includes('transports/sse.js') && CLIENT.includes('parser.js'));
  const foreign = (files) => files.flatMap(importsOf).filter((name) => !name.startsWith('.'));
  assert.deepEqual(foreign(CLIENT), []);
  assert.deepEqual(foreign(['views.js', 'alerts.js', 'query.js']), []);
  assert.deepEqual(foreign(['react.js']), ['react']);
  assert.deepEqual(foreign(['angular.js']), ['@angular/common/http', '@angular/core', 'rxjs']);
});

test('every file is short, checked, and opens with what it promises', () => {
  for (const file of MODULES) {
    const lines = source(file).split('\n');
    const opening = lines.findIndex((line) => !line.startsWith('//'));
    assert.ok(lines.length <= FILE_LINES_MAX, `${file} has ${lines.length} lines`);
    assert.equal(lines[0], '// @ts-check', file);
    assert.ok(opening >= 4 && opening <= 9 && lines.slice(0, opening).join().includes('// Promises:'), `${file} opens with ${opening} lines`);
  }
});

test('no text can become markup, code or an address', () => {
  const FORBIDDEN = [/innerHTML|outerHTML|insertAdjacentHTML|document\.write|srcdoc/, /\beval\(|new Function|setTimeout\(['"`]/, /javascript:/i, /dangerouslySetInnerHTML|bypassSecurityTrust/, /access_token/];
  for (const file of MODULES) {
    for (const pattern of FORBIDDEN) assert.doesNotMatch(source(file), pattern, file);
  }
});

test('time, dice and the network come from the environment alone', () => {
  const GLOBALS = /\b(Date\.now|Math\.random|localStorage|sessionStorage|navigator|window)\b|(?<![.\w])(fetch|setTimeout|clearTimeout|setInterval)\(|new (EventSource|WebSocket|BroadcastChannel|Notification)\b/;
  for (const file of MODULES.filter((file) => file !== 'environment.js')) {
    const code = source(file).split('\n').filter((line) => !/^\s*(\/\/|\*|\/\*)/.test(line));
    for (const line of code) assert.doesNotMatch(line.replace(/'[^']*'/g, "''"), GLOBALS, `${file}: ${line.trim()}`);
  }
});

test('the folder is an npm package as it stands: packed, installed, imported by every name', () => {
  const place = mkdtempSync(path.join(tmpdir(), 'client-package-'));
  const npm = (...args) => execFileSync('npm', args, { cwd: place, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
  try {
    const [packed] = JSON.parse(npm('pack', '--json', STATIC));
    const files = packed.files.map(({ path: name }) => name);
    for (const file of MODULES) assert.ok(files.includes(file), `${file} is not packed`);
    assert.ok(files.every((file) => !/html|css|svg|start/.test(file)), files.join());
    writeFileSync(path.join(place, 'package.json'), '{"name":"user","private":true,"type":"module"}');
    npm('install', '--offline', '--no-audit', '--no-fund', '--legacy-peer-deps', `./${packed.filename}`);
    const names = ['tidings-client', 'tidings-client/views', 'tidings-client/alerts', 'tidings-client/parser', 'tidings-client/query'];
    const script = `${names.map((name) => `await import('${name}');`).join('')}const { createTidings } = await import('tidings-client'); console.log(createTidings({ url: 'http://x' }).status.reason)`;
    assert.equal(execFileSync('node', ['--input-type=module', '-e', script], { cwd: place, encoding: 'utf8' }).trim(), 'not_started');
  } finally {
    rmSync(place, { recursive: true, force: true });
  }
});

test('every entry of the exports map exists, with its types', () => {
  const { exports: entries, peerDependencies, peerDependenciesMeta, dependencies } = JSON.parse(source('package.json'));
  for (const entry of Object.values(entries)) {
    for (const file of typeof entry === 'string' ? [entry] : Object.values(entry)) assert.ok(readFileSync(path.join(STATIC, file)).length > 0);
  }
  assert.equal(dependencies, undefined);
  assert.deepEqual(Object.keys(peerDependenciesMeta), Object.keys(peerDependencies));
  assert.ok(readdirSync(path.join(STATIC, 'transports')).every((file) => file.endsWith('.js')));
});
