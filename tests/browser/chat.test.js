// Two people in two browsers talk: presence, typing, ticks, unread counts, history, and nothing moves under a reader.
import assert from 'node:assert/strict';
import { before, after, describe, test } from 'node:test';
import { connected, conversationOf, field, messageWith, openDevice, seen, shows, startConversation, startDemo, ticked, write } from './browser.js';

describe('a conversation', () => {
  let server;
  before(async () => (server = await startDemo()));
  after(() => server.stop());

  test('two people see each other type, write, receive and read', async (t) => {
    const [one, two] = [await openDevice(t, server.origin), await openDevice(t, server.origin)];
    const [alice, bob] = [await one.as('alice'), await two.as('bob')];
    await startConversation(alice, 'bob');
    await write(alice, 'Hello Bob');
    await seen(alice, 'Hello Bob');
    await ticked(alice, 'Hello Bob', 'delivered');
    const row = bob.locator('.conversations li', { hasText: 'alice' });
    await row.locator('.unread', { hasText: '1' }).waitFor();
    await row.locator('.presence-dot[data-status=online]').waitFor();
    assert.match(await bob.title(), /^\(1\) /);

    await row.getByRole('link').click();
    await seen(bob, 'Hello Bob');
    await ticked(alice, 'Hello Bob', 'read');
    await bob.locator('.tabs a[href="#/chats"] .count').waitFor({ state: 'hidden' });
    await bob.getByText('Active now').first().waitFor();

    await field(alice).pressSequentially('typing');
    await bob.locator('.typing', { hasText: 'alice is typing' }).waitFor();
    await field(alice).fill('');
    await bob.locator('.typing', { hasText: 'alice' }).waitFor({ state: 'hidden' });

    await write(bob, 'Hello Alice');
    await seen(alice, 'Hello Alice');
    await shows(alice, ['Hello Bob', 'Hello Alice']);
    await shows(bob, ['Hello Bob', 'Hello Alice']);

    await two.context.close();
    await alice.locator('.conversation .subtitle', { hasText: 'Last seen' }).waitFor();
    await one.assertClean();
  });

  test('history comes as one scrolls up, and a new message does not move the reader', async (t) => {
    const [one, two] = [await openDevice(t, server.origin), await openDevice(t, server.origin)];
    const carol = await one.as('carol');
    const id = await startConversation(carol, 'dave');
    await carol.evaluate(async (id) => {
      const login = await fetch('/demo/login', { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: '{"user":"carol"}' });
      const { token } = await login.json();
      const headers = { 'Content-Type': 'application/json', Authorization: `Bearer ${token}` };
      for (let n = 1; n <= 56; n += 1) {
        await fetch(`/v1/conversations/${id}/messages`, { method: 'POST', headers, body: JSON.stringify({ content: `number ${n}` }) });
      }
    }, id);
    const dave = await two.as('dave', `#/chats/${id}`);
    await seen(dave, 'number 56');
    assert.equal(await messageWith(dave, 'number 1').count(), 0, 'only the newest page is loaded at first');
    const scroller = dave.locator('.scroller');
    for (let turn = 0; turn < 20 && (await messageWith(dave, 'number 1').count()) === 0; turn += 1) {
      await scroller.evaluate((node) => (node.scrollTop = 0));
      await dave.waitForFunction(() => document.querySelector('.scroller .more').hidden);
    }
    await messageWith(dave, 'number 1').waitFor();
    await scroller.evaluate((node) => (node.scrollTop = 400));
    const place = () => messageWith(dave, 'number 10').evaluate((node) => Math.round(node.getBoundingClientRect().top));
    const before = await place();
    await write(carol, 'while you read');
    await dave.getByRole('button', { name: '1 new message' }).waitFor();
    assert.equal(await place(), before);
    await dave.getByRole('button', { name: '1 new message' }).click();
    await ticked(carol, 'while you read', 'read');
    await one.assertClean();
    await two.assertClean();
  });

  test('a group has a name, members and ticks; a message can be taken back', async (t) => {
    const [one, two] = [await openDevice(t, server.origin), await openDevice(t, server.origin)];
    const [erin, frank] = [await one.as('erin'), await two.as('frank')];
    await startConversation(erin, 'frank, grace', 'Tea');
    await write(erin, 'oops');
    await frank.getByRole('link', { name: /Tea/ }).click();
    await seen(frank, 'oops');
    await messageWith(erin, 'oops').hover();
    await messageWith(erin, 'oops').getByRole('button', { name: 'Delete message' }).click();
    await messageWith(erin, 'oops').getByRole('button', { name: 'Really delete?' }).click();
    await seen(frank, 'Message deleted');
    await erin.getByText('Members', { exact: true }).click();
    await erin.getByLabel('Name', { exact: true }).fill('Coffee');
    await erin.getByRole('button', { name: 'Rename' }).click();
    await frank.getByRole('heading', { name: 'Coffee' }).waitFor();
    assert.equal(conversationOf(frank), conversationOf(erin));
    await connected(frank);
    await one.assertClean();
    await two.assertClean();
  });
});
