// What every test of the client begins with: a clock, a server, a browser, and clients in its tabs that note what they hear.
// Promises: each test has its own; nothing is shared and nothing goes out of the process.
import { createTidings } from '../../static/tidings.js';
import { createBrowser } from './browser.js';
import { createClock } from './clock.js';
import { createServer } from './server.js';

export function createWorld() {
  const clock = createClock();
  const server = createServer(clock);
  const browser = createBrowser(clock, server);

  /** A client in a tab of its own, or in the given one. */
  function client(options = {}, tab = browser.tab()) {
    const tidings = createTidings({ token: 't1', tabs: false, ...options, environment: { ...tab.environment, ...options.environment } });
    const heard = { events: [], statuses: [], states: [], live: [] };
    tidings.on('*', (event) => (event.ephemeral ? heard.live : heard.events).push(event));
    tidings.on('sys.status', ({ data }) => heard.statuses.push(data));
    tidings.on('sys.state', ({ data }) => heard.states.push(data));
    return {
      tidings, tab, heard,
      seqs: () => heard.events.map(({ seq }) => seq),
      names: () => heard.statuses.map(({ status, reason }) => `${status} ${reason}`).filter((name, at, all) => name !== all[at - 1]),
    };
  }

  async function connected(options, tab) {
    const made = client(options, tab);
    made.tidings.connect();
    await clock.settle();
    return made;
  }

  /** The requests that opened a stream or asked for a page of it. */
  const openings = () => server.requests.filter(({ path }) => path === '/v1/events' || path === '/v1/ws');
  return { clock, server, browser, client, connected, openings };
}

export const count = (values, value) => values.filter((each) => each === value).length;
