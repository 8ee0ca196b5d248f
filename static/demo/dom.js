// Makes the elements of the demo's pages.
// Promises: a text becomes a text node and nothing else, so what other people wrote cannot become markup; an address is
// set only where `safeLink` lets it through; nothing here sets markup, a style attribute or a handler from a string.
import { safeLink } from '../alerts.js';

const SVG = 'http://www.w3.org/2000/svg';
const PATHS = {
  chats: 'M4 5h16v11H9l-5 4z',
  feed: 'M5 5h14M5 10h14M5 15h9M5 20h9',
  board: 'M4 20l1-5L16 4l4 4L9 19zM14 6l4 4',
  orders: 'M4 7l8-4 8 4v10l-8 4-8-4zM4 7l8 4 8-4M12 11v10',
  bell: 'M6 17V11a6 6 0 0 1 12 0v6l2 2H4zM10 21h4',
  settings: 'M4 7h10M18 7h2M4 17h2M10 17h10M14 4.5v5M8 14.5v5',
  back: 'M15 5l-7 7 7 7',
  plus: 'M12 5v14M5 12h14',
  send: 'M4 12L20 4l-6 16-3-6z',
  close: 'M6 6l12 12M18 6L6 18',
  leave: 'M14 4h5v16h-5M4 12h10M10 8l4 4-4 4',
};

/** An element: attributes, `on…` handlers (functions), and children (elements or texts). */
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (typeof value === 'function') node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? '' : String(value));
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

export function icon(name) {
  const svg = document.createElementNS(SVG, 'svg');
  const path = document.createElementNS(SVG, 'path');
  svg.setAttribute('viewBox', '0 0 24 24');
  svg.setAttribute('aria-hidden', 'true');
  svg.setAttribute('class', 'icon');
  path.setAttribute('d', PATHS[name]);
  svg.append(path);
  return svg;
}

/** A button that shows an icon and is called by its name. */
export const iconButton = (name, label, onclick, more = {}) =>
  el('button', { type: 'button', class: 'icon-button', 'aria-label': label, title: label, onclick, ...more }, icon(name));

/** The first letter of a name on a colour of its own. */
export function avatar(name) {
  const sum = [...name].reduce((sum, letter) => (sum * 31 + (letter.codePointAt(0) ?? 0)) % 360, 7);
  const node = el('span', { class: 'avatar', 'aria-hidden': 'true' }, [...name][0]?.toUpperCase() ?? '?');
  node.style.setProperty('--hue', String(sum));
  return node;
}

/** A link that a page may follow, or the text alone. */
export function linked(text, link) {
  const href = safeLink(link, location.origin);
  return href === null ? el('span', {}, text) : el('a', { href, rel: 'noopener noreferrer', target: '_blank' }, text);
}

/**
 * Brings the children of a list to what `items` say, keeping the nodes of items that stay: the screen reader's place, the
 * focus and the scroll position stay with them.
 */
export function showList(list, items, { key, make, update = () => {} }) {
  const known = new Map([...list.children].map((node) => [node.dataset.key, node]));
  let place = list.firstElementChild;
  for (const item of items) {
    const name = String(key(item));
    let node = known.get(name);
    if (node === undefined) {
      node = make(item);
      node.dataset.key = name;
    }
    known.delete(name);
    update(node, item);
    if (node === place) place = place.nextElementSibling;
    else list.insertBefore(node, place);
  }
  for (const node of known.values()) node.remove();
}

/** Lets go of everything that a view holds, once. */
export function createLifetime() {
  const ends = [];
  return {
    add: (...more) => void ends.push(...more),
    end() {
      for (const stop of ends.splice(0)) stop();
    },
  };
}
