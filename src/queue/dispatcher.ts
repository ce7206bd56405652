import type { Clock } from "../core/clock.ts";
import type { RetryPolicy } from "../core/enqueue.ts";
import { type ErrorReport, toKoineError } from "../core/errors.ts";
import type { Attempt, Outcome } from "../core/invocation.ts";
import { limits } from "../core/limits.ts";
import type { Logger, Supervise } from "../core/telemetry.ts";
import type { Lease, Queue, QueueItem, Settlement } from "../store/store.ts";
import { Claim } from "./claim.ts";
import { Lanes } from "./lanes.ts";
import { decideRetry, defaultRetryPolicy } from "./retry.ts";

export interface DispatcherOptions {
  readonly queue: Queue;
  readonly clock: Clock;
  /** Runs the item. The signal aborts when the claim was lost or cancelled, or the platform must stop; what throws counts as a fault of the platform. */
  readonly invoke: (lease: Lease, signal: AbortSignal) => Promise<Ended>;
  /** Told of every claim that was settled. */
  readonly onSettled?: (lease: Lease, settlement: Settlement, outcome: Outcome) => void;
  /** Most items of a lane that run at a time. */
  readonly laneLimit: (lane: string) => number;
  /** Most items that run at a time. */
  readonly inFlightMax: number;
  readonly supervise: Supervise;
  readonly logger: Logger;
  readonly leaseMs?: number;
  /** From 0 to 1. */
  readonly random?: () => number;
}

/** How queued work has ended, and what its end means. */
export interface Ended {
  readonly outcome: Outcome;
  readonly policy: RetryPolicy;
  /** Whether another attempt may succeed; absent: it may. */
  readonly retryable?: boolean | undefined;
  /** The least wait before another attempt, in milliseconds. */
  readonly retryAfterMs?: number | undefined;
  /** What of the payload is left to be done, where that is not all of it. */
  readonly remaining?: Uint8Array | undefined;
  /** Whether what is dead stays as a dead letter; absent: it does. */
  readonly keepsDead?: boolean | undefined;
  /** What is enqueued in the same commit when it is done or dead. */
  readonly followUps?:
    | ((settlement: Extract<Settlement, { kind: "done" | "dead" }>) => readonly QueueItem[])
    | undefined;
}

const LEASES_PER_CALL = 64;
const BACKOFF_MS_MIN = 200;
const BACKOFF_MS_MAX = 10_000;

/**
 * Takes due items from the queue and has them run, at least once each. It wakes when told that something was enqueued, when an item falls due, and when
 * an item ends; while the store fails it asks less and less often.
 */
export class Dispatcher {
  readonly #options: DispatcherOptions;
  readonly #leaseMs: number;
  readonly #lanes: Lanes;
  readonly #claims = new Set<Claim>();
  #state: "stopped" | "idle" | "looking" = "stopped";
  #lookAgain = false;
  #looking: Promise<void> = Promise.resolve();
  #cancelTimer = (): void => {};
  #failures = 0;

  constructor(options: DispatcherOptions) {
    this.#options = options;
    this.#leaseMs = options.leaseMs ?? limits.leaseMs;
    this.#lanes = new Lanes(options.laneLimit);
  }

  /** Items that are running or being settled. */
  get inFlight(): number {
    return this.#claims.size;
  }

  start(): void {
    this.#state = "idle";
    this.#wake();
  }

  /** Stops an item that runs here, for good. */
  async cancel(id: string): Promise<boolean> {
    const claim = this.#find(id);
    const cancelled = (await claim?.cancel()) ?? false;
    if (cancelled) this.notify();
    return cancelled;
  }

  /** Something was enqueued, or a lane may run more than before. */
  notify(): void {
    // While the store fails the timer decides, or each enqueue would ask it again.
    if (this.#failures === 0) this.#wake();
  }

  /**
   * Claims nothing more and waits until what runs has ended and is settled. When the signal aborts, what still runs is told to stop and given back to the
   * queue without counting the attempt; what has ended is still settled as it ended.
   */
  async drain(signal: AbortSignal): Promise<void> {
    this.#state = "stopped";
    this.#cancelTimer();
    await this.#looking;
    const abandon = (): void => {
      for (const claim of this.#claims) claim.abandon();
    };
    if (signal.aborted) abandon();
    signal.addEventListener("abort", abandon, { once: true });
    await Promise.all([...this.#claims].map((claim) => claim.settled));
    signal.removeEventListener("abort", abandon);
  }

  #find(id: string): Claim | undefined {
    return this.#claims.values().find(({ lease }) => lease.item.id === id);
  }

  #wake(): void {
    if (this.#state === "looking") this.#lookAgain = true;
    if (this.#state !== "idle") return;
    this.#state = "looking";
    this.#cancelTimer();
    this.#looking = this.#look();
    this.#options.supervise("look for queued work", this.#looking);
  }

  async #look(): Promise<void> {
    const { clock, logger } = this.#options;
    let nextMs: number;
    try {
      do {
        this.#lookAgain = false;
        await this.#claimDue();
      } while (this.#lookAgain && this.#isLooking());
      nextMs = this.#isLooking() ? await this.#untilNextMs() : 0;
      if (this.#failures > 0) logger.log("info", "the queue can be read again");
      this.#failures = 0;
    } catch (thrown) {
      if (this.#failures === 0) logger.log("error", "the queue cannot be read", { error: String(thrown) });
      nextMs = Math.min(BACKOFF_MS_MIN * 2 ** this.#failures, BACKOFF_MS_MAX);
      this.#failures++;
    }
    if (!this.#isLooking()) return;
    this.#state = "idle";
    if (this.#lookAgain && this.#failures === 0) this.#wake();
    else this.#cancelTimer = clock.after(nextMs, () => this.#wake());
  }

  #isLooking(): boolean {
    return this.#state === "looking";
  }

  /** Claims and starts items until nothing more is due or nothing more may run. */
  async #claimDue(): Promise<void> {
    const { queue, clock, inFlightMax } = this.#options;
    for (;;) {
      const limit = Math.min(LEASES_PER_CALL, inFlightMax - this.#claims.size);
      if (limit <= 0 || !this.#isLooking()) return;
      const { laneRoom, roomPerLane } = this.#lanes.room(inFlightMax - this.#claims.size);
      const leases = await queue.lease({
        limit,
        nowMs: clock.nowMs(),
        leaseMs: this.#leaseMs,
        laneRoom,
        roomPerLane,
      });
      this.#lanes.forgetQuiet(laneRoom, leases);
      for (const lease of leases) this.#begin(lease);
      if (leases.length < limit) return;
    }
  }

  async #untilNextMs(): Promise<number> {
    const { queue, clock, inFlightMax } = this.#options;
    // With nothing free, the next end wakes.
    if (this.#claims.size >= inFlightMax) return limits.queuePollMs;
    const nowMs = clock.nowMs();
    const { nextDueAtMs } = await queue.state(nowMs);
    return Math.min(nextDueAtMs === null ? Infinity : nextDueAtMs - nowMs, limits.queuePollMs);
  }

  #begin(lease: Lease): void {
    const { queue, clock, logger, supervise } = this.#options;
    if (lease.attempt > 1 && this.#find(lease.item.id)?.renew(lease) === true) return;
    const claim = new Claim({ lease, queue, clock, logger, leaseMs: this.#leaseMs });
    this.#claims.add(claim);
    // An item more than its lane may run goes back: the queue cannot know the limit of a lane that has not run for a while.
    const mayRun = this.#isLooking() && this.#lanes.enter(lease.item.lane);
    supervise("run queued work", mayRun ? this.#run(claim) : this.#giveBack(claim));
  }

  async #run(claim: Claim): Promise<void> {
    const { lane } = claim.lease.item;
    let leadsOn = false;
    try {
      const startedAtMs = this.#options.clock.nowMs();
      const ended = await this.#invoke(claim);
      this.#lanes.leave(lane);
      // The lane's next item need not wait until this one is settled; both can share a commit.
      this.notify();
      const settlement = this.#decide(claim.lease, ended, startedAtMs);
      if (await claim.settle(settlement)) this.#options.onSettled?.(claim.lease, settlement, ended.outcome);
      leadsOn = settlement.kind === "retry" || settlement.kind === "release" || letsFollow(claim.lease, settlement);
    } finally {
      this.#end(claim, leadsOn);
    }
  }

  async #giveBack(claim: Claim): Promise<void> {
    await claim.settle({ kind: "release" });
    this.#end(claim, false);
  }

  async #invoke(claim: Claim): Promise<Ended> {
    try {
      return await this.#options.invoke(claim.lease, claim.signal);
    } catch (thrown) {
      const error = toKoineError(thrown).report();
      this.#options.logger.log("error", "running queued work failed", {
        id: claim.lease.item.id,
        error: error.message,
      });
      return { outcome: { kind: "failed", fault: "platform", error }, policy: defaultRetryPolicy };
    }
  }

  #decide({ item, attempt: number, hasFailed }: Lease, ended: Ended, startedAtMs: number): Settlement {
    const { clock, random = Math.random } = this.#options;
    const { outcome, policy, retryable, retryAfterMs, remaining: payload, followUps, keepsDead = true } = ended;
    const nowMs = clock.nowMs();
    const settlement = decideRetry({
      attempt: number,
      outcome,
      enqueuedAtMs: item.enqueuedAtMs,
      nowMs,
      policy,
      random: random(),
      retryable,
      retryAfterMs,
    });
    const attempt = recordOf({ number, startedAtMs, endedAtMs: nowMs, outcome });
    const left = payload === undefined ? {} : { payload };
    switch (settlement.kind) {
      case "retry":
        return { ...settlement, attempt, ...left };
      case "release":
        return settlement;
      case "done":
        if (followUps !== undefined)
          return { ...settlement, attempt, followUps: followUps({ ...settlement, attempt }) };
        // An only attempt that went well is told by the activation.
        return hasFailed === true ? { ...settlement, attempt } : settlement;
      case "dead":
        if (!keepsDead) return { kind: "done", attempt, followUps: followUps?.({ ...settlement, attempt }) ?? [] };
        return { ...settlement, attempt, ...left, followUps: followUps?.({ ...settlement, attempt }) ?? [] };
      default:
        return settlement satisfies never;
    }
  }

  #end(claim: Claim, leadsOn: boolean): void {
    // Below half a lane had all the places it wanted: its share of those that are free was larger than what it runs.
    const wasCrowded = this.#claims.size * 2 >= this.#options.inFlightMax;
    this.#claims.delete(claim);
    // What comes again may fall due before anything that the timer knows of.
    if (wasCrowded || leadsOn) this.notify();
  }
}

/** Whether the end of an item makes another one due. */
function letsFollow({ item }: Lease, settlement: Settlement): boolean {
  return item.orderingKey !== undefined || ("followUps" in settlement && (settlement.followUps?.length ?? 0) > 0);
}

/** An attempt as it is kept: without what could make it long. */
function recordOf({
  outcome,
  ...times
}: Pick<Attempt, "number" | "startedAtMs" | "endedAtMs"> & { readonly outcome: Outcome }): Attempt {
  const error = outcome.kind === "succeeded" ? null : shortened(outcome.error);
  return { ...times, outcome: outcome.kind, error };
}

function shortened(error: ErrorReport): ErrorReport {
  const cut = (text: string): string => text.slice(0, limits.attemptTextLengthMax);
  const { cause, message } = error;
  if (cause === undefined) return { ...error, message: cut(message) };
  const { stack, ...rest } = cause;
  const kept = { ...rest, message: cut(rest.message), ...(stack === undefined ? {} : { stack: cut(stack) }) };
  return { ...error, message: cut(message), cause: kept };
}
