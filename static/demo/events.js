// The page for developers: a stream as it comes over the wire, publishing, and the same as curl commands.
// Promises: frames are shown as they came, byte for byte but for the line ends, as text; only the newest are kept; the
// token is asked for each time and stays in memory; a command never holds one.
import { el } from './dom.js';
import { act, tokenOf } from './session.js';

const FRAMES_MAX = 300;
const FRAME_CHARS_MAX = 20_000;
const get = (id) => document.getElementById(id);
const [status, frames, none] = ['status', 'frames', 'none'].map(get);
let open = null;
let count = 0;

const fields = (form) => Object.fromEntries(new FormData(get(form)));
/** One word of a shell, whatever it holds. */
const quoted = (text) => `'${String(text).replaceAll("'", String.raw`'\''`)}'`;

function query({ cursor, types, format }) {
  const pairs = { cursor, format, ...(types.trim() === '' ? {} : { types: types.replaceAll(' ', '') }) };
  return new URLSearchParams(pairs).toString();
}

function showCommands() {
  const { user, ...how } = fields('read');
  get('read-command').textContent = `curl -N -H "Authorization: Bearer $(tidings token --sub ${quoted(user)})" \\\n  ${quoted(`${location.origin}/v1/events?${query(how)}`)}`;
  const { to, type, data } = fields('publish');
  const body = json(data);
  get('publish-command').textContent = body === undefined ? 'the data is not JSON' :
    `curl -H "Authorization: Bearer $(tidings token --sub me --scope publish)" \\\n  -H 'Content-Type: application/json' \\\n  -d ${quoted(JSON.stringify({ to: { user: to }, type, data: body }))} \\\n  ${quoted(`${location.origin}/v1/publish`)}`;
}

function json(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

async function read(event) {
  event.preventDefault();
  close();
  const { user, ...how } = fields('read');
  const mine = open = new AbortController();
  const show = (text) => mine === open && (status.textContent = text);
  get('close').disabled = false;
  frames.replaceChildren();
  showCount(0);
  show('opening …');
  try {
    const headers = { Authorization: `Bearer ${await tokenOf(user)}` };
    const answer = await fetch(`/v1/events?${query(how)}`, { headers, signal: mine.signal, cache: 'no-store' });
    if (!answer.ok) throw new Error((await answer.json()).message);
    show(`open as ${user}`);
    await follow(answer.body, how.format === 'ndjson' ? '\n' : '\n\n', (frame) => mine === open && add(frame));
    show('the server ended it');
  } catch (error) {
    if (mine.signal.aborted) return;
    show(error.message);
  }
  if (mine === open) get('close').disabled = true;
}

async function follow(body, end, heard) {
  let rest = '';
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const parts = (rest + value).split(end);
    rest = parts.pop();
    for (const part of parts) if (part.trim() !== '') heard(part);
  }
}

function close() {
  open?.abort();
  open = null;
  get('close').disabled = true;
  status.textContent = 'closed';
}

/** What a frame says it is: its event line, or the type within. */
const nameOf = (frame) => /"type":"([a-z0-9_.-]+)"/.exec(frame)?.[1] ?? /^event: (.*)$/m.exec(frame)?.[1] ?? 'frame';

function add(frame) {
  const name = nameOf(frame);
  const time = new Date().toLocaleTimeString();
  const item = el('li', { class: name.startsWith('sys.') ? 'system' : '' },
    el('div', { class: 'row' }, el('strong', {}, name), el('time', {}, time)), el('pre', {}, frame.slice(0, FRAME_CHARS_MAX)));
  item.dataset.name = name;
  frames.prepend(item);
  while (frames.children.length > FRAMES_MAX) frames.lastElementChild.remove();
  showCount(count + 1);
}

function showCount(now) {
  count = now;
  none.hidden = count > 0;
  get('count').textContent = count === 0 ? '' : `${count}${count > FRAMES_MAX ? `, the newest ${FRAMES_MAX} shown` : ''}`;
}

async function publish(event) {
  event.preventDefault();
  const said = get('published');
  const { to, type, data } = fields('publish');
  const body = json(data);
  if (body === undefined) {
    said.textContent = 'The data is not JSON.';
    return;
  }
  try {
    const reply = await act('event', { user: fields('read').user, to, type, data: body });
    said.textContent = reply.cursor === undefined ? 'Kept.' : `Kept, at ${reply.cursor}.`;
  } catch (error) {
    said.textContent = error.message;
  }
}

async function copy({ currentTarget: button }) {
  const source = get(button.dataset.copies);
  try {
    await navigator.clipboard.writeText(source.textContent);
    button.textContent = 'Copied';
    setTimeout(() => (button.textContent = 'Copy'), 1_500);
  } catch {
    // Without the clipboard it is selected, for a copy by hand.
    getSelection().selectAllChildren(source);
  }
}

get('read').addEventListener('submit', read);
get('publish').addEventListener('submit', publish);
get('close').addEventListener('click', close);
get('clear').addEventListener('click', () => {
  frames.replaceChildren();
  showCount(0);
});
get('pings').addEventListener('change', (event) => frames.classList.toggle('without-pings', !event.target.checked));
for (const form of ['read', 'publish']) get(form).addEventListener('input', showCommands);
for (const button of document.querySelectorAll('[data-copies]')) button.addEventListener('click', copy);
showCommands();
