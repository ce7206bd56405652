import { createPostgresListenKind } from "./postgres/listen.ts";
import { createPostgresOutboxKind } from "./postgres/outbox.ts";
import type { PullKind } from "./trigger.ts";

/** PostgreSQL, from version 9.5 on: an outbox table, and notifications. */
export function createPostgresKinds(): readonly PullKind[] {
  return [createPostgresOutboxKind(), createPostgresListenKind()];
}
