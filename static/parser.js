// @ts-check
// Server-sent events out of bytes or text, as the WHATWG HTML standard reads them (section 9.2.6).
// Promises: any split of the input, even inside a character or between CR and LF, gives the same frames; what is cut off at
// the end is not a frame. A frame that grows past a bound is an error, so a hostile server cannot fill the memory.
// It knows nothing of Tidings: what the data means is for `transports/`.

/** Far above any event (64 KiB) and any state. */
const FRAME_CHARS_MAX = 16 * 1024 * 1024;

/** @type {typeof import('./parser.js').createParser} */
export const createParser = (onFrame, { onRetry = () => {}, frame_chars_max = FRAME_CHARS_MAX } = {}) => {
  // ignoreBOM keeps the mark: it is taken off here, where text and bytes meet.
  const decoder = new TextDecoder('utf-8', { ignoreBOM: true });
  let isFirst = true;
  let endedInCr = false;
  let line = '';
  let event = '';
  /** @type {string[]} */
  let data = [];
  let chars = 0;
  let lastId = '';

  /** @param {string} text */
  function feed(text) {
    if (text === '') return;
    let from = 0;
    if (isFirst && text[0] === '\uFEFF') from = 1;
    isFirst = false;
    if (endedInCr && text[from] === '\n') from += 1;
    endedInCr = false;
    const ends = /\r\n|\r|\n/g;
    ends.lastIndex = from;
    for (let end = ends.exec(text); end !== null; end = ends.exec(text)) {
      const whole = line + text.slice(from, end.index);
      line = '';
      from = ends.lastIndex;
      endedInCr = end[0] === '\r' && from === text.length;
      readLine(whole);
    }
    line += text.slice(from);
    if (chars + line.length > frame_chars_max) throw new RangeError('a frame is longer than the parser takes');
  }

  /** @param {string} whole */
  function readLine(whole) {
    if (whole === '') return dispatch();
    const colon = whole.indexOf(':');
    if (colon === 0) return;
    const field = colon === -1 ? whole : whole.slice(0, colon);
    const rest = colon === -1 ? '' : whole.slice(colon + 1);
    const value = rest[0] === ' ' ? rest.slice(1) : rest;
    if (field === 'data') {
      data.push(value);
      chars += value.length + 1;
      if (chars > frame_chars_max) throw new RangeError('a frame is longer than the parser takes');
    } else if (field === 'event') event = value;
    else if (field === 'id' && !value.includes('\0')) lastId = value;
    else if (field === 'retry' && /^[0-9]+$/.test(value)) onRetry(Number(value));
  }

  function dispatch() {
    const frame = { event: event || 'message', data: data.join('\n'), id: lastId };
    const isEmpty = data.length === 0;
    event = '';
    data = [];
    chars = 0;
    if (!isEmpty) onFrame(frame);
  }

  return {
    text: feed,
    bytes: (bytes) => feed(decoder.decode(bytes, { stream: true })),
  };
};
