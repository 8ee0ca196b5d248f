// What one client was given, in order, and whether it kept the promises of PROTOCOL.md section 1.
// A connection begins with `ready`. On one connection seqs rise by one from the position that `ready` names; an event
// that comes again on a later connection is the same to the byte; nothing is missing; no `reset` comes.
// It collects every broken promise as a sentence and never throws while the client runs.
const FAULTS_KEPT = 20;

export class Journal {
  constructor() {
    this.events = [];
    this.byId = new Map();
    this.connections = 0;
    this.duplicates = 0;
    this.faults = [];
    this.expectedSeq = null;
    this.onProgress = () => {};
  }

  get headSeq() {
    return this.events.at(-1)?.seq ?? 0;
  }

  fault(sentence) {
    if (this.faults.length < FAULTS_KEPT) this.faults.push(`connection ${this.connections}: ${sentence}`);
  }

  /** One frame as a client handed it over. `cursor` is the id of an SSE frame, null where the transport has none. */
  frame(text, cursor = null) {
    let content;
    try {
      content = JSON.parse(text);
    } catch {
      return this.fault(`not JSON: ${String(text).slice(0, 80)}`);
    }
    if (content.type.startsWith('sys.')) this.control(content);
    else if (content.ephemeral !== true) this.event(content, text, cursor);
    this.onProgress();
  }

  control(content) {
    if (content.type === 'sys.ready') {
      this.connections += 1;
      this.expectedSeq = seqOf(content.cursor) + 1;
      if (this.expectedSeq > this.headSeq + 1) this.fault(`ready at ${content.cursor}, but the last event was ${this.headSeq}`);
    } else if (content.type === 'sys.reset' || content.type === 'sys.error') {
      this.fault(`unexpected ${JSON.stringify(content)}`);
    }
  }

  event(content, text, cursor) {
    if (this.expectedSeq === null) this.fault(`event ${content.seq} before ready`);
    else if (content.seq !== this.expectedSeq) this.fault(`event ${content.seq} where ${this.expectedSeq} was due`);
    this.expectedSeq = content.seq + 1;
    if (seqOf(content.cursor) !== content.seq) this.fault(`event ${content.seq} has the cursor ${content.cursor}`);
    if (cursor !== null && cursor !== content.cursor) this.fault(`event ${content.cursor} came with the id ${cursor}`);
    const before = this.byId.get(content.id);
    if (before === undefined) {
      this.byId.set(content.id, text);
      this.events.push(content);
    } else {
      this.duplicates += 1;
      if (before !== text) this.fault(`event ${content.seq} came again with other content`);
    }
  }

  /** Broken promises, given what was published: `[{id, data}]` in order to an empty log. Empty means all are kept. */
  verdict(published) {
    const faults = [...this.faults];
    if (this.events.length !== published.length) {
      faults.push(`${this.events.length} events for ${published.length} published`);
    }
    for (const [at, event] of this.events.entries()) {
      const wanted = published[at];
      if (event.seq !== at + 1) faults.push(`place ${at + 1} holds seq ${event.seq}`);
      if (event.id !== wanted?.id) faults.push(`place ${at + 1} holds id ${event.id}, published was ${wanted?.id}`);
      else if (JSON.stringify(event.data) !== JSON.stringify(wanted.data)) faults.push(`seq ${event.seq} has other data`);
      if (faults.length >= FAULTS_KEPT) break;
    }
    return faults;
  }

  /** Resolves when the event with this seq has come; rejects after the deadline with what was seen. */
  reached(seq, deadlineMs) {
    return new Promise((done, fail) => {
      const timer = setTimeout(() => {
        const seen = `${this.events.length} events, ${this.connections} connections, ${this.faults.join('; ') || 'no faults'}`;
        fail(new Error(`seq ${seq} did not come within ${deadlineMs} ms; head ${this.headSeq}, ${seen}`));
      }, deadlineMs);
      this.onProgress = () => {
        if (this.headSeq < seq) return;
        clearTimeout(timer);
        done();
      };
      this.onProgress();
    });
  }
}

function seqOf(cursor) {
  return Number(/^[a-z0-9]{6}-(\d+)$/.exec(cursor)?.[1] ?? NaN);
}
