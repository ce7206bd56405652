import { randomUUID } from "node:crypto";
import { z } from "zod";
import type { CloudEvent } from "../../core/event.ts";
import { limits } from "../../core/limits.ts";
import { eventOf } from "../connection/content.ts";
import { type Emit, type PullKind, pullKind, type SourceHost, type TriggerSource } from "../trigger.ts";
import { connect, connectionSettings, Nap, quotedWhole, sourceOf } from "./connect.ts";

/** An idle connection is asked now and then, because one that is silent says nothing about whether it is there. */
const ALIVE_EVERY_MS = 10_000;

const schema = z.strictObject({
  ...connectionSettings,
  channels: z
    .array(z.string().min(1).max(63))
    .min(1)
    .max(64)
    .meta({ description: "Channels; exactly as they are written in the catalogue.", examples: [["orders"]] }),
});

type Settings = z.output<typeof schema>;

/** Notifications of PostgreSQL. The server keeps none for who is not connected: this is at most once, and an outbox is for what must not be lost. */
export function createPostgresListenKind(): PullKind {
  return pullKind({
    name: "postgres-listen",
    summary: "notifications (NOTIFY) of PostgreSQL; those sent while nobody listens are lost: at most once",
    settings: schema,
    abilities: { ordering: false, replay: false },
    open: (settings, host) => new Listen(settings, host),
    async check(settings, host, signal) {
      const database = await connect(settings, host, signal);
      await database.close();
    },
    sample: (settings) => notificationEvent(settings, settings.channels[0] ?? "", '{"hello":"world"}'),
  });
}

class Listen implements TriggerSource {
  readonly #settings: Settings;
  readonly #host: SourceHost;

  constructor(settings: Settings, host: SourceHost) {
    this.#settings = settings;
    this.#host = host;
  }

  async run(emit: Emit, signal: AbortSignal): Promise<void> {
    const { client, lost, close } = await connect(this.#settings, this.#host, signal);
    const pending = new Set<Promise<unknown>>();
    try {
      const { stream } = client.connection;
      client.on("notification", ({ channel, payload = "" }) => {
        const accepted = emit(notificationEvent(this.#settings, channel, payload)).then(
          () => {},
          // The host ends the run; the notification is gone.
          () => {},
        );
        pending.add(accepted);
        // The server keeps what a connection does not read.
        if (pending.size >= limits.triggerInFlightMax) stream.pause();
        void accepted.then(() => {
          pending.delete(accepted);
          if (pending.size < limits.triggerInFlightMax / 2) stream.resume();
        });
      });
      for (const channel of this.#settings.channels) await client.query(`LISTEN ${quotedWhole(channel)}`);
      this.#host.report({ state: "connected", detail: "at most once: notifications sent while it is away are lost" });
      const nap = new Nap();
      for (;;) {
        await Promise.race([nap.take(this.#host, ALIVE_EVERY_MS, signal), lost]);
        signal.throwIfAborted();
        if (pending.size < limits.triggerInFlightMax / 2) await client.query("SELECT 1");
      }
    } finally {
      await close();
      await Promise.all(pending);
    }
  }
}

function notificationEvent({ url }: Settings, channel: string, payload: string): CloudEvent {
  return eventOf(payload, {
    id: randomUUID(),
    source: `${sourceOf(url)}/${encodeURIComponent(channel)}`,
    type: "koine.postgres.notification",
    subject: channel,
  });
}
