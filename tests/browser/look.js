// Makes a picture of every view, on a desk and on a phone, in light and in dark, for a person to look at.
// `npm run look -- DIRECTORY`. It proves nothing by itself; it starts its own server and ends it.
import { mkdirSync } from 'node:fs';
import path from 'node:path';
import { act, closeBrowser, connected, field, openBrowser, startConversation, startDemo, write, seen } from './browser.js';

const place = process.argv[2] ?? 'pictures';
mkdirSync(place, { recursive: true });
const SCREENS = { desk: { width: 1200, height: 800 }, phone: { width: 390, height: 780 } };
const server = await startDemo({ 'feed.digest_seconds': 1 });

async function open(options, user, hash = '') {
  const context = await (await openBrowser()).newContext(options);
  const page = await context.newPage();
  page.on('pageerror', (error) => console.error(user, String(error)));
  page.on('console', (line) => line.type() === 'error' && console.error(user, line.text()));
  await page.goto(`${server.origin}/${user === null ? '' : `?as=${user}`}${hash}`);
  if (user !== null) await connected(page);
  return page;
}

try {
  const [alice, bob] = [await open({ viewport: SCREENS.desk }, 'alice'), await open({ viewport: SCREENS.desk }, 'bob')];
  const id = await startConversation(alice, 'bob');
  await startConversation(bob, 'alice, carol', 'Tea on Friday');
  const group = decodeURIComponent(new URL(bob.url()).hash.split('/')[2]);
  for (const text of ['Shall we say four?', 'I bring the cake.']) await write(bob, text);
  await seen(bob, 'I bring the cake.');
  await bob.goto(`${server.origin}/#/chats/${id}`);
  await field(bob).waitFor();
  await alice.goto(`${server.origin}/#/chats/${id}`);
  for (const [who, text] of [[alice, 'Good morning! Did the parcel arrive?'], [bob, 'It did, thank you.'], [bob, 'A longer message, to see how it wraps: the box was a little wet, but everything inside was dry and the book is even better than I had hoped.\n\nSecond paragraph.'], [alice, 'I am glad.'], [alice, 'See you on Friday? https://example.org']]) {
    await write(who, text);
    await seen(who, text.split('\n')[0] === text ? text : 'It did, thank you.');
  }
  for (const text of ['Today is a good day for tea.', 'The new kettle is here.']) await act(server.origin, { kind: 'post', user: 'bob', text });
  for (const [kind, body] of [['like', 'Your post about tea'], ['comment', 'Well said. I read it twice.'], ['mention', 'Have a look at the board, please.']]) await act(server.origin, { kind: 'notify', user: 'carol', to: 'alice', notification: { kind, body } });
  await alice.goto(`${server.origin}/#/feed`);
  await alice.getByLabel('Your post').fill('A first post, by me.');
  await alice.getByRole('button', { name: 'Post', exact: true }).click();
  await alice.locator('.post').first().waitFor();
  for (const text of ['One more thing.', 'And another.']) await act(server.origin, { kind: 'post', user: 'bob', text });
  await alice.getByRole('button', { name: '2 new posts' }).waitFor();
  await alice.context().close();
  await field(bob).pressSequentially('x');

  for (const scheme of ['light', 'dark']) {
    for (const [screen, viewport] of Object.entries(SCREENS)) {
      const options = { viewport, colorScheme: scheme, hasTouch: screen === 'phone', isMobile: screen === 'phone', deviceScaleFactor: 1 };
      const shot = (page, name) => page.screenshot({ path: path.join(place, `${name}-${screen}-${scheme}.png`) });
      const start = await open(options, null);
      await start.getByRole('button', { name: 'Sign in' }).waitFor();
      await shot(start, 'sign-in');
      await start.context().close();
      const page = await open(options, 'alice');
      const go = async (hash) => {
        await page.goto(`${server.origin}/#/${hash}`);
        await page.waitForTimeout(400);
      };
      await go('chats');
      await page.locator('.conversations li').first().waitFor();
      await shot(page, 'chats');
      await go(`chats/${id}`);
      await seen(page, 'I am glad.');
      await field(bob).pressSequentially('x');
      await page.locator('.typing .dots').waitFor();
      await shot(page, 'conversation');
      await go(`chats/${group}`);
      await page.getByText('Members', { exact: true }).click();
      await shot(page, 'group');
      await go('chats');
      await page.getByRole('button', { name: 'New conversation' }).click();
      await shot(page, 'new-conversation');
      await page.keyboard.press('Escape');
      await act(server.origin, { kind: 'notify', user: 'carol', to: 'alice', notification: { kind: 'like', body: 'Your picture' } });
      await page.locator('.toast').first().waitFor();
      await shot(page, 'toast');
      await page.getByRole('button', { name: /^Notifications/ }).click();
      await shot(page, 'notifications');
      await page.keyboard.press('Escape');
      await go('feed');
      await act(server.origin, { kind: 'post', user: 'bob', text: 'Fresh news.' });
      await page.getByRole('button', { name: '1 new post' }).waitFor();
      await shot(page, 'feed');
      await go(`board/${id}`);
      const box = await page.locator('.surface').boundingBox();
      await page.mouse.move(box.x + 60, box.y + 60);
      await page.mouse.down();
      for (let at = 0; at < 30; at += 1) await page.mouse.move(box.x + 60 + at * 7, box.y + 120 + Math.sin(at / 3) * 50);
      await page.mouse.up();
      await shot(page, 'board');
      await go('orders');
      await act(server.origin, { kind: 'entity', user: 'bob', action: 'updated', entity: 'order', id: '1002', version: Math.floor(Date.now() / 1000) });
      await page.getByText('Data updated').waitFor();
      await shot(page, 'orders');
      await go('settings');
      await shot(page, 'settings');
      await page.context().setOffline(true);
      await page.locator('.connection[data-status=offline]').waitFor();
      await shot(page, 'offline');
      await page.context().setOffline(false);
      await page.goto(`${server.origin}/static/events.html`);
      await page.getByRole('button', { name: 'Open', exact: true }).click();
      await page.locator('#frames li').first().waitFor();
      await page.waitForTimeout(300);
      await shot(page, 'events');
      await page.context().close();
    }
  }
} finally {
  await closeBrowser();
  await server.stop();
}
process.exit(0);
