// FAULTS.md 4.7: hostile names, messages, titles and links are shown as text, on every view and in the desktop's notices.
import assert from 'node:assert/strict';
import { before, after, describe, test } from 'node:test';
import { token } from '../client/server.js';
import { act, connected, openDevice, startDemo } from './browser.js';
import { LINKS, TEXTS } from './payloads.js';

const PRINTABLE = TEXTS.filter((text) => !/\p{Cc}/u.test(text) && [...text].length <= 128);

describe('hostile texts', () => {
  let server;
  before(async () => (server = await startDemo({ 'feed.digest_seconds': 1, 'notifications.digest_threshold': 1000 })));
  after(() => server.stop());

  async function call(user, method, path, body, claims) {
    const headers = { authorization: `Bearer ${token(user, claims)}`, 'content-type': 'application/json' };
    const answer = await fetch(`${server.origin}${path}`, { method, headers, body: JSON.stringify(body) });
    assert.ok(answer.ok, `${method} ${path} ${answer.status} ${await answer.clone().text()}`);
    return answer.status === 204 ? null : answer.json();
  }
  const publish = (events) => call('backend', 'POST', '/v1/publish', { events }, { scope: 'publish' });

  test('there are at least 100', () => assert.ok(TEXTS.length >= 100, String(TEXTS.length)));

  test('as messages and as names of groups', async (t) => {
    const { id } = await call('mallory', 'POST', '/v1/conversations', { members: ['alice'], name: '<img src=x onerror=window.__pwned=1>' });
    for (const content of TEXTS) await call('mallory', 'POST', `/v1/conversations/${id}/messages`, { content });
    for (const name of PRINTABLE.slice(0, 60)) await call('mallory', 'POST', '/v1/conversations', { members: ['alice', 'bob'], name });
    const device = await openDevice(t, server.origin);
    const alice = await device.as('alice', `#/chats/${id}`);
    const wanted = TEXTS.at(-1);
    await alice.waitForFunction((wanted) => [...document.querySelectorAll('.message .content')].at(-1)?.textContent === wanted, wanted);
    for (let turn = 0; turn < 20; turn += 1) {
      const count = await alice.locator('.message').count();
      if (count === TEXTS.length) break;
      await alice.locator('.scroller').evaluate((node) => (node.scrollTop = 0));
      await alice.waitForFunction((count) => document.querySelectorAll('.message').length > count, count);
    }
    assert.deepEqual(await alice.locator('.message .content').allTextContents(), TEXTS);
    assert.equal(await alice.locator('.messages :is(script, img, iframe, svg:not(.icon), a, style, video, audio)').count(), 0);
    const names = await alice.locator('.conversations .who .name').allTextContents();
    for (const name of PRINTABLE.slice(0, 60)) assert.ok(names.includes(name.trim()) || names.includes(name), name);
    await device.assertClean();
  });

  test('as notifications: titles, texts, actors and links', async (t) => {
    const device = await openDevice(t, server.origin, { permissions: ['notifications'] });
    const alice = await device.as('nora');
    await alice.evaluate(() => {
      window.__desktop = [];
      window.Notification = class {
        static permission = 'granted';
        constructor(title, { body }) {
          window.__desktop.push(typeof title === 'string' && typeof body === 'string');
        }
      };
    });
    const { results } = await publish(TEXTS.map((text, at) => ({
      to: { user: 'nora' }, type: 'notification.new', actor: { id: 'mallory', name: PRINTABLE[at % PRINTABLE.length] },
      data: { id: `n${at}`, kind: text, title: at % 2 === 0 ? text : undefined, body: text, link: LINKS[at % LINKS.length], actor: { id: 'mallory', name: text }, read: false },
    })));
    assert.deepEqual(results.filter(({ error }) => error), []);
    await alice.waitForFunction((count) => document.querySelectorAll('.notifications li').length === count, Math.min(TEXTS.length, 200));
    await alice.getByRole('button', { name: /^Notifications/ }).click();
    const bodies = await alice.locator('.notifications .body').allTextContents();
    assert.deepEqual(bodies, TEXTS.toReversed());
    assert.equal(await alice.locator('.notifications a[href], .toast a[href]').evaluateAll((links) => links.filter(({ protocol }) => !/^https?:$/.test(protocol)).length), 0);
    await device.assertClean();
  });

  test('as posts, orders, activities and frames', async (t) => {
    const device = await openDevice(t, server.origin);
    const page = await device.as('olga', '#/feed');
    await page.locator('.posts:not([aria-busy])').waitFor({ state: 'attached' });
    for (const text of TEXTS.slice(0, 40)) await act(server.origin, { kind: 'post', user: 'mallory', text });
    await page.getByRole('button', { name: /new posts?$/ }).click();
    await page.locator('.post .content').first().waitFor();
    await page.goto(`${server.origin}/#/orders`);
    await page.locator('.orders:not([aria-busy])').waitFor();
    for (const id of PRINTABLE.slice(0, 40)) await act(server.origin, { kind: 'entity', user: 'mallory', action: 'created', entity: 'order', id, version: 1 });
    await page.getByRole('button', { name: 'Load' }).click();
    await page.locator('.order', { hasText: PRINTABLE[0] }).first().waitFor();
    await call('mallory', 'POST', '/v1/conversations', { members: ['olga'] });
    await call('mallory', 'PUT', '/v1/presence', { status: 'online', activity: '<img src=x onerror=__pwned=1>' });
    await page.goto(`${server.origin}/#/chats`);
    await connected(page);
    await page.locator('.conversations .presence', { hasText: 'onerror' }).waitFor({ state: 'attached' });

    const events = await device.open('/static/events.html');
    await events.getByLabel('User').fill('olga');
    await events.getByLabel('From').selectOption('start');
    await events.getByRole('button', { name: 'Open', exact: true }).click();
    await events.locator('#frames li', { hasText: 'sys.live' }).waitFor();
    await events.getByLabel('Data, any JSON').fill(JSON.stringify(TEXTS.slice(0, 20)));
    await events.getByLabel('To', { exact: true }).fill('olga');
    await events.getByRole('button', { name: 'Publish' }).click();
    await events.locator('#frames li[data-name="note.new"]').waitFor();
    await device.assertClean();
  });
});
