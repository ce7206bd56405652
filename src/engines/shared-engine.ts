import { functionKey, type FunctionRef, type FunctionSpec, isNearPlatform, type Version } from "../core/function.ts";
import type { Exchange, Invocation, Responder } from "../core/invocation.ts";
import type { Engine, InstanceCounts } from "../engine/engine.ts";
import type { PlatformEngine } from "../platform/parts.ts";
import type { SecondaryEngine } from "./secondary-engine.ts";
import type { EngineReport, ToSecondary } from "./wire.ts";

interface Others {
  secondaries(): Iterable<SecondaryEngine>;
  tell(message: ToSecondary): void;
  useRuntimes(names: ReadonlySet<string>): void;
}

/** Several engines, as one to the platform: what is asked of it is the sum of what they said last. */
export class SharedEngine implements PlatformEngine {
  readonly #first: Engine;
  readonly #others: Others;
  #running = 0;

  constructor(first: Engine, others: Others) {
    this.#first = first;
    this.#others = others;
  }

  /** What somebody waits for runs where it arrived; what waits in a queue runs where the least of that does. */
  invoke(invocation: Invocation, version: Version, responder: Responder): Exchange {
    // What has something of the platform runs where the platform is.
    if (invocation.mode === "sync" || !invocation.bodyComplete || isNearPlatform(version.spec))
      return this.#first.invoke(invocation, version, responder);
    let least: SecondaryEngine | null = null;
    for (const engine of this.#others.secondaries())
      if (engine.running < (least?.running ?? this.#running)) least = engine;
    if (least !== null) return least.run(invocation, version, responder);
    this.#running++;
    return this.#first.invoke(invocation, version, {
      head: (head, start) => responder.head(head, start),
      body: (chunk, last) => responder.body(chunk, last),
      bodyEnded: () => responder.bodyEnded(),
      drained: () => responder.drained?.(),
      ended: (outcome, figures) => {
        this.#running--;
        responder.ended(outcome, figures);
      },
    });
  }

  warm(version: Version, signal: AbortSignal): ReturnType<Engine["warm"]> {
    return this.#first.warm(version, signal);
  }

  retire(version: Version): void {
    this.#first.retire(version);
    this.#others.tell({ to: "retire", version });
  }

  forget(ref: FunctionRef): void {
    this.#first.forget(ref);
    this.#others.tell({ to: "forget", ref });
  }

  /** Further engines take it from the catalogue's change. */
  limit(ref: FunctionRef, max: number | null | undefined): void {
    this.#first.limit(ref, max);
  }

  provision(version: Version, count: number): void {
    this.#first.provision(version, count);
  }

  provisioned(version: Version): ReturnType<Engine["provisioned"]> {
    return this.#first.provisioned(version);
  }

  async cancel(id: string, namespace: string): Promise<boolean> {
    if (this.#first.cancel(id, namespace)) return true;
    const asked = [...this.#others.secondaries()].map((engine) => engine.call({ to: "cancel", id, namespace }));
    return (await Promise.allSettled(asked)).some((answer) => answer.status === "fulfilled" && answer.value === true);
  }

  spareRuntimeOf(spec: FunctionSpec): string | null {
    return this.#first.spareRuntimeOf(spec);
  }

  checkNetwork(spec: FunctionSpec): void {
    this.#first.checkNetwork(spec);
  }

  useRuntimes(names: ReadonlySet<string>): void {
    this.#first.useRuntimes(names);
    this.#others.useRuntimes(names);
  }

  counts(ref?: FunctionRef): InstanceCounts {
    const sum = { ...this.#first.counts(ref) };
    for (const report of this.#reports()) {
      const counts = ref === undefined ? report.counts : report.countsByFunction[functionKey(ref)];
      for (const state of ["starting", "idle", "busy", "frozen"] as const) sum[state] += counts?.[state] ?? 0;
    }
    return sum;
  }

  codeInUse(): ReadonlySet<string> {
    return new Set([...this.#first.codeInUse(), ...this.#reports().flatMap(({ codeInUse }) => codeInUse)]);
  }

  spares(): Readonly<Record<string, number>> {
    const sum: Record<string, number> = { ...this.#first.spares() };
    for (const { spares } of this.#reports())
      for (const [runtime, count] of Object.entries(spares)) sum[runtime] = (sum[runtime] ?? 0) + count;
    return sum;
  }

  get memoryBytes(): number {
    return this.#reports().reduce((sum, { memoryBytes }) => sum + memoryBytes, this.#first.memoryBytes);
  }

  #reports(): readonly EngineReport[] {
    return [...this.#others.secondaries()].flatMap(({ report }) => (report === null ? [] : [report]));
  }
}
