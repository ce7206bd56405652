import { createRedisListKind } from "./redis/lists.ts";
import { createRedisStreamKind } from "./redis/streams.ts";
import type { PullKind } from "./trigger.ts";

/** Redis, and servers that speak its protocol, from version 6.2 on: streams by consumer group, and lists. */
export function createRedisKinds(): readonly PullKind[] {
  return [createRedisStreamKind(), createRedisListKind()];
}
