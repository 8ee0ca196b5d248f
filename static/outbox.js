// @ts-check
// Commands on their way out: kept in order until the server has confirmed them, through lost connections and reloads.
// Promises: a command is dropped only when the server confirmed or refused it; one is under way at a time, so that what
// was written first arrives first; a repeat carries the same ids, so the server stores nothing twice. Bounded.
import { TidingsError, isPassing } from './error.js';
import { isCommand, replaceKey } from './commands.js';

const QUEUE_MAX = 500;

/**
 * @typedef {import('./internal.js').Command} Command
 * @typedef {{ resolve: (value: any) => void, reject: (error: any) => void }} Waiter
 * @typedef {{ command: Command, waiters: Waiter[] }} Entry
 */

/**
 * @param {{
 *   env: import('./tidings.js').Environment, timing: import('./tidings.js').Timing, log: import('./internal.js').Log,
 *   perform: (command: Command) => Promise<any>,
 *   told: (command: Command, status: 'queued' | 'sent' | 'failed', result: any) => void }} parts
 */
export function createOutbox({ env, timing, log, perform, told }) {
  /** @type {Entry[]} */
  const entries = [];
  /** @type {string | null} */
  let storage_key = null;
  /** @type {Entry | null} */
  let underWay = null;
  let isPaused = true;
  let attempt = 0;
  /** @type {unknown} */
  let timer = null;
  let notBefore = 0;

  /** What was not sent before a reload stands first. @param {string} key */
  function restore(key) {
    if (storage_key === key) return;
    storage_key = key;
    /** @type {Command[]} */
    let kept = [];
    try {
      const read = JSON.parse(env.storage?.getItem(key) || '[]');
      kept = Array.isArray(read) ? read.filter(isCommand).slice(0, QUEUE_MAX) : [];
    } catch (error) {
      log('unsent commands could not be read', error);
    }
    entries.unshift(...kept.map((command) => ({ command, waiters: [] })));
    keep();
    for (const command of kept) told(command, 'queued', null);
  }

  function keep() {
    if (storage_key === null) return;
    try {
      if (entries.length === 0) env.storage?.removeItem(storage_key);
      else env.storage?.setItem(storage_key, JSON.stringify(entries.map(({ command }) => command)));
    } catch (error) {
      log('unsent commands could not be stored', error);
    }
  }

  /**
   * @param {Command} command
   * @returns {Promise<any>}
   */
  function add(command) {
    const key = replaceKey(command);
    const waiting = key === null ? undefined : entries.find((entry) => entry !== underWay && replaceKey(entry.command) === key);
    if (waiting === undefined && entries.length >= QUEUE_MAX) {
      return Promise.reject(new TidingsError({ status: 0, code: 'queue_full', message: 'too many commands wait to be sent' }));
    }
    return new Promise((resolve, reject) => {
      const waiter = { resolve, reject };
      if (waiting === undefined) entries.push({ command, waiters: [waiter] });
      else {
        // A read mark never goes back, not even in the queue.
        const isOlder = command.op === 'read' && waiting.command.upto > command.upto;
        if (!isOlder) waiting.command = command;
        waiting.waiters.push(waiter);
      }
      keep();
      told(command, 'queued', null);
      go();
    });
  }

  function go() {
    if (isPaused || underWay !== null || timer !== null || entries.length === 0) return;
    const entry = entries[0];
    underWay = entry;
    perform(entry.command).then((value) => settle(entry, 'sent', value), (error) => failed(entry, error));
  }

  /**
   * @param {Entry} entry
   * @param {'sent' | 'failed'} status
   * @param {any} result
   */
  function settle(entry, status, result) {
    underWay = null;
    attempt = 0;
    notBefore = 0;
    entries.splice(entries.indexOf(entry), 1);
    keep();
    told(entry.command, status, result);
    for (const { resolve, reject } of entry.waiters) (status === 'sent' ? resolve : reject)(result);
    go();
  }

  /**
   * @param {Entry} entry
   * @param {any} error
   */
  function failed(entry, error) {
    if (!isPassing(error)) return settle(entry, 'failed', error);
    underWay = null;
    const most_ms = Math.min(timing.backoff_max_ms, timing.backoff_ms * 2 ** attempt);
    attempt = Math.min(attempt + 1, 30);
    const asked_ms = error?.retry_after_ms ?? 0;
    const wait_ms = Math.max(asked_ms, env.random() * most_ms);
    notBefore = env.now() + asked_ms;
    log('a command waits', entry.command.op, error?.code, Math.round(wait_ms));
    wait(wait_ms);
  }

  /** @param {number} ms */
  function wait(ms) {
    env.clearTimeout(timer);
    timer = env.setTimeout(() => {
      timer = null;
      go();
    }, ms);
  }

  return {
    add,
    restore,
    /** The way is free, as far as is known: no more waiting, but for what the server asked. */
    kick() {
      isPaused = false;
      attempt = 0;
      if (timer === null) return go();
      wait(Math.max(0, notBefore - env.now()));
    },
    pause() {
      isPaused = true;
    },
    list: () => entries.map(({ command }) => ({ ...command })),
  };
}
