// What goes wrong under open pages: the leading tab goes, the server is killed, the network goes. Nothing lost, nothing twice.
import assert from 'node:assert/strict';
import { before, after, describe, test } from 'node:test';
import { connected, conversationOf, openDevice, seen, shows, startConversation, startDemo, status, ticked, write } from './browser.js';

const numbered = (from, to) => Array.from({ length: to - from + 1 }, (_, at) => `number ${from + at}`);

describe('faults under open pages', () => {
  let server;
  before(async () => (server = await startDemo()));
  after(() => server.stop());

  test('the leading tab is closed in mid-stream: the other takes over, nothing lost, nothing twice', async (t) => {
    const [one, two] = [await openDevice(t, server.origin), await openDevice(t, server.origin)];
    const leader = await one.as('alice');
    const id = await startConversation(leader, 'bob');
    const follower = await one.as('alice', `#/chats/${id}`);
    await follower.locator('.connection[title*="another tab"]').waitFor();
    const bob = await two.as('bob', `#/chats/${id}`);
    const wanted = numbered(1, 24);
    for (const [at, text] of wanted.entries()) {
      await write(bob, text);
      if (at === 9) await leader.close();
    }
    await shows(bob, wanted);
    await seen(follower, wanted.at(-1));
    await shows(follower, wanted);
    await connected(follower);
    assert.equal(await follower.locator('.connection[title*="another tab"]').count(), 0, 'it holds the connection itself now');
    await write(follower, 'still here');
    await seen(bob, 'still here');
    await one.assertClean();
  });

  test('the server is killed and comes back under open pages', async (t) => {
    const [one, two] = [await openDevice(t, server.origin), await openDevice(t, server.origin)];
    const carol = await one.as('carol');
    const id = await startConversation(carol, 'dave');
    const dave = await two.as('dave', `#/chats/${id}`);
    await write(carol, 'before');
    await seen(dave, 'before');
    const { port } = server;
    await server.kill();
    await status(carol, 'reconnecting');
    await status(dave, 'reconnecting');
    await write(carol, 'while it was down');
    await ticked(carol, 'while it was down', 'queued');
    const told = carol.locator('.toast', { hasText: 'Reconnected' }).waitFor();
    await server.start({ port });
    await connected(carol);
    await told;
    await connected(dave);
    await seen(dave, 'while it was down');
    await write(dave, 'after');
    await shows(carol, ['before', 'while it was down', 'after']);
    await shows(dave, ['before', 'while it was down', 'after']);
    assert.equal(conversationOf(dave), id);
    await one.assertClean();
    await two.assertClean();
  });

  test('the network goes and comes back: what was written meanwhile goes out once', async (t) => {
    const [one, two] = [await openDevice(t, server.origin), await openDevice(t, server.origin)];
    const erin = await one.as('erin');
    const id = await startConversation(erin, 'frank');
    const frank = await two.as('frank', `#/chats/${id}`);
    await write(erin, 'one');
    await seen(frank, 'one');
    await one.context.setOffline(true);
    await status(erin, 'offline');
    await write(erin, 'two');
    await write(frank, 'three');
    await ticked(erin, 'two', 'queued');
    await one.context.setOffline(false);
    await connected(erin);
    await shows(frank, ['one', 'three', 'two']);
    await shows(erin, ['one', 'three', 'two']);
    await erin.reload();
    await connected(erin);
    await shows(erin, ['one', 'three', 'two']);
    await one.assertClean();
  });
});
