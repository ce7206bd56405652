import type { Clock } from "../core/clock.ts";
import { KoineError } from "../core/errors.ts";
import type { Logger } from "../core/telemetry.ts";
import type { Lease, Queue, Settlement } from "../store/store.ts";

interface ClaimParts {
  readonly lease: Lease;
  readonly queue: Queue;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly leaseMs: number;
}

type State = "held" | "settling" | "lost" | "abandoned" | "ended";

const RETRY_MS_MIN = 100;
const RETRY_MS_MAX = 10_000;
/** Tries to prolong again within what is left of a claim. */
const EXTENSIONS_PER_LEASE = 2;

/** One claimed item from its claim to its settlement: kept alive while it runs, settled once, given up when another has taken it. */
export class Claim {
  readonly #parts: ClaimParts;
  #lease: Lease;
  readonly #aborted = new AbortController();
  readonly #settled = Promise.withResolvers<void>();
  #state: State = "held";
  /** Nobody waits until the store is back. */
  #hurried = false;
  #wake = (): void => {};
  #cancelTimer: () => void;

  constructor(parts: ClaimParts) {
    this.#parts = parts;
    this.#lease = parts.lease;
    this.#cancelTimer = this.#extendLater();
  }

  get lease(): Lease {
    return this.#lease;
  }

  /** Goes on under a newer claim of the same item, which came because a jump of the clock let this one expire; false when this has ended. */
  renew(lease: Lease): boolean {
    if (this.#state !== "held" && this.#state !== "settling") return false;
    this.#lease = { ...this.#lease, receipt: lease.receipt };
    return true;
  }

  /** Resolves when the claim is settled, lost, or given up. */
  get settled(): Promise<void> {
    return this.#settled.promise;
  }

  /** Aborts when the claim is lost or abandoned, or cancelled: then with a KoineError `cancelled` as its reason. */
  get signal(): AbortSignal {
    return this.#aborted.signal;
  }

  /** Settles, trying again while the store fails; does nothing if the claim is lost or abandoned. Answers whether it was settled so. Never rejects. */
  async settle(settlement: Settlement): Promise<boolean> {
    if (this.#state !== "held") return false;
    this.#state = "settling";
    const held = await this.#settleUntilDone(settlement);
    this.#end();
    return held;
  }

  /** Stops what runs for good; false when it has ended already. */
  async cancel(): Promise<boolean> {
    if (this.#state !== "held") return false;
    const settled = this.settle({ kind: "done" });
    this.#aborted.abort(new KoineError("cancelled"));
    return await settled;
  }

  /** Stops what runs and gives the item back; leaves alone what has ended, but tries its settlement only once more if the store fails. */
  abandon(): void {
    if (this.#state === "settling") {
      this.#hurried = true;
      this.#aborted.abort();
      this.#wake();
      return;
    }
    if (this.#state !== "held") return;
    this.#state = "abandoned";
    this.#hurried = true;
    this.#aborted.abort();
    void this.#settleUntilDone({ kind: "release" }).then(() => this.#end());
  }

  async #settleUntilDone(settlement: Settlement): Promise<boolean> {
    const { queue, logger } = this.#parts;
    for (let failures = 0; ; failures++) {
      const { receipt } = this.#lease;
      try {
        const held = await queue.settle(receipt, settlement);
        if (!held && this.#lease.receipt !== receipt) continue;
        if (!held) logger.log("warn", "queued work ended after its claim was lost; it runs again", { id: receipt.id });
        return held;
      } catch (thrown) {
        if (failures === 0)
          logger.log("error", "queued work cannot be settled", { id: receipt.id, error: String(thrown) });
        if (this.#hurried) return false;
        await this.#pause(Math.min(RETRY_MS_MIN * 2 ** failures, RETRY_MS_MAX));
      }
    }
  }

  /** Ends early when the claim is abandoned. */
  async #pause(delayMs: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const cancel = this.#parts.clock.after(delayMs, resolve);
    this.#wake = resolve;
    await promise;
    cancel();
  }

  #extendLater(): () => void {
    const { clock, leaseMs } = this.#parts;
    return clock.after(leaseMs / EXTENSIONS_PER_LEASE, () => void this.#extend());
  }

  async #extend(): Promise<void> {
    const { queue, clock, logger, leaseMs } = this.#parts;
    const { receipt } = this.#lease;
    try {
      const held = await queue.extend(receipt, clock.nowMs() + leaseMs);
      if (!held && this.#state === "held" && this.#lease.receipt === receipt) {
        logger.log("warn", "the claim on running work was lost; it is stopped", { id: receipt.id });
        this.#state = "lost";
        this.#aborted.abort();
        this.#end();
      }
    } catch (thrown) {
      // A claim that expired can still be prolonged unless another has taken it, so trying again is all there is to do.
      logger.log("warn", "the claim on running work cannot be prolonged", { id: receipt.id, error: String(thrown) });
    }
    if (this.#state === "held" || this.#state === "settling") this.#cancelTimer = this.#extendLater();
  }

  #end(): void {
    this.#state = "ended";
    this.#cancelTimer();
    this.#settled.resolve();
  }
}
