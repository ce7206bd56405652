/**
 * Whether the function has work left, as Node itself would see it before it ends a program: what keeps the event loop alive, beside what did before
 * the function was loaded.
 */

const LOOK_MS_MIN = 1;
const LOOK_MS_MAX = 20;

/** @type {Map<string, number>} */
let own = new Map();

/** To be called before anything of the function runs. */
export function rememberLoop() {
  own = counted();
  // None of the platform's timers keeps the loop alive.
  own.delete("Timeout");
}

/** Resolves when nothing is left to be waited for. */
export async function emptyLoop() {
  await new Promise((resolve) => setImmediate(resolve));
  for (let waitMs = LOOK_MS_MIN; !isEmpty(); waitMs = Math.min(LOOK_MS_MAX, waitMs * 2)) {
    // A timer that does not count itself; the platform's channel keeps the process alive.
    await new Promise((resolve) => setTimeout(resolve, waitMs).unref());
  }
}

function isEmpty() {
  for (const [type, count] of counted()) if (count > (own.get(type) ?? 0)) return false;
  return true;
}

function counted() {
  const counts = new Map();
  for (const type of process.getActiveResourcesInfo()) counts.set(type, (counts.get(type) ?? 0) + 1);
  return counts;
}
