// The reader of server-sent events against odd streams, as tables: line ends, byte order marks, split characters, half
// frames, fields that are none. Each row is fed whole, byte by byte, and at every possible cut in two.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createParser } from '../../static/parser.js';

const message = (data, id = '') => ({ event: 'message', data, id });

// [what, text, frames, retries]
const ROWS = [
  ['one frame', 'data: a\n\n', [message('a')]],
  ['CRLF', 'data: a\r\nid: 1\r\n\r\n', [message('a', '1')]],
  ['CR', 'data: a\rid: 1\r\r', [message('a', '1')]],
  ['all line ends in one frame', 'data: a\ndata: b\rdata: c\r\n\n', [message('a\nb\nc')]],
  ['CR, then LF of the next line', 'data: a\r\n\rdata: b\r\r\n', [message('a'), message('b')]],
  ['a BOM at the start', '\uFEFFdata: a\n\n', [message('a')]],
  ['a second BOM is part of a field name', '\uFEFF\uFEFFdata: a\n\ndata: b\n\n', [message('b')]],
  ['a BOM inside data stays', 'data: \uFEFFa\n\n', [message('\uFEFFa')]],
  ['no space after the colon', 'data:a\nid:7\n\n', [message('a', '7')]],
  ['only one space is taken', 'data:  a\n\n', [message(' a')]],
  ['several colons', 'data: a:b: c\n\n', [message('a:b: c')]],
  ['a field without a colon', 'data\n\n', [message('')]],
  ['two empty data lines', 'data\ndata\n\n', [message('\n')]],
  ['data: and nothing', 'data:\n\n', [message('')]],
  ['a comment', ': hello\ndata: a\n:\n\n', [message('a')]],
  ['only comments', ':\n\n: x\n\n', []],
  ['a named event', 'event: ready\ndata: a\n\ndata: b\n\n', [{ event: 'ready', data: 'a', id: '' }, message('b')]],
  ['an empty name', 'event:\ndata: a\n\n', [message('a')]],
  ['a name without data is dropped', 'event: x\n\ndata: a\n\n', [message('a')]],
  ['an id stays for what follows', 'id: 1\ndata: a\n\ndata: b\n\n', [message('a', '1'), message('b', '1')]],
  ['an empty id clears it', 'id: 1\ndata: a\n\nid:\ndata: b\n\n', [message('a', '1'), message('b')]],
  ['an id with NUL is no id', 'id: 1\ndata: a\n\nid: 2\u0000\ndata: b\n\n', [message('a', '1'), message('b', '1')]],
  ['an id alone counts for the next', 'id: 4\n\ndata: a\n\n', [message('a', '4')]],
  ['unknown fields', 'foo: x\ndata: a\nDATA: b\n data: c\n\n', [message('a')]],
  ['retry', 'retry: 3740\ndata: a\n\n', [message('a')], [3740]],
  ['retry that is no number', 'retry: 1s\nretry: -1\nretry:\nretry: 1.5\nretry: 0x9\nretry: 12\n\n', [], [12]],
  ['cut off before the blank line', 'data: a\n\ndata: b\nid: 2\n', [message('a')]],
  ['cut off in a line', 'data: a\n\ndata: b', [message('a')]],
  ['characters of two, three and four bytes', 'data: grüße 你好 🦀 👩‍🚀\n\n', [message('grüße 你好 🦀 👩‍🚀')]],
  ['U+2028 ends no line', 'data: a\u2028b\u0085c\u000Bd\n\n', [message('a\u2028b\u0085c\u000Bd')]],
  ['blank lines before and between', '\n\r\n\rdata: a\n\n\n\n', [message('a')]],
  ['JSON as the server sends it', 'data: {"v":1,"data":{"text":"a\\nb"}}\nid: q7m2kd-43\n\n', [message('{"v":1,"data":{"text":"a\\nb"}}', 'q7m2kd-43')]],
  ['a form feed and a tab', 'data:\ta\u000C\n\n', [message('\ta\u000C')]],
  ['nothing', '', []],
];

function read(feed) {
  const frames = [];
  const retries = [];
  feed(createParser((frame) => frames.push(frame), { onRetry: (ms) => retries.push(ms) }));
  return { frames, retries };
}

for (const [what, text, frames, retries = []] of ROWS) {
  test(`parser: ${what}`, () => {
    const bytes = new TextEncoder().encode(text);
    const expected = { frames, retries };
    assert.deepEqual(read((parser) => parser.text(text)), expected, 'as text');
    assert.deepEqual(read((parser) => parser.bytes(bytes)), expected, 'whole');
    assert.deepEqual(read((parser) => bytes.forEach((byte) => parser.bytes(Uint8Array.of(byte)))), expected, 'byte by byte');
    for (let cut = 1; cut < bytes.length; cut += 1) {
      const halves = (parser) => [bytes.subarray(0, cut), new Uint8Array(), bytes.subarray(cut)].forEach(parser.bytes);
      assert.deepEqual(read(halves), expected, `cut at ${cut}`);
    }
  });
}

test('parser: bytes that are not UTF-8 become the replacement character and harm nothing else', () => {
  const bytes = Uint8Array.of(...new TextEncoder().encode('data: a'), 0xff, 0xc3, 0x0a, 0x0a, ...new TextEncoder().encode('data: b\n\n'));
  assert.deepEqual(read((parser) => parser.bytes(bytes)).frames, [message('a\uFFFD\uFFFD'), message('b')]);
});

test('parser: a frame past the bound is an error, in one line or in many', () => {
  const bounded = () => createParser(() => {}, { frame_chars_max: 100 });
  assert.throws(() => bounded().text(`data: ${'a'.repeat(200)}`), RangeError);
  assert.throws(() => 'data: aaaaaaaaa\n'.repeat(20).match(/.*\n/g).forEach(bounded().text), RangeError);
  const parser = bounded();
  for (let n = 0; n < 100; n += 1) parser.text('data: short\n\n');
});

test('parser: random streams give the same frames at random cuts as whole', () => {
  let seed = 20261121;
  const random = (below) => (seed = (seed * 1103515245 + 12345) % 2147483648) % below;
  const PARTS = ['data', 'id', 'event', 'retry', ':', ' ', '\n', '\r', '\r\n', '\n\n', 'é', '🦀', '\uFEFF', 'x', '42', '\u2028', '\u0000'];
  for (let round = 0; round < 2000; round += 1) {
    const text = Array.from({ length: 1 + random(40) }, () => PARTS[random(PARTS.length)]).join('');
    const bytes = new TextEncoder().encode(text);
    const whole = read((parser) => parser.bytes(bytes));
    const inParts = read((parser) => {
      for (let at = 0; at < bytes.length; ) {
        const to = at + 1 + random(6);
        parser.bytes(bytes.subarray(at, to));
        at = to;
      }
    });
    assert.deepEqual(inParts, whole, JSON.stringify(text));
  }
});
