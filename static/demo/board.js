// A board that the members of a conversation draw on together: strokes and pointers are signals, nothing is kept.
// Promises: a signal holds the whole stroke of now and the one before it, so that a lost one leaves no hole; a pointer that
// is silent goes away; what came from others is checked before it is drawn; the keyboard draws too.
import { avatar, createLifetime, el, showList } from './dom.js';
import { conversationName } from './model.js';
import { createSurface, SIDE } from './surface.js';

const POINTER_MS = 5_000;
const SEND_MS = 50;
const STEP = 20;
const POINTS_MAX = 120;

export function boardView({ tidings, model, user, go }) {
  const lifetime = createLifetime();
  const choice = el('select', { id: 'board-of', onchange: () => go('board', choice.value) });
  const canvas = el('canvas', {
    class: 'surface', width: SIDE, height: SIDE, tabindex: 0, role: 'application',
    'aria-label': 'Board. Arrow keys move your pointer, space puts the pen down and lifts it.',
    onpointerdown: down, onpointermove: moved, onpointerup: up, onpointercancel: up, onkeydown: pressed,
  });
  const pointers = el('div', { class: 'pointers', 'aria-hidden': 'true' });
  const empty = el('p', { class: 'hint', hidden: true }, 'A board belongs to a conversation: start one first, under Chats.');
  const frame = el('div', { class: 'board-frame' }, canvas, pointers);
  const clear = el('button', { type: 'button', onclick: () => surface.clear() }, 'Clear here');
  const node = el('div', { class: 'column wide' },
    el('h1', { tabindex: -1 }, 'Board'),
    el('div', { class: 'row' }, el('label', { for: 'board-of' }, 'Shared with'), choice, clear), empty, frame,
    el('p', { class: 'small' }, 'Everyone who has this board open sees it move. Nothing of it is stored.'));
  const surface = createSurface(canvas);
  const others = new Map();
  let conversation = null;
  let stroke = null;
  let before = null;
  let at = { x: SIDE / 2, y: SIDE / 2 };
  let timer = null;
  let isDown = false;

  function show(id) {
    conversation = id || model.inOrder()[0]?.id || null;
    others.clear();
    surface.clear();
    stroke = before = null;
    changed();
  }

  function changed() {
    const all = model.inOrder();
    if (conversation === null && all.length > 0) conversation = all[0].id;
    showList(choice, all, {
      key: ({ id }) => id,
      make: ({ id }) => el('option', { value: id }),
      update: (option, each) => void (option.textContent = conversationName(each, user)),
    });
    choice.value = conversation ?? '';
    empty.hidden = all.length > 0 || !model.is_loaded;
    frame.hidden = all.length === 0;
  }

  function place({ clientX, clientY }) {
    const box = canvas.getBoundingClientRect();
    const within = (value) => Math.round(Math.min(Math.max(value, 0), 1) * SIDE);
    return { x: within((clientX - box.left) / box.width), y: within((clientY - box.top) / box.height) };
  }

  function begin() {
    before = stroke;
    stroke = { id: crypto.getRandomValues(new Uint32Array(1))[0], points: [] };
  }

  function move(next, isDrawing) {
    at = next;
    if (isDrawing) {
      stroke.points.push([at.x, at.y]);
      surface.draw(user, stroke);
      if (stroke.points.length >= POINTS_MAX) {
        begin();
        stroke.points.push([at.x, at.y]);
      }
    }
    timer ??= setTimeout(tell, SEND_MS);
  }

  function tell() {
    timer = null;
    if (conversation === null) return;
    tidings.signal(conversation, 'pointer', at);
    if (stroke !== null) tidings.signal(conversation, 'stroke', { strokes: [before, stroke].filter((each) => each !== null) });
  }

  function down(event) {
    canvas.setPointerCapture(event.pointerId);
    isDown = true;
    begin();
    move(place(event), true);
  }

  function moved(event) {
    move(place(event), isDown);
  }

  function up() {
    isDown = false;
  }

  function pressed(event) {
    const steps = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] };
    if (event.key === ' ') {
      event.preventDefault();
      isDown = !isDown;
      if (isDown) begin();
      move(at, isDown);
    } else if (Object.hasOwn(steps, event.key)) {
      event.preventDefault();
      const [x, y] = steps[event.key];
      const within = (value) => Math.min(Math.max(value, 0), SIDE);
      move({ x: within(at.x + x), y: within(at.y + y) }, isDown);
    } else return;
    others.set(user, { ...at, until: Date.now() + POINTER_MS });
    showPointers();
  }

  function heard({ type, topic, data, actor }) {
    const who = actor?.id;
    if (topic !== `conversation:${conversation}` || who === undefined || who === user) return;
    if (type === 'signal.pointer' && Number.isFinite(data?.x) && Number.isFinite(data?.y)) {
      others.set(who, { x: data.x, y: data.y, until: Date.now() + POINTER_MS });
      showPointers();
    }
    if (type === 'signal.stroke') surface.take(who, data?.strokes);
  }

  function showPointers() {
    const now = Date.now();
    for (const [who, { until }] of others) if (until < now) others.delete(who);
    showList(pointers, [...others], {
      key: ([who]) => who,
      make: ([who]) => el('div', { class: 'pointer' }, avatar(who), el('span', {}, who)),
      update(mark, [, { x, y }]) {
        mark.style.left = `${Math.min(Math.max((x / SIDE) * 100, 0), 100)}%`;
        mark.style.top = `${Math.min(Math.max((y / SIDE) * 100, 0), 100)}%`;
      },
    });
  }

  const fading = setInterval(showPointers, 1_000);
  lifetime.add(model.subscribe(changed), tidings.on('signal.*', heard), () => clearInterval(fading), () => clearTimeout(timer), surface.close);
  return { node, show, close: lifetime.end };
}
