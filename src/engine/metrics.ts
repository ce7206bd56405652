import type { Version } from "../core/function.ts";
import { functionKey } from "../core/function.ts";
import type { InvocationFigures, Outcome } from "../core/invocation.ts";
import type { Counter, Gauge, Histogram, Telemetry } from "../core/telemetry.ts";
import type { InstanceCounts } from "./engine.ts";

interface FunctionMetrics {
  readonly succeeded: Counter;
  readonly cold: Counter;
  readonly duration: Histogram;
  readonly labels: { readonly namespace: string; readonly function: string };
}

/** The engine's Prometheus figures; children are looked up once per function, not per invocation. */
export class InvocationMetrics {
  readonly #telemetry: Telemetry;
  readonly #functions = new Map<string, FunctionMetrics>();
  /** The same by version, which is at hand without making a key. */
  #known = new WeakMap<Version, FunctionMetrics>();
  readonly #queue: Histogram;
  readonly #coldStart: Histogram;
  readonly #states: Readonly<Record<keyof InstanceCounts, Gauge>>;
  readonly #memory: Gauge;

  constructor(telemetry: Telemetry) {
    this.#telemetry = telemetry;
    this.#queue = telemetry.histogram("koine_queue_duration_seconds", "Time invocations waited for a slot.");
    this.#coldStart = telemetry.histogram(
      "koine_cold_start_seconds",
      "Time that starting an instance took, for invocations that waited for it.",
    );
    const state = (name: string): Gauge => telemetry.gauge("koine_instances", "Instances by state.", { state: name });
    this.#states = { starting: state("starting"), idle: state("idle"), busy: state("busy"), frozen: state("frozen") };
    this.#memory = telemetry.gauge("koine_instances_memory_bytes", "Memory set aside for instances.");
  }

  finished(version: Version, outcome: Outcome, figures: InvocationFigures): void {
    const metrics = this.#of(version);
    this.#queue.observe(figures.queuedMs / 1000);
    if (figures.instanceId !== "") metrics.duration.observe(figures.durationMs / 1000);
    if (figures.cold) {
      metrics.cold.add();
      this.#coldStart.observe(figures.startMs / 1000);
    }
    if (outcome.kind === "succeeded") {
      metrics.succeeded.add();
      return;
    }
    this.#invocations(metrics.labels, outcome.kind).add();
    const labels = { ...metrics.labels, fault: outcome.error.fault, code: outcome.error.code };
    this.#telemetry.counter("koine_errors_total", "Invocations that did not succeed, by who must act.", labels).add();
  }

  collect(counts: InstanceCounts, spares: Readonly<Record<string, number>>, memoryBytes: number): void {
    for (const state of ["starting", "idle", "busy", "frozen"] as const) this.#states[state].set(counts[state]);
    for (const [runtime, count] of Object.entries(spares)) {
      this.#telemetry
        .gauge("koine_spare_sandboxes", "Booted sandboxes that belong to no version yet.", { runtime })
        .set(count);
    }
    this.#memory.set(memoryBytes);
  }

  forget(ref: { readonly namespace: string; readonly package: string; readonly name: string }): void {
    const key = functionKey(ref);
    const metrics = this.#functions.get(key);
    if (metrics === undefined) return;
    this.#functions.delete(key);
    this.#known = new WeakMap();
    this.#telemetry.forget(metrics.labels);
  }

  #of(version: Version): FunctionMetrics {
    const known = this.#known.get(version);
    if (known !== undefined) return known;
    const key = functionKey(version);
    const existing = this.#functions.get(key);
    if (existing !== undefined) {
      this.#known.set(version, existing);
      return existing;
    }
    const name = version.package === "" ? version.name : `${version.package}/${version.name}`;
    const labels = { namespace: version.namespace, function: name };
    const metrics = {
      succeeded: this.#invocations(labels, "succeeded"),
      cold: this.#telemetry.counter("koine_cold_starts_total", "Invocations that waited for an instance.", labels),
      duration: this.#telemetry.histogram("koine_invocation_duration_seconds", "Time from slot to end.", labels),
      labels,
    };
    this.#functions.set(key, metrics);
    this.#known.set(version, metrics);
    return metrics;
  }

  #invocations(labels: FunctionMetrics["labels"], outcome: Outcome["kind"]): Counter {
    return this.#telemetry.counter("koine_invocations_total", "Invocations by outcome.", { ...labels, outcome });
  }
}
