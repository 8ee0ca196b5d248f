// Chromium's own EventSource on the twelve lines of page.html, driven by playwright-core in Debian's Chromium.
// With the cookie the page shares the origin of the server (both are behind the proxy); with a ticket it comes from
// `localhost`, which is another site than 127.0.0.1. Frames are fetched from the page in order, never pushed.
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { chromium } from 'playwright-core';
import { token } from '../server.js';

const PAGE = readFileSync(path.join(import.meta.dirname, 'page.html'), 'utf8');
const FETCH_EVERY_MS = 50;

export function launchChromium() {
  return chromium.launch({
    executablePath: process.env.CHROMIUM_BIN ?? '/usr/bin/chromium',
    args: [
      '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
      '--disable-component-update', '--disable-sync',
    ],
  });
}

export function chromiumReader({ cookie }) {
  return async (proxy, user, journal) => {
    proxy.serve('/page.html', PAGE);
    const browser = await launchChromium();
    const page = await browser.newPage();
    page.on('pageerror', (error) => journal.fault(`page error: ${error.message}`));
    await page.goto(await (cookie ? cookiePage(page, proxy, user) : ticketPage(proxy, user)));
    const fetching = fetchFrames(page, journal);
    return async () => {
      await browser.close();
      await fetching;
    };
  };
}

async function ticketPage(proxy, user) {
  const { ticket } = await send(proxy, '/v1/tickets', token(user)).then((answer) => answer.json());
  const events = encodeURIComponent(`${proxy.origin}/v1/events?cursor=start&ticket=${ticket}`);
  return `${proxy.origin.replace('127.0.0.1', 'localhost')}/page.html?events=${events}`;
}

/** The session is begun from a page of the same origin, so that the browser itself stores the cookie. */
async function cookiePage(page, proxy, user) {
  const events = encodeURIComponent('/v1/events?cursor=start');
  proxy.serve('/blank.html', '<!doctype html>');
  await page.goto(`${proxy.origin}/blank.html`);
  const status = await page.evaluate(async (bearer) => {
    const headers = { authorization: `Bearer ${bearer}` };
    return (await fetch('/v1/session', { method: 'POST', headers })).status;
  }, token(user));
  if (status >= 300) throw new Error(`POST /v1/session: ${status}`);
  const visible = await page.evaluate(() => document.cookie);
  if (visible !== '') throw new Error('the session cookie can be read by scripts');
  return `${proxy.origin}/page.html?cookie&events=${events}`;
}

async function send(proxy, path, bearer) {
  const answer = await fetch(proxy.origin + path, { method: 'POST', headers: { authorization: `Bearer ${bearer}` } });
  if (!answer.ok) throw new Error(`POST ${path}: ${answer.status} ${await answer.text()}`);
  return answer;
}

async function fetchFrames(page, journal) {
  const state = { seen: 0, gaveUp: false };
  while (!page.isClosed()) {
    const fresh = await page
      .evaluate((seen) => ({ frames: window.frames_seen.slice(seen), gaveUp: window.gave_up }), state.seen)
      .catch(() => null);
    if (fresh === null) break;
    state.seen += fresh.frames.length;
    for (const [id, data] of fresh.frames) journal.frame(data, id);
    if (fresh.gaveUp && !state.gaveUp) journal.fault('EventSource gave up');
    state.gaveUp = fresh.gaveUp;
    await pause(FETCH_EVERY_MS);
  }
}
