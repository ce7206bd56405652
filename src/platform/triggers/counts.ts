import type { Counter, Gauge, Telemetry } from "../../core/telemetry.ts";

export type EventResult = "received" | "filtered" | "delivered" | "failed";

const RESULTS: readonly EventResult[] = ["received", "filtered", "delivered", "failed"];

/** What happened to the events of one trigger on this node since it started. */
export class TriggerCounts {
  readonly #counts: Record<EventResult, number> = { received: 0, filtered: 0, delivered: 0, failed: 0 };
  readonly #counters = new Map<EventResult, Counter>();
  readonly #telemetry: Telemetry;
  readonly #labels: { readonly namespace: string; readonly trigger: string };
  #lagEvents: Gauge | null = null;
  #lagSeconds: Gauge | null = null;

  constructor(telemetry: Telemetry, labels: { readonly namespace: string; readonly trigger: string }) {
    this.#telemetry = telemetry;
    this.#labels = labels;
  }

  add(result: EventResult, by: number): void {
    this.#counts[result] += by;
    let counter = this.#counters.get(result);
    if (counter === undefined) {
      const labels = { ...this.#labels, result };
      counter = this.#telemetry.counter(
        "koine_trigger_events_total",
        "Events of triggers by what became of them.",
        labels,
      );
      this.#counters.set(result, counter);
    }
    counter.add(by);
  }

  lag({ events, ms }: { readonly events: number | null; readonly ms: number | null }): void {
    if (events !== null) {
      this.#lagEvents ??= this.#telemetry.gauge(
        "koine_trigger_lag_events",
        "Events that wait at a trigger's source.",
        this.#labels,
      );
      this.#lagEvents.set(events);
    }
    if (ms !== null) {
      this.#lagSeconds ??= this.#telemetry.gauge(
        "koine_trigger_lag_seconds",
        "Age of the oldest event that waits at a trigger's source.",
        this.#labels,
      );
      this.#lagSeconds.set(ms / 1_000);
    }
  }

  get delivered(): number {
    return this.#counts.delivered;
  }

  all(): Readonly<Record<EventResult, number>> {
    return { ...this.#counts };
  }

  forget(): void {
    for (const result of RESULTS) this.#counters.delete(result);
    this.#telemetry.forget(this.#labels);
  }
}
