import { createHash } from "node:crypto";
import { z } from "zod";
import type { Clock } from "../core/clock.ts";
import { KoineError } from "../core/errors.ts";
import type { CloudEvent } from "../core/event.ts";
import { limits } from "../core/limits.ts";
import { cronSlots, momentSlots, parseMoment, rateMs, rateSlots, type Slots } from "./schedule/slots.ts";
import { Timeline } from "./schedule/timeline.ts";
import { type Emit, type PullKind, pullKind, type SourceHost, type TriggerSource } from "./trigger.ts";

const JITTER_MS_MAX = 3_600_000;
/** A slot that is found so late was missed while something stood still, not merely delayed. */
const LATE_MS = 60_000;
const SLOT_MS_MIN = 1_000;

const schema = z
  .strictObject({
    cron: z
      .string()
      .max(256)
      .optional()
      .meta({ description: "Five, six or seven fields.", examples: ["*/5 * * * *"] }),
    rate: z
      .string()
      .max(64)
      .optional()
      .meta({ description: "Every so long since the trigger was made.", examples: ["5 minutes"] }),
    at: z.string().max(64).optional().meta({ description: "Once: RFC 3339, or a local time in the time zone." }),
    timezone: z
      .string()
      .max(64)
      .default("UTC")
      .meta({ description: "An IANA name; for cron, and for at without an offset." }),
    jitterMs: z
      .int()
      .min(0)
      .max(JITTER_MS_MAX)
      .default(0)
      .meta({ description: "Each slot fires up to so much later, always the same." }),
    overlap: z
      .enum(["allow", "queue", "skip"])
      .default("allow")
      .meta({ description: "What a slot does while the one before it still runs." }),
    catchUp: z
      .enum(["none", "one", "all"])
      .default("one")
      .meta({ description: "Which slots of a downtime fire afterwards." }),
    data: z.unknown().optional().meta({ description: "The event's data, instead of the slot's time." }),
  })
  .refine(({ cron, rate, at }) => [cron, rate, at].filter((one) => one !== undefined).length === 1, {
    error: "need exactly one of cron, rate and at",
  })
  .superRefine((settings, context) => {
    try {
      if (settings.cron !== undefined && cronSlots(settings.cron, settings.timezone).next(Date.now()) === null)
        context.addIssue({ code: "custom", path: ["cron"], message: "never fires again" });
      if (settings.rate !== undefined) rateMs(settings.rate);
      if (settings.at !== undefined) parseMoment(settings.at, settings.timezone);
    } catch (thrown) {
      const detail = thrown instanceof KoineError ? String(thrown.values["detail"]) : String(thrown);
      context.addIssue({ code: "custom", message: detail });
    }
  });

type Settings = z.output<typeof schema>;

/** Where a schedule is: of which settings, the newest slot that is dealt with, and the invocation it became. */
interface Position {
  readonly of: string;
  readonly slotMs: number;
  readonly activationId: string | null;
}

/**
 * Functions that run at times: cron expressions, rates, and single moments.
 *
 * @param onFired is told how long after its time a slot was accepted, in milliseconds
 */
export function createScheduleKind(clock: Clock, onFired: (lateMs: number) => void = () => {}): PullKind {
  const timeline = new Timeline(clock);
  return pullKind({
    name: "schedule",
    summary: "cron expressions, rates such as every 5 minutes, and single moments",
    settings: schema,
    abilities: { ordering: false, replay: true },
    open: (settings, host) => new Schedule(settings, host, { timeline, onFired }),
    orderingOf: ({ overlap }) => (overlap === "queue" ? "all" : null),
    sample: (settings) =>
      eventOf(settings, { namespace: "default", name: "sample" }, Math.floor(clock.nowMs() / 1_000) * 1_000),
  });
}

class Schedule implements TriggerSource {
  readonly #settings: Settings;
  readonly #host: SourceHost;
  readonly #timeline: Timeline;
  readonly #onFired: (lateMs: number) => void;
  readonly #slots: Slots;
  readonly #of: string;

  constructor(
    settings: Settings,
    host: SourceHost,
    shared: { readonly timeline: Timeline; readonly onFired: (lateMs: number) => void },
  ) {
    this.#settings = settings;
    this.#host = host;
    this.#timeline = shared.timeline;
    this.#onFired = shared.onFired;
    this.#slots = slotsOf(settings, createdAtMs(host.trigger.id));
    const { cron, rate, at, timezone } = settings;
    this.#of = digest(JSON.stringify({ cron, rate, at, timezone })).toString("hex").slice(0, 16);
  }

  async run(emit: Emit, signal: AbortSignal): Promise<void> {
    let position = await this.#begin();
    this.#host.report({ state: "connected" });
    for (;;) {
      const next = this.#slots.next(position.slotMs);
      if (next === null) return;
      this.#host.report({ detail: `next at ${new Date(next).toISOString()}` });
      const due = next + this.#jitterMs(next);
      if (due > this.#host.clock.nowMs()) await this.#timeline.until(due, signal);
      signal.throwIfAborted();
      position = await this.#fireDue(next, position, emit);
    }
  }

  /** Goes on where it was, or begins now where there is nothing to go on from. */
  async #begin(): Promise<Position> {
    const stored = await this.#host.checkpoint.read();
    const known = stored === null ? null : (JSON.parse(stored) as Position);
    if (known?.of === this.#of) return known;
    // A single moment is due even when it passed before this began.
    const slotMs = this.#settings.at === undefined ? this.#host.clock.nowMs() : Number.MIN_SAFE_INTEGER;
    const begun = { of: this.#of, slotMs, activationId: null };
    await this.#host.checkpoint.write(JSON.stringify(begun));
    return begun;
  }

  /** Fires a slot that is due, and what else was missed meanwhile as far as it is to be made up for. */
  async #fireDue(first: number, before: Position, emit: Emit): Promise<Position> {
    const nowMs = this.#host.clock.nowMs();
    // Slots are whole seconds apart: on time there is no other to look for.
    const second = nowMs - first < SLOT_MS_MIN ? null : this.#slots.next(first);
    // Only the newest are looked at: a downtime may have as many slots as seconds.
    const due =
      second === null || second > nowMs
        ? [first]
        : this.#slots.last(nowMs, limits.catchUpSlotsMax).filter((slot) => slot >= first);
    const last = due.at(-1) ?? first;
    let position: Position = { ...before };
    for (const slotMs of slotsToFire(due, nowMs, this.#settings)) position = await this.#fire(slotMs, position, emit);
    if (position.slotMs >= last) return position;
    const skipped = { ...position, slotMs: last };
    await this.#host.checkpoint.write(JSON.stringify(skipped));
    return skipped;
  }

  async #fire(slotMs: number, before: Position, emit: Emit): Promise<Position> {
    const { activationId } = before;
    const busy = this.#settings.overlap === "skip" && activationId !== null && !(await this.#host.isOver(activationId));
    const emitted = busy ? before : await emit(eventOf(this.#settings, this.#host.trigger, slotMs));
    if (!busy) this.#onFired(this.#host.clock.nowMs() - slotMs - this.#jitterMs(slotMs));
    if (busy)
      this.#host.logger.log("info", "a slot was skipped: the run before it has not ended", {
        slot: new Date(slotMs).toISOString(),
      });
    const position: Position = { of: this.#of, slotMs, activationId: emitted.activationId ?? activationId };
    await this.#host.checkpoint.write(JSON.stringify(position));
    return position;
  }

  /** The same on every node and after every restart. */
  #jitterMs(slotMs: number): number {
    const { jitterMs } = this.#settings;
    if (jitterMs === 0) return 0;
    return digest(`${this.#host.trigger.id} ${slotMs}`).readUInt32BE(0) % (jitterMs + 1);
  }
}

/** Which of the slots that are due fire now, in their order. */
export function slotsToFire(
  due: readonly number[],
  nowMs: number,
  { catchUp, jitterMs, at }: Pick<Settings, "catchUp" | "jitterMs" | "at">,
): readonly number[] {
  const last = due.at(-1);
  if (last === undefined) return [];
  // What is on time is not made up for; a single moment that was missed is of no use if it never comes.
  if (at !== undefined || (due.length === 1 && nowMs - last <= LATE_MS + jitterMs && catchUp !== "none")) return [last];
  switch (catchUp) {
    case "none":
      return nowMs - last <= jitterMs + ON_TIME_MS ? [last] : [];
    case "one":
      return [last];
    case "all":
      return due.slice(-limits.catchUpSlotsMax);
    default:
      return catchUp satisfies never;
  }
}

/** A slot that fires so late was not missed: the machine was busy. */
const ON_TIME_MS = 5_000;

function slotsOf(settings: Settings, fromMs: number): Slots {
  if (settings.cron !== undefined) return cronSlots(settings.cron, settings.timezone);
  if (settings.rate !== undefined) return rateSlots(settings.rate, fromMs);
  return momentSlots(parseMoment(settings.at ?? "", settings.timezone));
}

function eventOf(
  settings: Settings,
  trigger: { readonly namespace: string; readonly name: string },
  slotMs: number,
): CloudEvent {
  const time = new Date(slotMs).toISOString();
  return {
    specversion: "1.0",
    // The same slot is the same event, whoever fires it and however often.
    id: time,
    source: `/triggers/${trigger.namespace}/${trigger.name}`,
    type: "koine.schedule.fired",
    time,
    datacontenttype: "application/json",
    data: settings.data ?? { scheduledFor: time },
  };
}

/** Ids begin with the time at which they were made. */
function createdAtMs(id: string): number {
  const ms = Number.parseInt(id.replaceAll("-", "").slice(0, 12), 16);
  return Number.isNaN(ms) ? 0 : ms;
}

function digest(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}
