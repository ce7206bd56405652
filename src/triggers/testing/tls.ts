import assert from "node:assert/strict";
import { test } from "node:test";
import { systemClock } from "../../core/clock.ts";
import type { PullKind, SourceHost } from "../trigger.ts";
import type { Broker } from "./brokers.ts";

/** Tells that the encrypted port of a server is reached when its certificate is known, and only then. */
export function tlsStory(
  name: string,
  kind: PullKind,
  settingsOf: (broker: Broker) => Readonly<Record<string, unknown>>,
  broker: () => Broker,
): void {
  void test(`${name}: the server's certificate is checked`, async () => {
    const { ca, password } = broker();
    const host: SourceHost = {
      trigger: { id: "t-tls", namespace: "default", name: "t" },
      clock: systemClock,
      checkpoint: { read: () => Promise.resolve(null), write: () => Promise.resolve() },
      logger: { log: () => {} },
      secret: () => password,
      report: () => {},
      isOver: () => Promise.resolve(false),
      random: () => 0.5,
    };
    const look = async (tls: Readonly<Record<string, unknown>>): Promise<void> => {
      const signal = AbortSignal.timeout(20_000);
      await kind.check?.(kind.parse({ ...settingsOf(broker()), tls }), host, signal);
    };
    await look({ ca });
    await assert.rejects(look({}), (error: Error) => /certificate|self.signed/i.test(shown(error)));
  });
}

/** Libraries hide reasons in causes. */
function shown(error: unknown): string {
  if (!(error instanceof Error)) return "";
  const inner = error instanceof AggregateError ? (error.errors as readonly unknown[]) : [];
  return [error.message, ...[error.cause, ...inner].map(shown)].join(" ");
}
