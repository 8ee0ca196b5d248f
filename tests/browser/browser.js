// Debian's Chromium, and the demo as a person uses it: signed in, looked at, written to.
// Promises: every page watches for what must never be: an error of a script, a refusal by the Content-Security-Policy, the
// canary `__pwned`; waiting is always for something that can be seen, with a bound that a slow machine keeps.
import assert from 'node:assert/strict';
import { chromium } from 'playwright-core';
import { startServer } from '../client/server.js';

export const WAIT_MS = 30_000;
const CHROMIUM = process.env.CHROMIUM ?? '/usr/bin/chromium';
let browser = null;

export async function openBrowser() {
  browser ??= await chromium.launch({ executablePath: CHROMIUM, args: ['--no-sandbox', '--disable-dev-shm-usage', '--disable-gpu'] });
  return browser;
}

export async function closeBrowser() {
  await browser?.close();
  browser = null;
}

export const startDemo = (settings = {}) => startServer({ 'demo.enabled': true, ...settings });

/** One device: its own cookies and storage. `as` opens a tab of it, signed in. */
export async function openDevice(t, origin, options = {}) {
  const context = await (await openBrowser()).newContext({ viewport: { width: 1100, height: 760 }, ...options });
  context.setDefaultTimeout(WAIT_MS);
  await context.addInitScript(watch);
  const pages = [];
  t.after(() => context.close());

  async function open(address) {
    const page = await context.newPage();
    page.errors = [];
    page.on('pageerror', (error) => page.errors.push(String(error)));
    page.on('dialog', (dialog) => {
      page.errors.push(`dialog: ${dialog.message()}`);
      void dialog.dismiss();
    });
    pages.push(page);
    await page.goto(`${origin}${address}`);
    return page;
  }

  return {
    context,
    open,
    async as(user, place = '') {
      const page = await open(`/?as=${user}${place}`);
      await connected(page);
      return page;
    },
    /** What must never have happened on any page of this device. */
    async assertClean() {
      for (const page of pages.filter((page) => !page.isClosed())) {
        const { pwned, refusals } = await page.evaluate(() => ({ pwned: window.__pwned ?? null, refusals: window.__refusals }));
        assert.deepEqual({ pwned, refusals, errors: page.errors }, { pwned: null, refusals: [], errors: [] }, page.url());
      }
    },
  };
}

function watch() {
  window.__refusals = [];
  document.addEventListener('securitypolicyviolation', (event) => window.__refusals.push(`${event.violatedDirective} ${event.blockedURI} ${event.sample}`));
}

export const status = (page, name) => page.locator(`.connection[data-status=${name}]`).waitFor();
export const connected = (page) => status(page, 'connected');
export const transport = (page, name) => page.locator(`.connection[data-status=connected][data-transport=${name}]`).waitFor();

/** Makes a conversation by the demo's own dialog and leaves it open. Returns its id. */
export async function startConversation(page, members, name = '') {
  await page.getByRole('button', { name: 'New conversation' }).click();
  await page.getByLabel('With whom').fill(members);
  if (name !== '') await page.getByLabel('Name of the group').fill(name);
  await page.getByRole('dialog').getByRole('button', { name: 'Start' }).click();
  await field(page).waitFor();
  return conversationOf(page);
}

export const conversationOf = (page) => decodeURIComponent(new URL(page.url()).hash.split('/')[2]);
export const field = (page) => page.getByRole('textbox', { name: 'Message' });

export async function write(page, text) {
  await field(page).fill(text);
  await field(page).press('Enter');
}

export const messageWith = (page, text) => page.locator('.message', { has: page.locator('.content', { hasText: exactly(text) }) });
export const exactly = (text) => new RegExp(`^${text.replace(/[.*+?^${}()|[\]\\]/g, String.raw`\$&`)}$`);
export const seen = (page, text) => messageWith(page, text).waitFor();
export const ticked = (page, text, tick) => messageWith(page, text).locator(`.tick[data-status=${tick}]`).waitFor();
export const texts = (page) => page.locator('.message .content').allTextContents();

/** Waits until the messages shown are these, in this order. */
export async function shows(page, wanted) {
  await page.waitForFunction((wanted) => {
    const shown = [...document.querySelectorAll('.message .content')].map((node) => node.textContent);
    return JSON.stringify(shown) === JSON.stringify(wanted);
  }, wanted).catch(async () => assert.deepEqual(await texts(page), wanted));
}

/** What a backend does, by the demo's own door. */
export async function act(origin, body) {
  const answer = await fetch(`${origin}/demo/act`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) });
  assert.equal(answer.status, 201, await answer.clone().text());
  return answer.json();
}
