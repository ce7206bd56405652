import { KoineError, toKoineError } from "../core/errors.ts";
import type { Version } from "../core/function.ts";
import type { InvocationFigures, Outcome } from "../core/invocation.ts";
import type { Runtime } from "../runtimes/runtime.ts";
import { afterFailure, afterStart, type BreakerState, CLOSED, refusal } from "./breaker.ts";
import { type Instance, type InstanceOwner, startInstance } from "./instance.ts";
import type { IdleView } from "./keepalive.ts";
import type { EngineParts } from "./parts.ts";
import { hasRoom, type NodeBounds, place, type PlaceView, wantsStart } from "./place.ts";
import type { Running, RunningOwner } from "./running.ts";
import type { SparePool } from "./spares.ts";

/** Slots of one function, over all its versions. */
export interface FunctionSlots {
  taken: number;
  /** Of the newest version's spec. */
  max: number | null;
  readonly pools: Set<InstancePool>;
}

/** What the pools of one node share. */
export interface NodeState {
  instances: number;
  memoryBytes: number;
  starting: number;
  /** Invocations that wait for a slot, of all versions. */
  waiting: number;
  readonly bounds: NodeBounds;
  /** Stops the idle instance that is missed least; false when none is idle. */
  makeRoom(): boolean;
  /** An instance has become idle or has ended: pools that starve may try again. On the path of every invocation. */
  roomChanged(): void;
  /** An instance has started, or failed to. */
  startEnded(): void;
  finished(running: Running, outcome: Outcome, figures: InvocationFigures): void;
}

const ESTIMATE_BYTES_FIRST = 64 * 1024 * 1024;
const STOP_GRACE_MS = 2_000;

/** All Instances of one Version on this node, and the invocations that wait for one. */
export class InstancePool implements InstanceOwner, RunningOwner {
  readonly version: Version;
  readonly #parts: EngineParts;
  readonly #runtime: Runtime;
  readonly #spares: SparePool;
  readonly #function: FunctionSlots;
  readonly #node: NodeState;
  readonly #instances = new Set<Instance>();
  /** Instances with a free slot, the most recently used last. May hold some that are not usable any more. */
  readonly #free: Instance[] = [];
  #freeSlots = 0;
  #starting = 0;
  /** In order of arrival; the ones that left are skipped. */
  #queue: Running[] = [];
  #queueHead = 0;
  #waiting = 0;
  #breaker: BreakerState = CLOSED;
  #estimateBytes = ESTIMATE_BYTES_FIRST;
  readonly #stopping = new AbortController();

  constructor(
    parts: EngineParts,
    context: { version: Version; runtime: Runtime; spares: SparePool; functionSlots: FunctionSlots; node: NodeState },
  ) {
    this.#parts = parts;
    this.version = context.version;
    this.#runtime = context.runtime;
    this.#spares = context.spares;
    this.#function = context.functionSlots;
    this.#node = context.node;
  }

  get waiting(): number {
    return this.#waiting;
  }

  get starting(): number {
    return this.#starting;
  }

  get instances(): ReadonlySet<Instance> {
    return this.#instances;
  }

  /** Nothing runs, waits or starts. */
  get empty(): boolean {
    return this.#instances.size === 0 && this.#starting === 0 && this.#waiting === 0;
  }

  admit(running: Running): void {
    const placement = place(this.#view(), this.#node.bounds);
    switch (placement) {
      case "reuse":
        this.#runOnFree(running);
        return;
      case "reject":
        running.reject(new KoineError("too-many-requests", { name: this.version.name }), 1_000);
        return;
      case "queue":
      case "start":
      case "makeRoom":
        this.#enqueue(running);
        this.#scaleOut();
        return;
      default:
        return placement satisfies never;
    }
  }

  /**
   * Starts an instance now and keeps it, to see whether the handler loads.
   * @throws KoineError when it does not
   */
  async warm(signal: AbortSignal): Promise<Instance> {
    for (const instance of this.#instances) if (instance.freeSlots > 0) return instance;
    const instance = await this.#start(signal);
    this.pump();
    return instance;
  }

  /** Takes all present instances out of service: idle ones stop now, busy ones when their invocations have ended. Calls that still come get new ones. */
  retire(): void {
    for (const instance of this.#instances) {
      if (instance.state.kind === "idle") this.stopIdle(instance);
      else if (instance.state.kind === "busy") this.#drain(instance);
    }
  }

  /** Gives free slots to those who wait, then starts what is missing. */
  pump(): void {
    while (this.#waiting > 0 && this.#mayRun() && this.#freeSlots > 0) {
      const running = this.#dequeue();
      if (running === null) break;
      this.#runOnFree(running);
    }
    if (this.#waiting > 0) this.#scaleOut();
  }

  *idleViews(): Iterable<IdleView<{ pool: InstancePool; instance: Instance }>> {
    const idleTimeoutMs = this.version.spec.idleTimeoutMs ?? this.#parts.settings.idleTimeoutMs;
    for (const instance of this.#instances) {
      if (instance.state.kind !== "idle") continue;
      yield { key: { pool: this, instance }, idleSinceMs: instance.state.sinceMs, idleTimeoutMs };
    }
  }

  stopIdle(instance: Instance): void {
    if (instance.state.kind !== "idle") return;
    this.#drain(instance);
    instance.stop(STOP_GRACE_MS);
  }

  /** Answers all who wait with an error and stops every instance. */
  close(error: KoineError): void {
    this.#stopping.abort();
    for (let running = this.#dequeue(); running !== null; running = this.#dequeue()) running.reject(error, 1_000);
    for (const instance of this.#instances) instance.stop(0);
  }

  // InstanceOwner

  instanceEnded(instance: Instance): void {
    if (!this.#instances.delete(instance)) return;
    if (instance.listed) this.#freeSlots -= this.#listedSlots.get(instance) ?? 0;
    this.#listedSlots.delete(instance);
    instance.listed = false;
    this.#node.instances--;
    this.#node.memoryBytes -= instance.reservedBytes;
    this.pump();
    this.#node.roomChanged();
  }

  // RunningOwner

  left(running: Running): void {
    if (running.phase === "waiting") this.#countWaiting(-1);
  }

  released(instance: Instance): void {
    this.#function.taken--;
    instance.apply({ kind: "released" });
    this.#estimateBytes = Math.max(this.#estimateBytes, instance.memoryBytes);
    const { state } = instance;
    if (state.kind === "draining" && state.slotsTaken === 0) instance.stop(STOP_GRACE_MS);
    else if (state.kind === "idle" || state.kind === "busy") this.#list(instance);
    if (this.#waiting > 0) this.pump();
    for (const pool of this.#function.pools) if (pool !== this && pool.waiting > 0) pool.pump();
    if (instance.state.kind === "idle") this.#node.roomChanged();
  }

  overran(instance: Instance): void {
    const alone = instance.state.kind === "busy" && instance.state.slotsTaken === 1;
    if (instance.state.kind === "stopped") return;
    this.#drain(instance);
    if (alone) instance.stop(0);
  }

  finished(running: Running, outcome: Outcome, figures: InvocationFigures): void {
    this.#node.finished(running, outcome, figures);
  }

  // Slots

  readonly #listedSlots = new Map<Instance, number>();

  #mayRun(): boolean {
    return this.#function.max === null || this.#function.taken < this.#function.max;
  }

  #view(): PlaceView {
    return {
      freeSlots: this.#freeSlots,
      waiting: this.#waiting,
      startingSlots: this.#starting * this.version.spec.instanceConcurrency,
      functionSlotsTaken: this.#function.taken,
      functionSlotsMax: this.#function.max,
      nodeInstances: this.#node.instances,
      nodeMemoryBytes: this.#node.memoryBytes,
      instanceMemoryBytes: this.#estimateBytes,
    };
  }

  /** Counts an instance's free slots; the list gives the most recently used one first. */
  #list(instance: Instance): void {
    const free = instance.freeSlots;
    this.#freeSlots += free - (this.#listedSlots.get(instance) ?? 0);
    this.#listedSlots.set(instance, free);
    if (free > 0 && !instance.listed) {
      instance.listed = true;
      this.#free.push(instance);
    }
  }

  #runOnFree(running: Running): void {
    let instance = this.#free.at(-1);
    while (instance !== undefined && (!instance.listed || instance.freeSlots === 0)) {
      instance.listed = false;
      this.#free.pop();
      instance = this.#free.at(-1);
    }
    if (instance === undefined) throw new Error("the pool counted a free slot that no instance has");
    instance.apply({ kind: "acquired" });
    this.#function.taken++;
    this.#list(instance);
    if (instance.freeSlots === 0) {
      instance.listed = false;
      this.#free.pop();
    }
    running.start(instance);
  }

  #drain(instance: Instance): void {
    if (instance.state.kind === "stopped") return;
    instance.apply({ kind: "drain" });
    this.#freeSlots -= this.#listedSlots.get(instance) ?? 0;
    this.#listedSlots.set(instance, 0);
    instance.listed = false;
  }

  // Queue

  #enqueue(running: Running): void {
    this.#queue.push(running);
    this.#countWaiting(1);
    running.startWaiting();
  }

  #dequeue(): Running | null {
    while (this.#queueHead < this.#queue.length) {
      const running = this.#queue[this.#queueHead++];
      if (this.#queueHead > 1_024 && this.#queueHead * 2 > this.#queue.length) {
        this.#queue = this.#queue.slice(this.#queueHead);
        this.#queueHead = 0;
      }
      if (running?.phase !== "waiting") continue;
      this.#countWaiting(-1);
      return running;
    }
    return null;
  }

  #countWaiting(by: 1 | -1): void {
    this.#waiting += by;
    this.#node.waiting += by;
  }

  // Starting

  #scaleOut(): void {
    const refused = refusal(this.#breaker, this.#parts.clock.nowMs());
    if (refused !== null && this.#instances.size === 0 && this.#starting === 0) {
      for (let running = this.#dequeue(); running !== null; running = this.#dequeue()) running.reject(refused, 1_000);
      return;
    }
    for (;;) {
      const view = this.#view();
      if (!wantsStart(view, this.#waiting)) return;
      if (!hasRoom(view, this.#node.bounds)) {
        if (!this.#node.makeRoom()) return;
        // The instance that went may have woken this pool already.
        if (!wantsStart(this.#view(), this.#waiting)) return;
      }
      this.#parts.supervise("start an instance", this.#startForQueue());
    }
  }

  async #startForQueue(): Promise<void> {
    try {
      await this.#start(this.#stopping.signal);
      this.pump();
    } catch (thrown) {
      this.#failWaiting(toKoineError(thrown));
    }
  }

  async #start(signal: AbortSignal): Promise<Instance> {
    const { clock } = this.#parts;
    const reservedBytes = this.#estimateBytes;
    const begunMs = clock.monotonicMs();
    this.#starting++;
    this.#node.starting++;
    this.#node.instances++;
    this.#node.memoryBytes += reservedBytes;
    try {
      const request = { version: this.version, runtime: this.#runtime, spares: this.#spares };
      const instance = await startInstance(this.#parts, request, signal);
      instance.reservedBytes = reservedBytes;
      instance.startMs = clock.monotonicMs() - begunMs;
      instance.ownedBy(this);
      this.#instances.add(instance);
      this.#breaker = afterStart();
      this.#list(instance);
      return instance;
    } catch (thrown) {
      const error = toKoineError(thrown);
      this.#node.instances--;
      this.#node.memoryBytes -= reservedBytes;
      this.#breaker = afterFailure(this.#breaker, error, clock.nowMs(), {
        failuresMax: this.#parts.limits.startFailuresMax,
        backoffMsMax: this.#parts.limits.startBackoffMsMax,
      });
      throw error;
    } finally {
      this.#starting--;
      this.#node.starting--;
      this.#node.startEnded();
    }
  }

  /** Those whom the failed instance would have served get its error, unless other instances can still serve them. */
  #failWaiting(error: KoineError): void {
    if (this.#instances.size === 0) {
      const covered = this.#starting * this.version.spec.instanceConcurrency;
      while (this.#waiting > covered) {
        const running = this.#dequeue();
        if (running === null) break;
        running.reject(error, 1_000);
      }
    }
    this.pump();
  }
}
