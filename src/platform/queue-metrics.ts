import type { KoineError } from "../core/errors.ts";
import type { Outcome } from "../core/invocation.ts";
import type { Counter, Telemetry } from "../core/telemetry.ts";
import type { LaneState, Lease, Settlement } from "../store/store.ts";
import type { PlatformParts } from "./parts.ts";
import { functionOfLane } from "./queued-payload.ts";

/** Queues that have figures of their own: the longest. */
const QUEUES_SHOWN_MAX = 100;
/** Least time between two looks at the queues, in milliseconds. */
const LOOK_MS = 1_000;
/** Least time between two complaints about the same thing, in milliseconds. */
const COMPLAINT_MS = 60_000;
const COMPLAINTS_MAX = 1_000;

type MetricsParts = Pick<PlatformParts, "clock" | "store" | "supervise" | "logger" | "telemetry">;

/** The queue's Prometheus figures, of the longest queues only, however many functions there are. */
export class QueueMetrics {
  readonly #parts: MetricsParts;
  readonly #telemetry: Telemetry;
  readonly #complaints = new Map<string, number>();
  readonly #attempts: Readonly<Record<Outcome["kind"], Counter>>;
  #shown = new Set<string>();
  #lookedAtMs = -Infinity;
  #looking = false;
  #cancelLook: (() => void) | null = null;

  constructor(parts: MetricsParts) {
    this.#parts = parts;
    this.#telemetry = parts.telemetry;
    const attempts = (outcome: Outcome["kind"]): Counter =>
      this.#telemetry.counter("koine_async_attempts_total", "Attempts of asynchronous invocations that counted.", {
        outcome,
      });
    this.#attempts = {
      succeeded: attempts("succeeded"),
      failed: attempts("failed"),
      timedOut: attempts("timedOut"),
      rejected: attempts("rejected"),
    };
    this.#telemetry.onCollect(() => this.changed());
  }

  /** Something was added or has gone; looks at the queues before long. */
  changed(): void {
    if (this.#looking || this.#cancelLook !== null) return;
    const { clock } = this.#parts;
    const waitMs = Math.max(0, this.#lookedAtMs + LOOK_MS - clock.nowMs());
    if (waitMs === 0) this.#look();
    else
      this.#cancelLook = clock.after(waitMs, () => {
        this.#cancelLook = null;
        this.#look();
      });
  }

  refused(error: KoineError): void {
    if (error.code !== "queue-full" && error.code !== "dead-letters-full") return;
    this.#telemetry
      .counter("koine_queue_refused_total", "Asynchronous work that was refused, by why.", { code: error.code })
      .add();
    this.#complain(error);
  }

  settled({ item }: Lease, settlement: Settlement, outcome: Outcome): void {
    const { deliveries } = functionOfLane(item.lane);
    if (deliveries) this.#delivered(settlement);
    else if (settlement.kind !== "release") this.#attempts[outcome.kind].add();
    if (settlement.kind === "retry")
      this.#telemetry
        .counter("koine_async_retries_total", "Asynchronous work that was put back to be tried again.")
        .add();
    if (settlement.kind === "dead")
      this.#telemetry
        .counter("koine_dead_letters_total", "Asynchronous work that became a dead letter, by its last error.", {
          code: settlement.code ?? "",
        })
        .add();
    this.changed();
  }

  #delivered({ kind }: Settlement): void {
    if (kind === "release") return;
    const outcome = kind === "done" ? "delivered" : kind === "retry" ? "retried" : "failed";
    this.#telemetry
      .counter("koine_destinations_total", "Attempts to deliver an outcome to a URL or topic.", { outcome })
      .add();
  }

  #complain({ code, message, values }: KoineError): void {
    const nowMs = this.#parts.clock.nowMs();
    const name = `${code} ${String(values["name"])}`;
    if (nowMs - (this.#complaints.get(name) ?? -Infinity) < COMPLAINT_MS) return;
    if (this.#complaints.size >= COMPLAINTS_MAX) this.#complaints.clear();
    this.#complaints.set(name, nowMs);
    this.#parts.logger.log("warn", `asynchronous work is refused: ${message}`, { code });
  }

  #look(): void {
    this.#looking = true;
    const looked = this.#parts.store.queue
      .lanes(QUEUES_SHOWN_MAX)
      .then((lanes) => this.#show(lanes))
      .finally(() => {
        this.#looking = false;
        this.#lookedAtMs = this.#parts.clock.nowMs();
      });
    // A store that fails is told of by those who need it.
    this.#parts.supervise(
      "look at the queues",
      looked.catch(() => {}),
    );
  }

  #show(lanes: readonly LaneState[]): void {
    const nowMs = this.#parts.clock.nowMs();
    const shown = new Set<string>();
    for (const { lane, length, dead, oldestEnqueuedAtMs } of lanes) {
      const labels = { queue: lane.replace("//", "/") };
      shown.add(labels.queue);
      const ageSeconds = oldestEnqueuedAtMs === null ? 0 : Math.max(0, nowMs - oldestEnqueuedAtMs) / 1_000;
      this.#telemetry
        .gauge("koine_queue_depth", "Asynchronous work that is not finished, of the longest queues.", labels)
        .set(length);
      this.#telemetry
        .gauge("koine_queue_age_seconds", "Age of the oldest work of a queue that has not been tried.", labels)
        .set(ageSeconds);
      this.#telemetry.gauge("koine_dead_letters", "Dead letters of a queue.", labels).set(dead);
    }
    for (const queue of this.#shown) if (!shown.has(queue)) this.#telemetry.forget({ queue });
    this.#shown = shown;
  }
}
