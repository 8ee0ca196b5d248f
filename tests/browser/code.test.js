// The demo's own modules: short, opened with what they promise, without a way from a text to markup, and nothing inline.
import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';

const STATIC = path.resolve(import.meta.dirname, '../../static');
const read = (file) => readFileSync(path.join(STATIC, file), 'utf8');
const MODULES = readdirSync(path.join(STATIC, 'demo')).filter((name) => name.endsWith('.js')).map((name) => `demo/${name}`);

test('every module is short and opens with what it promises', () => {
  assert.ok(MODULES.length > 15);
  for (const file of MODULES) {
    const lines = read(file).split('\n');
    const opening = lines.findIndex((line) => !line.startsWith('//'));
    assert.ok(lines.length <= 200, `${file} has ${lines.length} lines`);
    assert.ok(opening >= 2 && opening <= 8 && lines.slice(0, opening).join(' ').includes('Promises:'), `${file} opens with ${opening} lines`);
  }
});

test('no text can become markup, code or an address', () => {
  const forbidden = [/innerHTML|outerHTML|insertAdjacentHTML|document\.write|srcdoc|createContextualFragment|setHTML/, /\beval\(|new Function|set(Timeout|Interval)\(['"`]/, /javascript:/i, /\.(href|src)\s*=(?!=)/];
  for (const file of MODULES) {
    for (const pattern of forbidden) assert.doesNotMatch(read(file), pattern, file);
  }
});

test('the pages hold no script, style or handler of their own', () => {
  for (const file of ['index.html', 'events.html']) {
    assert.doesNotMatch(read(file), /<script(?![^>]* src=)|<style|\sstyle=|\son\w+=/i, file);
  }
});
