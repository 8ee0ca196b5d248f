// The types of parser.js: an incremental reader of server-sent events.
// Promises: the same frames whatever the split of the input; nothing of Tidings in here.

export interface SseFrame {
  /** `message` when the frame has no name. */
  event: string;
  data: string;
  /** The last `id:` seen on this stream, as `lastEventId` is. */
  id: string;
}

export interface Parser {
  text(text: string): void;
  bytes(bytes: Uint8Array): void;
}

/** Throws a RangeError out of `text` and `bytes` when one frame is longer than `frame_chars_max`. */
export const createParser: (
  onFrame: (frame: SseFrame) => void,
  options?: { onRetry?: (ms: number) => void; frame_chars_max?: number },
) => Parser;
