/** An idle instance as the keep-alive decision sees it. */
export interface IdleView<Key> {
  readonly key: Key;
  readonly idleSinceMs: number;
  readonly idleTimeoutMs: number;
}

export interface KeepAliveDecision<Key> {
  readonly stop: readonly Key[];
  /** When to decide again; null: nothing is idle. */
  readonly nextAtMs: number | null;
}

/** Stops what has been idle for its timeout; one pass, no order needed. */
export function decideKeepAlive<Key>(idle: Iterable<IdleView<Key>>, nowMs: number): KeepAliveDecision<Key> {
  const stop: Key[] = [];
  let nextAtMs: number | null = null;
  for (const view of idle) {
    const dueMs = view.idleSinceMs + view.idleTimeoutMs;
    if (dueMs <= nowMs) stop.push(view.key);
    else if (nextAtMs === null || dueMs < nextAtMs) nextAtMs = dueMs;
  }
  return { stop, nextAtMs };
}

/** The instance whose loss hurts least: the one that has been idle longest; null when none is idle. */
export function decideEviction<Key>(idle: Iterable<IdleView<Key>>): Key | null {
  let oldest: IdleView<Key> | null = null;
  for (const view of idle) {
    if (oldest === null || view.idleSinceMs < oldest.idleSinceMs) oldest = view;
  }
  return oldest === null ? null : oldest.key;
}
