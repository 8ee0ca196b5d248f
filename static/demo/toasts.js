// Short notes at the edge of the page, and what is only said to a screen reader.
// Promises: a note is text; it goes by itself, later while a pointer or the focus rests on it; at most a few stand at
// once; two live regions that stand in the page from the start, since later ones are not always read out.
import { el, iconButton, linked } from './dom.js';

const STAYS_MS = 6_000;
const TOASTS_MAX = 4;

export function createToasts() {
  const list = el('div', { class: 'toasts', role: 'status', 'aria-live': 'polite', 'aria-relevant': 'additions' });
  const spoken = el('div', { class: 'visually-hidden', 'aria-live': 'polite', id: 'spoken' });

  function show(title, { body, link, tone = 'plain' } = {}) {
    let timer;
    const leaveSoon = () => {
      clearTimeout(timer);
      timer = setTimeout(() => toast.remove(), STAYS_MS);
    };
    const stay = () => clearTimeout(timer);
    const text = el('div', { class: 'toast-text' }, el('strong', {}, link ? linked(title, link) : title), body ? el('p', {}, body) : null);
    const toast = el('div', { class: `toast ${tone}`, onmouseenter: stay, onmouseleave: leaveSoon, onfocusin: stay, onfocusout: leaveSoon },
      text, iconButton('close', 'Close', () => toast.remove()));
    list.append(toast);
    while (list.children.length > TOASTS_MAX) list.firstElementChild.remove();
    leaveSoon();
  }

  return {
    nodes: [list, spoken],
    show,
    clear: () => list.replaceChildren(),
    failed: (error) => show('That did not work', { body: error.message, tone: 'bad' }),
    /** Only for a screen reader: for those who see, the page already shows it. */
    say(text) {
      spoken.replaceChildren(el('p', {}, text));
    },
  };
}
