// The page for developers: what one publishes comes as a frame; the curl commands are right as they stand.
import assert from 'node:assert/strict';
import { before, after, describe, test } from 'node:test';
import { openDevice, startDemo } from './browser.js';

describe('the events page', () => {
  let server;
  before(async () => (server = await startDemo()));
  after(() => server.stop());

  for (const format of ['sse', 'ndjson']) {
    test(`publishing shows the frame, as ${format}`, async (t) => {
      const device = await openDevice(t, server.origin);
      const page = await device.open('/static/events.html');
      const user = `user-${format}`;
      await page.getByLabel('User').fill(user);
      await page.getByLabel('To', { exact: true }).fill(user);
      await page.getByLabel('As').selectOption(format);
      await page.getByRole('button', { name: 'Open', exact: true }).click();
      await page.locator('#frames li[data-name="sys.live"]').waitFor();
      await page.getByRole('button', { name: 'Publish' }).click();
      const frame = page.locator('#frames li[data-name="note.new"] pre');
      await frame.waitFor();
      const line = (await frame.textContent()).split('\n').find((line) => line.includes('{'));
      assert.deepEqual(JSON.parse(line.replace(/^data: /, '')).data, { text: 'hello' });
      await page.locator('#published', { hasText: /^Kept, at [a-z0-9]{6}-1\.$/ }).waitFor();
      await page.getByRole('button', { name: 'Close' }).click();
      await page.locator('#status', { hasText: 'closed' }).waitFor();
      await device.assertClean();
    });
  }

  test('the commands are one word where they must be, whatever was typed', async (t) => {
    const device = await openDevice(t, server.origin, { permissions: ['clipboard-read', 'clipboard-write'] });
    const page = await device.open('/static/events.html');
    await page.getByLabel('Data, any JSON').fill(`{"text":"it's $(here)"}`);
    await page.locator('.command').nth(1).getByRole('button', { name: 'Copy' }).click();
    await page.getByRole('button', { name: 'Copied' }).waitFor();
    const command = await page.evaluate(() => navigator.clipboard.readText());
    assert.ok(command.includes(String.raw`-d '{"to":{"user":"alice"},"type":"note.new","data":{"text":"it'\''s $(here)"}}'`), command);
    await device.assertClean();
  });
});
