import { KoineError, toKoineError } from "../core/errors.ts";
import { type Version, versionKey } from "../core/function.ts";
import { idleSinceMs } from "../core/instance.ts";
import type { InvocationFigures, Outcome } from "../core/invocation.ts";
import { Timeouts } from "../core/timeouts.ts";
import type { Allowance } from "./allowance.ts";
import { afterFailure, afterStart, type BreakerState, CLOSED, refusal } from "./breaker.ts";
import type { Habit } from "./habit.ts";
import { type EarlyInvocation, type Instance, type InstanceOwner, startInstance } from "./instance.ts";
import { idleDueMs, type IdleView } from "./keepalive.ts";
import type { EngineParts } from "./parts.ts";
import { hasRoom, type NodeBounds, place, type PlaceView, wantsStart } from "./place.ts";
import type { Recipe } from "./recipe.ts";
import type { Caller } from "./residents.ts";
import type { Running, RunningOwner } from "./running.ts";
import type { SparePool } from "./spares.ts";

/** Slots of one function, over all its versions. */
export interface FunctionSlots {
  taken: number;
  /** Of the newest version's spec; where engines share it, the part of it that is this one's now. */
  max: number | null;
  /** Null: there is no bound, or no other engine. */
  allowance: Allowance | null;
  readonly pools: Set<InstancePool>;
  /** What is remembered of its calls; null before the first. */
  habit: Habit<Caller> | null;
}

/** Instances that are kept whether anybody calls or not. */
export interface Provisioned {
  readonly wanted: number;
  /** Those that can take calls, or do. */
  readonly ready: number;
  readonly starting: number;
  /** Why the last start failed; null: it did not. */
  readonly error: KoineError | null;
}

/** What the pools of one node share. */
export interface NodeState {
  instances: number;
  memoryBytes: number;
  starting: number;
  /** Invocations that wait for a slot, of all versions. */
  waiting: number;
  /** The pools they wait in. */
  readonly starving: Set<InstancePool>;
  readonly bounds: NodeBounds;
  /** Bounds the time in queues. */
  readonly waits: Timeouts;
  /** Stops the idle instance that is missed least; false when none is idle. */
  makeRoom(): boolean;
  /** So much memory is missing: other engines may have some to spare. */
  wantMemory(bytes: number): void;
  /** An instance has become idle or has ended: pools that starve may try again. On the path of every invocation. */
  roomChanged(): void;
  /** An instance has started, or failed to. */
  startEnded(): void;
  finished(running: Running, outcome: Outcome, figures: InvocationFigures): void;
}

const ESTIMATE_BYTES_FIRST = 64 * 1024 * 1024;
const STOP_GRACE_MS = 2_000;
/** How much of a new figure enters the average cost of a start. */
const COLD_MS_STEP = 0.25;

/** All Instances of one Version on this node, and the invocations that wait for one. */
export class InstancePool implements InstanceOwner, RunningOwner {
  readonly version: Version;
  readonly #parts: EngineParts;
  readonly #recipe: Recipe;
  readonly #spares: SparePool | null;
  readonly functionSlots: FunctionSlots;
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
  /** Whether a look at what can be frozen is due. */
  #freezes = false;
  #provisioned = 0;
  #provisionError: KoineError | null = null;
  #estimateBytes = ESTIMATE_BYTES_FIRST;
  readonly #stopping = new AbortController();
  readonly deadlines: Timeouts;

  constructor(
    parts: EngineParts,
    context: {
      version: Version;
      recipe: Recipe;
      spares: SparePool | null;
      functionSlots: FunctionSlots;
      node: NodeState;
    },
  ) {
    this.#parts = parts;
    this.version = context.version;
    this.#recipe = context.recipe;
    this.#spares = context.spares;
    this.functionSlots = context.functionSlots;
    this.#node = context.node;
    this.deadlines = new Timeouts(parts.clock, context.version.spec.timeoutMs);
  }

  get waits(): Timeouts {
    return this.#node.waits;
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
    return this.#instances.size === 0 && this.#starting === 0 && this.#waiting === 0 && this.#provisioned === 0;
  }

  get provisioned(): Provisioned {
    let ready = 0;
    for (const { state } of this.#instances) if (state.kind === "busy" || idleSinceMs(state) !== null) ready++;
    return { wanted: this.#provisioned, ready, starting: this.#starting, error: this.#provisionError };
  }

  /** Keeps so many instances from now on. */
  provision(count: number): void {
    this.#provisioned = count;
    this.#provisionError = null;
    this.refill();
  }

  /** Starts what is missing of the instances that are to be kept, as far as there is room. */
  refill(): void {
    while (this.#instances.size + this.#starting < this.#provisioned) {
      if (this.#stopping.signal.aborted || refusal(this.#breaker, this.#parts.clock.nowMs()) !== null) return;
      if (!hasRoom(this.#view(), this.#node.bounds)) {
        this.#node.wantMemory(this.#estimateBytes);
        if (!this.#node.makeRoom()) return;
      }
      this.#parts.supervise("start a provisioned instance", this.#startProvisioned());
    }
  }

  async #startProvisioned(): Promise<void> {
    try {
      await this.#start(this.#stopping.signal, { isCheck: false });
      this.#provisionError = null;
      this.pump();
    } catch (thrown) {
      this.#provisionError = toKoineError(thrown);
      this.#failWaiting(this.#provisionError);
    }
  }

  admit(running: Running): void {
    const placement =
      running.invocation.impatient === true && this.#isFull() ? "reject" : place(this.#view(), this.#node.bounds);
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
    const instance = await this.#start(signal, { isCheck: true });
    this.pump();
    return instance;
  }

  /** Takes all present instances out of service: idle ones stop now, busy ones when their invocations have ended. Calls that still come get new ones. */
  retire(): void {
    for (const instance of this.#instances) {
      if (idleSinceMs(instance.state) !== null) this.stopIdle(instance);
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
    this.functionSlots.allowance?.settle();
  }

  /** Starts an instance for calls that are expected; false when the function may not or cannot have one, or has one. */
  startAhead(): boolean {
    const refused = refusal(this.#breaker, this.#parts.clock.nowMs());
    if (refused !== null || this.#instances.size > 0 || this.#starting > 0 || !this.#mayRun()) return false;
    // Whoever fixes the idle time wants instances to stop by it, and one that is not called at once would.
    if (this.version.spec.idleTimeoutMs !== null) return false;
    if (!hasRoom(this.#view(), this.#node.bounds)) return false;
    this.#parts.supervise("start an instance ahead", this.#startForQueue());
    return true;
  }

  *idleViews(): Iterable<IdleView<{ pool: InstancePool; instance: Instance }>> {
    const { idleTimeoutMs: specMs } = this.version.spec;
    const { idleTimeoutMs: defaultMs } = this.#parts.settings;
    const { habit } = this.functionSlots;
    const kept = this.#instanceToKeep();
    let provisioned = this.#provisioned;
    for (const { state } of this.#instances) if (state.kind === "busy") provisioned--;
    for (const instance of this.#instances) {
      const sinceMs = idleSinceMs(instance.state);
      if (sinceMs === null || provisioned-- > 0) continue;
      const judged = instance === kept ? habit : null;
      const verdict = judged?.verdict ?? "pending";
      const dueMs = idleDueMs({ idleSinceMs: sinceMs, specMs, defaultMs, verdict });
      yield { key: { pool: this, instance }, idleSinceMs: sinceMs, dueMs, worth: judged?.worth ?? 0 };
    }
  }

  /** Freezes what has been idle for long enough; answers when to ask again, or null when nothing is idle and runs. */
  freezeIdle(nowMs: number): number | null {
    const freezeAfterMs = this.version.spec.freezeAfterMs ?? this.#parts.limits.freezeAfterMs;
    let nextAtMs: number | null = null;
    for (const instance of this.#instances) {
      if (instance.state.kind !== "idle") continue;
      const dueMs = instance.state.sinceMs + freezeAfterMs;
      if (dueMs <= nowMs) instance.freeze();
      else nextAtMs = Math.min(dueMs, nextAtMs ?? dueMs);
    }
    return nextAtMs;
  }

  stopIdle(instance: Instance): void {
    if (idleSinceMs(instance.state) === null) return;
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
    if (instance.listed) this.#freeSlots -= instance.listedSlots;
    instance.listedSlots = 0;
    instance.listed = false;
    this.#countInstance(-1);
    this.#node.instances--;
    this.#node.memoryBytes -= instance.reservedBytes;
    this.pump();
    this.refill();
    this.#node.roomChanged();
  }

  // RunningOwner

  left(running: Running): void {
    if (running.phase !== "waiting") return;
    this.#countWaiting(-1);
    this.functionSlots.allowance?.settle();
  }

  released(instance: Instance): void {
    this.functionSlots.taken--;
    instance.apply({ kind: "released" });
    this.#estimateBytes = Math.max(this.#estimateBytes, instance.memoryBytes);
    const { state } = instance;
    if (state.kind === "draining" && state.slotsTaken === 0) instance.stop(STOP_GRACE_MS);
    else if (state.kind === "idle" || state.kind === "busy") this.#list(instance);
    this.functionSlots.allowance?.settle();
    if (this.#waiting > 0) this.pump();
    for (const pool of this.functionSlots.pools) if (pool !== this && pool.waiting > 0) pool.pump();
    if (instance.state.kind !== "idle") return;
    this.#node.roomChanged();
    if (this.version.spec.freezeAfterMs !== undefined) this.#freezeSoon(this.version.spec.freezeAfterMs);
  }

  /** For versions that say when: the node's own sweep is too rare for that. */
  #freezeSoon(withinMs: number): void {
    if (this.#freezes) return;
    this.#freezes = true;
    const { clock } = this.#parts;
    clock.after(withinMs, () => {
      this.#freezes = false;
      const nextAtMs = this.freezeIdle(clock.nowMs());
      if (nextAtMs !== null) this.#freezeSoon(Math.max(1, nextAtMs - clock.nowMs()));
    });
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

  // Keeping

  /** The plan keeps one instance of a function, of the version called last: the one used last, if none is busy. */
  #instanceToKeep(): Instance | null {
    const called = this.functionSlots.habit?.owner.version ?? null;
    if (called === null || versionKey(called) !== versionKey(this.version)) return null;
    let newest: Instance | null = null;
    let newestMs = Number.NEGATIVE_INFINITY;
    for (const instance of this.#instances) {
      if (instance.state.kind === "busy") return null;
      const sinceMs = idleSinceMs(instance.state);
      if (sinceMs === null || sinceMs <= newestMs) continue;
      newest = instance;
      newestMs = sinceMs;
    }
    return newest;
  }

  /** Tells the plan how many instances the function has, and what another costs. */
  #countInstance(by: 1 | -1): void {
    const { habit } = this.functionSlots;
    if (habit === null) return;
    habit.instances += by;
    habit.bytes = this.#estimateBytes;
  }

  // Slots

  /** Whether the function holds all the slots that it may. Where engines share them, only none at all is certain. */
  #isFull(): boolean {
    const { max, taken, allowance } = this.functionSlots;
    if (max === null) return false;
    return allowance === null ? taken + this.#waiting >= max : allowance.max === 0;
  }

  #mayRun(): boolean {
    return this.functionSlots.max === null || this.functionSlots.taken < this.functionSlots.max;
  }

  #view(): PlaceView {
    return {
      freeSlots: this.#freeSlots,
      waiting: this.#waiting,
      startingSlots: this.#starting * this.version.spec.instanceConcurrency,
      functionSlotsTaken: this.functionSlots.taken,
      functionSlotsMax: this.functionSlots.max,
      nodeInstances: this.#node.instances,
      nodeMemoryBytes: this.#node.memoryBytes,
      instanceMemoryBytes: this.#estimateBytes,
    };
  }

  /** Counts an instance's free slots; the list gives the most recently used one first. */
  #list(instance: Instance): void {
    const free = instance.freeSlots;
    this.#freeSlots += free - instance.listedSlots;
    instance.listedSlots = free;
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
    instance.acquire();
    this.functionSlots.taken++;
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
    this.#freeSlots -= instance.listedSlots;
    instance.listedSlots = 0;
    instance.listed = false;
  }

  // Queue

  #enqueue(running: Running): void {
    this.#queue.push(running);
    this.#countWaiting(1);
    running.startWaiting();
  }

  #dequeue(): Running | null {
    const running = this.#nextInQueue();
    if (running !== null) this.#countWaiting(-1);
    return running;
  }

  /** Counts as waiting still. */
  #nextInQueue(): Running | null {
    while (this.#queueHead < this.#queue.length) {
      const running = this.#queue[this.#queueHead++];
      if (this.#queueHead > 1_024 && this.#queueHead * 2 > this.#queue.length) {
        this.#queue = this.#queue.slice(this.#queueHead);
        this.#queueHead = 0;
      }
      if (running?.phase === "waiting") return running;
    }
    return null;
  }

  #countWaiting(by: 1 | -1): void {
    this.#waiting += by;
    this.#node.waiting += by;
    if (this.#waiting === 0) this.#node.starving.delete(this);
    else if (this.#waiting === 1) this.#node.starving.add(this);
  }

  // Starting

  #scaleOut(): void {
    const refused = refusal(this.#breaker, this.#parts.clock.nowMs());
    if (refused !== null && this.#instances.size === 0 && this.#starting === 0) {
      for (let running = this.#dequeue(); running !== null; running = this.#dequeue()) running.reject(refused, 1_000);
      return;
    }
    const { allowance, taken } = this.functionSlots;
    allowance?.need(taken + this.#waiting);
    for (;;) {
      const view = this.#view();
      if (!wantsStart(view, this.#waiting)) return;
      if (!hasRoom(view, this.#node.bounds)) {
        this.#node.wantMemory(this.#estimateBytes);
        if (!this.#node.makeRoom()) return;
        // The instance that went may have woken this pool already.
        if (!wantsStart(this.#view(), this.#waiting)) return;
      }
      this.#parts.supervise("start an instance", this.#startForQueue());
    }
  }

  async #startForQueue(): Promise<void> {
    try {
      await this.#start(this.#stopping.signal, { isCheck: false });
      this.pump();
    } catch (thrown) {
      this.#failWaiting(toKoineError(thrown));
    }
  }

  async #start(signal: AbortSignal, { isCheck }: { readonly isCheck: boolean }): Promise<Instance> {
    const { clock } = this.#parts;
    const reservedBytes = this.#estimateBytes;
    const begunMs = clock.monotonicMs();
    this.#starting++;
    this.#countInstance(1);
    this.#node.starting++;
    this.#node.instances++;
    this.#node.memoryBytes += reservedBytes;
    let early: Running | null = null;
    const takeEarly = (): EarlyInvocation | null => (early = isCheck ? null : this.#takeEarly());
    const loaded = (instance: Instance): void => {
      instance.reservedBytes = reservedBytes;
      instance.startMs = clock.monotonicMs() - begunMs;
      instance.ownedBy(this);
      this.#instances.add(instance);
      this.#breaker = afterStart();
      this.#countStart(instance.startMs);
      if (early === null) this.#list(instance);
      else this.#runEarly(early, instance);
    };
    try {
      const { version } = this;
      const request = { version, recipe: this.#recipe, spares: this.#spares, isCheck, takeEarly, loaded };
      return await startInstance(this.#parts, request, signal);
    } catch (thrown) {
      const error = toKoineError(thrown);
      if (early !== null) this.#rejectEarly(early, error);
      this.#countInstance(-1);
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

  /**
   * The invocation that waits longest, to be sent before the instance can run it. Only while there is no instance that could run it sooner, and
   * where the function's slots are not counted: its own counts as taken only when it runs.
   */
  #takeEarly(): Running | null {
    if (this.#instances.size > 0 || this.functionSlots.max !== null) return null;
    return this.#nextInQueue();
  }

  #runEarly(running: Running, instance: Instance): void {
    this.#countWaiting(-1);
    instance.acquire();
    this.functionSlots.taken++;
    this.#list(instance);
    running.start(instance);
  }

  #rejectEarly(running: Running, error: KoineError): void {
    this.#countWaiting(-1);
    running.reject(error, 1_000);
  }

  #countStart(startMs: number): void {
    const { habit } = this.functionSlots;
    if (habit !== null) habit.coldMs += (Math.max(1, startMs) - habit.coldMs) * COLD_MS_STEP;
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
