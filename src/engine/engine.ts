import { KoineError } from "../core/errors.ts";
import { type FunctionRef, type FunctionSpec, functionKey, type Version, versionKey } from "../core/function.ts";
import type { Exchange, Invocation, InvocationFigures, Outcome, Responder } from "../core/invocation.ts";
import { Timeouts } from "../core/timeouts.ts";
import type { Specialised } from "../protocols/protocol.ts";
import type { Allowance } from "./allowance.ts";
import type { Habit } from "./habit.ts";
import { decideEviction, decideIdle } from "./keepalive.ts";
import { InvocationMetrics } from "./metrics.ts";
import type { EngineParts } from "./parts.ts";
import { type FunctionSlots, InstancePool, type NodeState, type Provisioned } from "./pool.ts";
import { driverOf, networkOf, recipeOf, spareRuntimeOf } from "./recipe.ts";
import { type Caller, Residents } from "./residents.ts";
import { Running } from "./running.ts";
import { SparePool } from "./spares.ts";

export interface InstanceCounts {
  starting: number;
  idle: number;
  busy: number;
  frozen: number;
}

const SWEEP_MS_MAX = 5_000;
/** Nothing is started ahead while more of the memory budget than this is in use. */
const AHEAD_MEMORY_SHARE = 0.9;
/** Names what engines share of the memory budget. */
export const MEMORY_KEY = "memory";
/** An engine that needs memory for an instance asks for that of so many: more of them follow often. */
const MEMORY_AHEAD = 4;

/**
 * Runs versions: place → pool → slot. Holds no durable state; whoever asks brings the Version.
 * Everything here happens on one thread, so that counts need no locks.
 */
export class Engine {
  readonly #parts: EngineParts;
  readonly #pools = new Map<string, InstancePool>();
  /** The same pools by the object that they were made with, which most calls bring: no key to build. */
  readonly #known = new Map<Version, InstancePool>();
  readonly #functions = new Map<string, FunctionSlots>();
  /** Bounds of functions' slots that hold in place of those in specs. */
  readonly #bounds = new Map<string, number | null>();
  readonly #spares = new Map<string, SparePool>();
  readonly #node: NodeState;
  readonly #metrics: InvocationMetrics;
  readonly #residents: Residents;
  #inFlight = 0;
  #draining = false;
  #drained: (() => void) | null = null;
  #cancelSweep: (() => void) | null = null;
  #sweepAtMs = Number.POSITIVE_INFINITY;
  readonly #sweepMs: number;
  /** Null: the memory budget is this engine's alone. */
  readonly #memory: Allowance | null;

  constructor(parts: EngineParts) {
    this.#parts = parts;
    this.#sweepMs = Math.min(parts.settings.idleTimeoutMs, SWEEP_MS_MAX);
    this.#metrics = new InvocationMetrics(parts.telemetry);
    const bounds = {
      instancesMax: parts.settings.instancesMax,
      memoryBytesMax: parts.settings.memoryBudgetBytes,
      waitQueueLengthMax: parts.limits.waitQueueLengthMax,
    };
    this.#node = {
      instances: 0,
      memoryBytes: 0,
      starting: 0,
      waiting: 0,
      starving: new Set(),
      bounds,
      waits: new Timeouts(parts.clock, parts.limits.waitQueueMsMax),
      makeRoom: () => this.#makeRoom() > 0,
      wantMemory: (bytes) => this.#memory?.need(this.#node.memoryBytes + bytes * MEMORY_AHEAD),
      roomChanged: () => this.#roomChanged(),
      startEnded: () => this.#startEnded(),
      finished: (running, outcome, figures) => this.#finished(running, outcome, figures),
    };
    this.#memory = this.#shareMemory((bytes) => {
      bounds.memoryBytesMax = bytes;
    });
    this.#residents = new Residents(parts, {
      planned: () => this.#sweep(),
      startAhead: (version) => this.#startAhead(version),
    });
    parts.telemetry.onCollect(() => this.#metrics.collect(this.counts(), this.spares(), this.#node.memoryBytes));
  }

  /** Runs a version; the responder's `ended` is called exactly once. */
  invoke(invocation: Invocation, version: Version, responder: Responder): Exchange {
    const pool = this.#pool(version);
    this.#residents.called((pool.functionSlots.habit ??= this.#habit(pool)), version);
    const running = new Running(this.#parts, pool, version, invocation, responder);
    this.#inFlight++;
    if (this.#draining) running.reject(new KoineError("shutting-down"), 1_000);
    else pool.admit(running);
    return running;
  }

  /**
   * Starts an instance of a version and keeps it warm; answers what its handler turned out to be.
   * @throws KoineError when it cannot be loaded or started
   */
  async warm(version: Version, signal: AbortSignal): Promise<Specialised> {
    const pool = this.#pool(version);
    try {
      return (await pool.warm(signal)).specialised;
    } catch (thrown) {
      if (pool.empty) this.#remove(pool);
      throw thrown;
    }
  }

  /** Ends an invocation of a namespace by its id; false: there is none. Looks at all of them. */
  cancel(id: string, namespace: string): boolean {
    for (const pending of [this.#node.waits, ...[...this.#pools.values()].map((pool) => pool.deadlines)]) {
      for (const timed of pending) {
        if (!(timed instanceof Running) || timed.invocation.id !== id) continue;
        if (timed.version.namespace !== namespace) return false;
        timed.stop();
        return true;
      }
    }
    return false;
  }

  /** A version is not wanted any more: its idle instances stop now, the others when their invocations have ended. */
  retire(version: Version): void {
    this.#residents.retire(functionKey(version), version);
    this.#pools.get(versionKey(version))?.retire();
  }

  /** A function is gone: forgets its figures and its habit. */
  forget(ref: { readonly namespace: string; readonly package: string; readonly name: string }): void {
    this.#metrics.forget(ref);
    const slots = this.#functions.get(functionKey(ref));
    this.#bounds.delete(functionKey(ref));
    for (const pool of slots?.pools ?? []) pool.provision(0);
    if (slots !== undefined) slots.habit = null;
    this.#residents.forget(functionKey(ref));
  }

  /** Bounds the slots of all versions of a function from now on, whatever their specs say; undefined: as they say. */
  limit(ref: Pick<FunctionRef, "namespace" | "package" | "name">, max: number | null | undefined): void {
    const key = functionKey(ref);
    if (max === undefined && !this.#bounds.has(key)) return;
    if (max === undefined) this.#bounds.delete(key);
    else this.#bounds.set(key, max);
    const slots = this.#functions.get(key);
    if (slots === undefined) return;
    const newest = [...slots.pools].at(-1)?.version.spec.reservedConcurrency ?? null;
    this.#limitSlots(slots, key, max === undefined ? newest : max);
    for (const pool of slots.pools) if (pool.waiting > 0) pool.pump();
  }

  /** Keeps so many instances of a version from now on, whether anybody calls or not; what ends is started anew. 0: as few as any version has. */
  provision(version: Version, count: number): void {
    if (count === 0 && !this.#pools.has(versionKey(version))) return;
    this.#pool(version).provision(count);
    this.#scheduleSweep(this.#parts.clock.nowMs() + this.#sweepMs);
  }

  /** How far that is. */
  provisioned(version: Version): Provisioned {
    return this.#pools.get(versionKey(version))?.provisioned ?? { wanted: 0, ready: 0, starting: 0, error: null };
  }

  /** Says which runtimes deployed functions use; spares wait for those. */
  useRuntimes(names: ReadonlySet<string>): void {
    for (const name of names) this.#sparesOf(name)?.setUsed(true);
    for (const [name, spares] of this.#spares) if (!names.has(name)) spares.setUsed(false);
  }

  /** Name of the runtime whose spares instances of a version can use; null: they are made anew. */
  spareRuntimeOf(spec: FunctionSpec): string | null {
    return spareRuntimeOf(this.#parts, spec);
  }

  /** @throws KoineError `network-not-allowed`, `network-unavailable` when instances of it could not have the network it asks for */
  checkNetwork(spec: FunctionSpec): void {
    networkOf(this.#parts, spec, driverOf(this.#parts, spec));
  }

  /** Instances by state; of one function when it is named. */
  counts(ref?: { readonly namespace: string; readonly package: string; readonly name: string }): InstanceCounts {
    const counts: InstanceCounts = { starting: 0, idle: 0, busy: 0, frozen: 0 };
    const pools = ref === undefined ? this.#pools.values() : (this.#functions.get(functionKey(ref))?.pools ?? []);
    for (const pool of pools) {
      counts.starting += pool.starting;
      for (const { state } of pool.instances) {
        if (state.kind === "idle" || state.kind === "busy" || state.kind === "frozen") counts[state.kind]++;
        else if (state.kind === "draining") counts.busy++;
      }
    }
    return counts;
  }

  /** Functions that have instances or calls now. */
  functions(): readonly Version[] {
    return [...this.#functions.values()].flatMap(({ pools }) => [...pools].slice(0, 1).map((pool) => pool.version));
  }

  /** Code packages that instances run from now. */
  codeInUse(): ReadonlySet<string> {
    return new Set([...this.#pools.values()].filter((pool) => !pool.empty).map((pool) => pool.version.spec.code));
  }

  spares(): Readonly<Record<string, number>> {
    return Object.fromEntries([...this.#spares].map(([name, spares]) => [name, spares.length]));
  }

  get memoryBytes(): number {
    return this.#node.memoryBytes;
  }

  get inFlight(): number {
    return this.#inFlight;
  }

  /** Takes no more invocations and resolves when the running ones have ended, or when the signal aborts. */
  async drain(signal: AbortSignal): Promise<void> {
    this.#draining = true;
    if (this.#inFlight === 0) return;
    await new Promise<void>((resolve) => {
      this.#drained = resolve;
      signal.addEventListener("abort", () => resolve(), { once: true });
    });
  }

  /** Stops every instance and spare. */
  async close(): Promise<void> {
    this.#draining = true;
    this.#cancelSweep?.();
    this.#residents.close();
    const ended = [...this.#pools.values()].flatMap((pool) => [...pool.instances].map((instance) => instance.ended));
    for (const pool of this.#pools.values()) pool.close(new KoineError("shutting-down"));
    await Promise.all([...ended, ...[...this.#spares.values()].map((spares) => spares.close())]);
  }

  #pool(version: Version): InstancePool {
    const known = this.#known.get(version);
    if (known !== undefined) return known;
    const key = versionKey(version);
    const existing = this.#pools.get(key);
    if (existing !== undefined) return existing;
    const recipe = recipeOf(this.#parts, version.spec);
    const functionSlots = this.#functionSlots(version);
    const spares = recipe.kind === "bootstrap" ? this.#sparesOf(recipe.runtime.name) : null;
    const pool = new InstancePool(this.#parts, { version, recipe, spares, functionSlots, node: this.#node });
    functionSlots.pools.add(pool);
    this.#pools.set(key, pool);
    this.#known.set(version, pool);
    return pool;
  }

  #functionSlots(version: Version): FunctionSlots {
    const key = functionKey(version);
    const existing = this.#functions.get(key);
    const slots: FunctionSlots = existing ?? {
      taken: 0,
      max: null,
      allowance: null,
      pools: new Set<InstancePool>(),
      habit: this.#residents.get(key),
    };
    const bound = this.#bounds.get(key);
    this.#limitSlots(slots, key, bound === undefined ? version.spec.reservedConcurrency : bound);
    this.#functions.set(key, slots);
    return slots;
  }

  #limitSlots(slots: FunctionSlots, key: string, max: number | null): void {
    const { sharing } = this.#parts;
    if (sharing === null || max === null) {
      slots.allowance?.close();
      slots.allowance = null;
      slots.max = max;
    } else if (slots.allowance !== null) slots.allowance.setMax(max);
    else {
      slots.max = 0;
      slots.allowance = sharing.allowances.open(`slots ${key}`, {
        max,
        use: {
          used: () => slots.taken,
          starving: () => slots.pools.values().some((pool) => pool.waiting > 0),
          changed: (granted, grew) => {
            slots.max = granted;
            if (grew) for (const pool of slots.pools) if (pool.waiting > 0) pool.pump();
          },
        },
      });
    }
  }

  #shareMemory(changed: (bytes: number) => void): Allowance | null {
    const { sharing } = this.#parts;
    if (sharing === null) return null;
    changed(0);
    const node = this.#node;
    return sharing.allowances.open(MEMORY_KEY, {
      max: sharing.memoryBudgetBytes,
      use: {
        used: () => node.memoryBytes,
        starving: () => node.starving.size > 0,
        changed: (granted, grew) => {
          changed(granted);
          if (grew && node.waiting > 0 && !this.#draining) this.#pumpAll();
        },
        wantedElsewhere: (bytes) => this.#yieldMemory(bytes),
      },
    });
  }

  /** Stops idle instances for another engine. */
  #yieldMemory(bytes: number): void {
    const { memoryBytes, bounds } = this.#node;
    let missing = bytes - (bounds.memoryBytesMax - memoryBytes);
    for (const pool of this.#pools.values())
      for (const { state, reservedBytes } of pool.instances) if (state.kind === "draining") missing -= reservedBytes;
    while (missing > 0) {
      const freed = this.#makeRoom();
      if (freed === 0) return;
      missing -= freed;
    }
  }

  #sparesOf(runtimeName: string): SparePool | null {
    const existing = this.#spares.get(runtimeName);
    if (existing !== undefined) return existing;
    const runtime = this.#parts.runtimes.get(runtimeName);
    if (runtime === undefined) return null;
    const spares = new SparePool(this.#parts, runtime, () => this.#node.starting > 0);
    this.#spares.set(runtimeName, spares);
    return spares;
  }

  /** What is remembered of a function begins with its first call; instances that it has by then were made by a check. */
  #habit(pool: InstancePool): Habit<Caller> {
    const habit = this.#residents.add(functionKey(pool.version));
    for (const each of pool.functionSlots.pools) habit.instances += each.instances.size + each.starting;
    return habit;
  }

  #startAhead(version: Version): boolean {
    const { starting, waiting, memoryBytes, bounds } = this.#node;
    if (this.#draining) return true;
    if (starting > 0 || waiting > 0 || memoryBytes > bounds.memoryBytesMax * AHEAD_MEMORY_SHARE) return false;
    const pool = this.#pool(version);
    if (!pool.startAhead() && pool.empty) this.#remove(pool);
    return true;
  }

  /** Stops the idle instance that is missed least; answers how much memory that will free, 0 when none is idle. */
  #makeRoom(): number {
    const victim = decideEviction(this.#idleViews());
    if (victim === null) return 0;
    victim.pool.stopIdle(victim.instance);
    return victim.instance.reservedBytes;
  }

  #roomChanged(): void {
    if (this.#draining) return;
    this.#memory?.settle();
    if (this.#node.waiting > 0 && this.#node.starting === 0) this.#pumpAll();
    this.#scheduleSweep(this.#parts.clock.nowMs() + this.#sweepMs);
  }

  #startEnded(): void {
    if (this.#draining) return;
    for (const spares of this.#spares.values()) spares.refillSoon();
    if (this.#node.starting > 0) return;
    if (this.#node.waiting > 0) this.#pumpAll();
    this.#residents.startNext();
    this.#scheduleSweep(this.#parts.clock.nowMs() + this.#sweepMs);
  }

  #pumpAll(): void {
    const starving = [...this.#node.starving];
    for (const pool of starving) pool.pump();
  }

  #scheduleSweep(atMs: number): void {
    if (this.#cancelSweep !== null && this.#sweepAtMs <= atMs) return;
    this.#cancelSweep?.();
    this.#sweepAtMs = atMs;
    this.#cancelSweep = this.#parts.clock.after(atMs - this.#parts.clock.nowMs(), () => this.#sweep());
  }

  #sweep(): void {
    this.#cancelSweep?.();
    this.#cancelSweep = null;
    const nowMs = this.#parts.clock.nowMs();
    const decision = decideIdle(this.#idleViews(), nowMs);
    for (const { pool, instance } of decision.stop) pool.stopIdle(instance);
    let nextAtMs = decision.nextAtMs;
    for (const pool of this.#pools.values()) {
      pool.refill();
      if (pool.empty) this.#remove(pool);
      const freezeAtMs = pool.freezeIdle(nowMs);
      if (freezeAtMs !== null) nextAtMs = Math.min(freezeAtMs, nextAtMs ?? freezeAtMs);
    }
    for (const spares of this.#spares.values()) spares.refill();
    if (nextAtMs !== null) this.#scheduleSweep(nextAtMs);
    else if (this.#pools.size > 0) this.#scheduleSweep(nowMs + SWEEP_MS_MAX);
  }

  #remove(pool: InstancePool): void {
    this.#pools.delete(versionKey(pool.version));
    this.#known.delete(pool.version);
    pool.deadlines.close();
    const key = functionKey(pool.version);
    const slots = this.#functions.get(key);
    slots?.pools.delete(pool);
    if (slots?.pools.size !== 0) return;
    slots.allowance?.close();
    this.#functions.delete(key);
  }

  *#idleViews(): ReturnType<InstancePool["idleViews"]> extends Iterable<infer View> ? Generator<View> : never {
    for (const pool of this.#pools.values()) yield* pool.idleViews();
  }

  #finished(running: Running, outcome: Outcome, figures: InvocationFigures): void {
    this.#inFlight--;
    this.#metrics.finished(running.version, outcome, figures);
    if (this.#inFlight === 0) this.#drained?.();
  }
}
