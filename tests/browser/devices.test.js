// One person with two devices: what is done on one holds on the other. And the other views: feed, orders, board, settings.
import assert from 'node:assert/strict';
import { before, after, describe, test } from 'node:test';
import { act, openDevice, seen, startConversation, startDemo, write } from './browser.js';

const bell = (page) => page.getByRole('button', { name: /^Notifications/ });
const unread = (page, count) => page.getByRole('button', { name: count === 0 ? 'Notifications' : `Notifications, ${count} unread`, exact: true }).waitFor();
const notify = (origin, to, notification) => act(origin, { kind: 'notify', user: 'bob', to, notification: { kind: 'like', ...notification } });

describe('one person, two devices', () => {
  let server;
  before(async () => (server = await startDemo({ 'feed.digest_seconds': 2 })));
  after(() => server.stop());

  test('messages, unread counts, notifications and choices converge', async (t) => {
    const [one, two, three] = [await openDevice(t, server.origin), await openDevice(t, server.origin, { viewport: { width: 390, height: 800 } }), await openDevice(t, server.origin)];
    const [desktop, phone, bob] = [await one.as('alice'), await two.as('alice'), await three.as('bob')];
    await startConversation(bob, 'alice');
    await write(bob, 'on both');
    for (const page of [desktop, phone]) await page.locator('.conversations .unread', { hasText: '1' }).waitFor();
    await desktop.locator('.conversations a').first().click();
    await seen(desktop, 'on both');
    await phone.locator('.conversations .unread').waitFor({ state: 'hidden' });
    await write(desktop, 'from the desktop');
    await phone.locator('.conversations a').first().click();
    await seen(phone, 'from the desktop');

    await notify(server.origin, 'alice', { body: 'the first' });
    await notify(server.origin, 'alice', { body: 'the second' });
    for (const page of [desktop, phone]) await unread(page, 2);
    await desktop.locator('.toast', { hasText: 'the second' }).waitFor();
    await bell(phone).click();
    await phone.locator('.notifications li', { hasText: 'the first' }).getByRole('button', { name: 'Mark as read' }).click();
    for (const page of [desktop, phone]) await unread(page, 1);
    await phone.getByRole('button', { name: 'Mark all as read' }).click();
    for (const page of [desktop, phone]) await unread(page, 0);

    await phone.keyboard.press('Escape');
    await phone.getByRole('link', { name: 'Settings' }).click();
    await desktop.getByRole('link', { name: 'Settings' }).click();
    await phone.getByLabel('Others see that I type').uncheck();
    await desktop.waitForFunction(() => !document.querySelector('#choice-typing_visible').checked);
    for (const device of [one, two, three]) await device.assertClean();
  });

  test('posts of others wait behind "new posts"; likes count live', async (t) => {
    const device = await openDevice(t, server.origin);
    const carol = await device.as('carol', '#/feed');
    await carol.getByLabel('Your post').fill('my own post');
    await carol.locator('.posts:not([aria-busy])').waitFor({ state: 'attached' });
    await carol.getByRole('button', { name: 'Post' }).click();
    await carol.locator('.post', { hasText: 'my own post' }).waitFor();
    for (const text of ['first', 'second', 'third']) await act(server.origin, { kind: 'post', user: 'bob', text });
    const pill = carol.getByRole('button', { name: '3 new posts' });
    await pill.waitFor();
    assert.equal(await carol.locator('.post').count(), 1, 'what one reads does not move');
    await pill.click();
    assert.deepEqual(await carol.locator('.post .content').allTextContents(), ['third', 'second', 'first', 'my own post']);
    await carol.locator('.post', { hasText: 'my own post' }).getByRole('button', { name: /Like/ }).click();
    await carol.locator('.post', { hasText: 'my own post' }).getByRole('button', { name: 'Like, 1 so far' }).waitFor();
    await carol.reload();
    await carol.locator('.post', { hasText: 'third' }).waitFor();
    await device.assertClean();
  });

  test('an order that somebody else changed is called out, and loaded when asked', async (t) => {
    const device = await openDevice(t, server.origin);
    const dave = await device.as('dave', '#/orders');
    const order = dave.locator('.order', { hasText: 'Order 1002' });
    await dave.locator('.orders:not([aria-busy])').waitFor();
    await act(server.origin, { kind: 'entity', user: 'bob', action: 'updated', entity: 'order', id: '1002', version: 2 });
    await dave.getByText('Data updated').waitFor();
    assert.equal(await order.locator('.state').textContent(), 'new');
    await dave.getByRole('button', { name: 'Load' }).click();
    await order.locator('.state', { hasText: 'packed' }).waitFor();
    await order.getByRole('button', { name: 'Mark order 1002 sent' }).click();
    await order.locator('.state', { hasText: 'sent' }).waitFor();
    await device.assertClean();
  });

  test('a stroke and a pointer reach the other one', async (t) => {
    const [one, two] = [await openDevice(t, server.origin), await openDevice(t, server.origin)];
    const erin = await one.as('erin');
    const id = await startConversation(erin, 'frank');
    const frank = await two.as('frank', `#/board/${id}`);
    await erin.goto(`${server.origin}/#/board/${id}`);
    const box = await erin.locator('.surface').boundingBox();
    const isBlank = () => document.querySelector('.surface').getContext('2d').getImageData(0, 0, 1000, 1000).data.every((byte) => byte === 0);
    assert.equal(await frank.evaluate(isBlank), true);
    await erin.mouse.move(box.x + 50, box.y + 50);
    await erin.mouse.down();
    await erin.mouse.move(box.x + 250, box.y + 250, { steps: 8 });
    await erin.mouse.up();
    await frank.locator('.pointer', { hasText: 'erin' }).waitFor();
    await frank.waitForFunction(() => document.querySelector('.surface').getContext('2d').getImageData(0, 0, 1000, 1000).data.some((byte) => byte !== 0));
    // The keyboard draws too.
    await frank.getByRole('button', { name: 'Clear here' }).click();
    await frank.locator('.surface').focus();
    await frank.keyboard.press(' ');
    await frank.keyboard.press('ArrowRight');
    await erin.locator('.pointer', { hasText: 'frank' }).waitFor();
    await one.assertClean();
    await two.assertClean();
  });
});
