import type { Clock } from "../../core/clock.ts";
import { type ErrorReport, KoineError, toKoineError } from "../../core/errors.ts";
import type { Limits } from "../../core/limits.ts";
import type { Logger } from "../../core/telemetry.ts";
import { Batcher } from "../../triggers/batch.ts";
import { compilePattern, type EventFilter } from "../../triggers/pattern.ts";
import type { Emit, Emitted, PullKind, SourceHost, SourceReport } from "../../triggers/trigger.ts";
import type { Checkpoints } from "./checkpoints.ts";
import { type Deliveries, orderingKeyOf, pause, toInvocation } from "./delivery.ts";
import type { TriggerCounts } from "./counts.ts";
import type { Trigger } from "./record.ts";

/** How a running trigger is. `finished`: its source has nothing more to say, ever. */
export type RunState = "starting" | "connecting" | "connected" | "failing" | "finished" | "stopped";

export interface RunStatus {
  readonly state: RunState;
  readonly detail: string;
  readonly error: (ErrorReport & { readonly atMs: number }) | null;
  readonly restarts: number;
  readonly lag: NonNullable<SourceReport["lag"]> | null;
  readonly lastEventAtMs: number | null;
}

export interface RunnerParts {
  readonly clock: Clock;
  readonly limits: Limits;
  readonly logger: Logger;
  readonly checkpoints: Checkpoints;
  readonly deliveries: Deliveries;
  readonly counts: TriggerCounts;
  /** Values of the named secrets. @throws KoineError `secret-not-found` */
  openSecrets(namespace: string, names: readonly string[]): Promise<Readonly<Record<string, string>>>;
  isOver(activationId: string): Promise<boolean>;
  readonly random: () => number;
}

/** A run that lasted so long was a good one: the next failure waits as the first did. */
const GOOD_RUN_MS = 60_000;
const SECRET_LENGTH_MIN = 4;

/** Keeps one pulling trigger running: opens its source, hands its events to the queue, and opens it anew with backoff when it fails. */
export class Runner {
  readonly #trigger: Trigger;
  readonly #kind: PullKind;
  readonly #secretNames: readonly string[];
  readonly #parts: RunnerParts;
  readonly #matches: EventFilter | null;
  readonly #stopping = new AbortController();
  #running: Promise<void> = Promise.resolve();
  #status: RunStatus = { state: "starting", detail: "", error: null, restarts: 0, lag: null, lastEventAtMs: null };

  constructor(trigger: Trigger, kind: PullKind, parts: RunnerParts & { readonly secretNames: readonly string[] }) {
    this.#trigger = trigger;
    this.#kind = kind;
    this.#parts = parts;
    this.#secretNames = parts.secretNames;
    this.#matches = trigger.filter === null ? null : compilePattern(trigger.filter);
  }

  get status(): RunStatus {
    return this.#status;
  }

  get trigger(): Trigger {
    return this.#trigger;
  }

  /** Never rejects; ends with `stop`, or when the source has finished. */
  start(): Promise<void> {
    this.#running = this.#keepRunning();
    return this.#running;
  }

  /** Resolves when the source has let go, or has taken too long to. */
  async stop(): Promise<void> {
    this.#stopping.abort(new KoineError("shutting-down"));
    const { clock, limits, logger } = this.#parts;
    const { promise: late, resolve } = Promise.withResolvers<"late">();
    const cancel = clock.after(limits.triggerStopMsMax, () => resolve("late"));
    const how = await Promise.race([this.#running.then(() => "ended" as const), late]);
    cancel();
    if (how === "late") logger.log("warn", "a source did not let go in time", this.#names());
  }

  async #keepRunning(): Promise<void> {
    const { clock, limits, logger, random } = this.#parts;
    const { signal } = this.#stopping;
    let failures = 0;
    while (!signal.aborted) {
      const startedMs = clock.monotonicMs();
      const acceptedBefore = this.#parts.counts.delivered;
      try {
        await this.#runOnce(signal);
        if (!signal.aborted) {
          this.#set({ state: "finished" });
          return;
        }
      } catch (thrown) {
        if (signal.aborted) break;
        const good = clock.monotonicMs() - startedMs >= GOOD_RUN_MS || this.#parts.counts.delivered > acceptedBefore;
        failures = good ? 1 : failures + 1;
        const error = { ...this.#shown(thrown), atMs: clock.nowMs() };
        const longestMs = Math.min(limits.triggerBackoffMsMin * 2 ** (failures - 1), limits.triggerBackoffMsMax);
        const waitMs = Math.round(longestMs * (0.5 + random() / 2));
        this.#set({ state: "failing", error, restarts: this.#status.restarts + 1 });
        if (failures === 1 || failures % 10 === 0)
          logger.log("warn", "an event source failed and is tried again", {
            ...this.#names(),
            error: error.message,
            waitMs,
          });
        await pause(clock, waitMs, signal).catch(() => {});
      }
    }
    this.#set({ state: "stopped" });
  }

  async #runOnce(stopped: AbortSignal): Promise<void> {
    this.#set({ state: "starting" });
    const { clock, checkpoints, logger, random, openSecrets } = this.#parts;
    const { id, namespace, name, settings } = this.#trigger;
    // From here on what is written is fenced by what is there now.
    await checkpoints.read(id);
    const secrets = await openSecrets(namespace, this.#secretNames);
    this.#secretValues = Object.values(secrets);
    // What one event could not do must end the run: its source would wait for it for ever otherwise.
    const failed = new AbortController();
    const signal = AbortSignal.any([stopped, failed.signal]);
    const host: SourceHost = {
      trigger: { id, namespace, name },
      clock,
      random,
      logger: {
        log: (level, message, fields) => logger.log(level, this.#scrub(message), { ...this.#names(), ...fields }),
      },
      checkpoint: {
        read: () => checkpoints.read(id),
        write: (position) => {
          // Whatever a source does after its run has ended is not this trigger's business any more.
          if (!run.ended) return checkpoints.write(id, position);
          return Promise.reject(new KoineError("conflict", { name: `the checkpoint of trigger ${name}` }));
        },
      },
      secret: ({ secret }) => {
        const value = secrets[secret];
        if (value === undefined) throw new KoineError("secret-not-found", { name: secret, namespace });
        return value;
      },
      isOver: (activationId) => this.#parts.isOver(activationId),
      report: (report) => this.#report(report),
    };
    const run = { ended: false };
    const emit = this.#emitter(signal, (reason) => failed.abort(reason));
    try {
      await this.#kind.open(settings, host).run(emit, signal);
    } catch (thrown) {
      throw failed.signal.aborted ? failed.signal.reason : thrown;
    } finally {
      run.ended = true;
    }
    if (failed.signal.aborted) throw failed.signal.reason;
  }

  #emitter(signal: AbortSignal, fail: (reason: unknown) => void): Emit {
    const { clock, limits, deliveries, counts } = this.#parts;
    const { batch, ordering } = this.#trigger;
    const batcher = new Batcher<Emitted>(
      { size: batch?.size ?? 1, windowMs: batch?.windowMs ?? 0, bytes: limits.triggerBatchBytesMax - 1_024 },
      {
        clock,
        ordered: ordering !== "none",
        deliver: async (events) => {
          try {
            const [accepted] = await deliveries.putPatiently(
              [toInvocation(this.#trigger, events, clock.nowMs())],
              signal,
            );
            counts.add("delivered", events.length);
            return { activationId: accepted?.activationId ?? null };
          } catch (thrown) {
            if (!signal.aborted) counts.add("failed", events.length);
            fail(thrown);
            throw thrown;
          }
        },
      },
    );
    return async (event) => {
      signal.throwIfAborted();
      counts.add("received", 1);
      this.#status = { ...this.#status, lastEventAtMs: clock.nowMs() };
      if (this.#matches !== null && !this.#matches(event)) {
        counts.add("filtered", 1);
        return { activationId: null };
      }
      const bytes = batch === null ? 0 : Buffer.byteLength(JSON.stringify(event)) + 1;
      return await batcher.add(event, orderingKeyOf(ordering, event), bytes);
    };
  }

  #report({ state, lag, detail }: SourceReport): void {
    this.#set({
      ...(state === undefined ? {} : { state }),
      ...(lag === undefined ? {} : { lag }),
      ...(detail === undefined ? {} : { detail: this.#scrub(detail) }),
    });
    if (lag !== undefined) this.#parts.counts.lag(lag);
  }

  #set(change: Partial<RunStatus>): void {
    // An error stays visible until events can come again.
    const error = change.state === "connected" || change.state === "finished" ? { error: null } : {};
    this.#status = { ...this.#status, ...error, ...change };
  }

  #secretValues: readonly string[] = [];

  /** Client libraries put addresses and passwords into their messages. */
  #scrub(text: string): string {
    let clean = text.replaceAll(/(\w+:\/\/[^\s/:@]*):[^\s/@]+@/g, "$1:***@");
    for (const value of this.#secretValues)
      if (value.length >= SECRET_LENGTH_MIN)
        clean = clean.replaceAll(value, "***").replaceAll(encodeURIComponent(value), "***");
    return clean;
  }

  #shown(thrown: unknown): ErrorReport {
    const error =
      thrown instanceof KoineError
        ? thrown
        : new KoineError("source-failed", { detail: messageOf(thrown) }, { cause: thrown });
    const report = toKoineError(error).report();
    const values = Object.fromEntries(
      Object.entries(report.values ?? {}).map(([name, value]) => [
        name,
        typeof value === "string" ? this.#scrub(value) : value,
      ]),
    );
    return { ...report, message: this.#scrub(report.message), values };
  }

  #names(): Readonly<Record<string, string>> {
    const { namespace, name, kind } = this.#trigger;
    return { namespace, trigger: name, kind };
  }
}

/** Some libraries throw errors without a message that hold others. */
function messageOf(thrown: unknown): string {
  if (thrown instanceof AggregateError && thrown.errors.length > 0) return thrown.errors.map(messageOf).join("; ");
  if (!(thrown instanceof Error)) return String(thrown);
  if (thrown.message !== "") return thrown.message;
  return "code" in thrown && typeof thrown.code === "string" ? thrown.code : thrown.name;
}
