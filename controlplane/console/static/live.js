// The gateway's stream of events says when a page has to be drawn again. While it is not there, pages ask by themselves.

const SETTLE = 300; // Milliseconds: the projection is a moment behind the log.
const TOO_MANY = 100; // Records a second of which a page cannot show each: asking now and then costs less.
const AGAIN = 15_000;

let source = null;
let followed = "";
let notBefore = 0;
let count = 0, second = 0;

export const following = () => source?.readyState === EventSource.OPEN;

export function leave(wait = 0) {
  source?.close();
  source = null;
  notBefore = Date.now() + wait;
}

function tooMany() {
  const now = Math.floor(Date.now() / 1000);
  if (now !== second) { second = now; count = 0; }
  return ++count > TOO_MANY;
}

// Calls `moved` a moment after a record of these came, `changed` when the stream came or went.
export function follow(query, moved, changed) {
  const wanted = query && `/v1/events/stream?${new URLSearchParams(query)}`;
  if (wanted === followed && source && source.readyState !== EventSource.CLOSED) return;
  if (wanted !== followed) leave();
  followed = wanted;
  if (!wanted || Date.now() < notBefore) return;
  leave(AGAIN); // Should it be refused, it is tried again then.
  const own = source = new EventSource(wanted);
  own.onopen = changed;
  own.onerror = changed; // The browser connects again by itself, and goes on behind the last record.
  own.onmessage = () => {
    if (tooMany()) { leave(AGAIN); changed(); }
    else moved(SETTLE);
  };
}
