import { type ErrorReport, KoineError } from "../core/errors.ts";
import type { Version } from "../core/function.ts";
import type {
  Activation,
  Exchange,
  Invocation,
  InvocationFigures,
  Outcome,
  Responder,
  ResponseHead,
} from "../core/invocation.ts";
import { Timed, type Timeouts } from "../core/timeouts.ts";
import type { Link, LinkResponder } from "../protocols/protocol.ts";
import { endError } from "./endings.ts";
import type { Instance } from "./instance.ts";
import type { EngineParts } from "./parts.ts";

/** What an invocation needs of its pool, and tells it. */
export interface RunningOwner {
  /** Bounds the time on an instance. */
  readonly deadlines: Timeouts;
  /** Bounds the time in the queue. */
  readonly waits: Timeouts;
  /** It will not wait any longer: cancelled or waited too long. */
  left(running: Running): void;
  /** Its slot is free again; `instance` may be stopped by now. */
  released(instance: Instance): void;
  /** It ran out of time on this instance, which cannot be trusted to stop by itself. */
  overran(instance: Instance): void;
  /** The outcome is known: figures for metrics. */
  finished(running: Running, outcome: Outcome, figures: InvocationFigures): void;
}

const SWITCHING = 101;

/** `sent`: to an instance that still loads. */
type Phase = "waiting" | "sent" | "running" | "settled";

/** One invocation from arrival to its settled end: first in the wait queue, then on an instance. */
export class Running extends Timed implements Exchange, LinkResponder {
  readonly invocation: Invocation;
  readonly version: Version;
  phase: Phase = "waiting";
  readonly #parts: EngineParts;
  readonly #responder: Responder;
  readonly #owner: RunningOwner;
  readonly #arrivedMs: number;
  #startedMs = 0;
  #startedAtMs = 0;
  #waited = false;
  #cold = false;
  #startMs = 0;
  #instance: Instance | null = null;
  #exchange: Exchange | null = null;
  #told = false;
  #cancelled = false;
  #status: number | null = null;
  /** Body that came while waiting. */
  #pending: Buffer[] | null = null;
  #pendingEnd = false;

  constructor(parts: EngineParts, owner: RunningOwner, version: Version, invocation: Invocation, responder: Responder) {
    super();
    this.#parts = parts;
    this.#owner = owner;
    this.version = version;
    this.invocation = invocation;
    this.#responder = responder;
    this.#arrivedMs = parts.clock.monotonicMs();
  }

  /** Bounds the time in the queue; not needed when a slot is had at once. */
  startWaiting(): void {
    this.#waited = true;
    this.#owner.waits.add(this, this.#arrivedMs);
  }

  override timedOut(): void {
    if (this.phase === "running") this.#overran();
    else if (this.phase === "waiting") {
      this.#owner.left(this);
      this.reject(new KoineError("too-many-requests", { name: this.version.name }), 1_000);
    }
  }

  /** Goes to an instance that still loads; `start` or `reject` follows. */
  sendEarly(link: Link): void {
    this.phase = "sent";
    this.timeouts?.remove(this);
    this.#send(link, this.#parts.clock.nowMs());
  }

  /** Runs on an instance whose slot has been taken for it. */
  start(instance: Instance): void {
    const { clock } = this.#parts;
    this.phase = "running";
    this.#instance = instance;
    this.#startedMs = this.#waited ? clock.monotonicMs() : this.#arrivedMs;
    this.#startedAtMs = clock.nowMs();
    this.#cold = this.#waited && instance.served === 0;
    this.#startMs = this.#cold ? Math.min(instance.startMs, this.#startedMs - this.#arrivedMs) : 0;
    instance.invocationStarted(this.invocation.id);
    instance.watch?.started(this.invocation.id, this.#startedAtMs);
    this.#owner.deadlines.add(this, this.#startedMs);
    if (this.#exchange === null) this.#send(instance.link, this.#startedAtMs);
  }

  #send(link: Link, nowMs: number): void {
    const { id, call, attempt, body, bodyComplete } = this.invocation;
    const deadlineMs = nowMs + this.version.spec.timeoutMs;
    this.#exchange = link.invoke({ id, call, attempt, deadlineMs, body, bodyComplete }, this);
    if (this.#pending !== null || this.#pendingEnd) this.#sendPending(this.#exchange);
    else if (!bodyComplete) this.#responder.drained?.();
  }

  /** Ends it without having run. */
  reject(error: KoineError, retryAfterMs: number): void {
    this.timeouts?.remove(this);
    this.phase = "settled";
    if (this.#cancelled) return this.#tell(cancelledOutcome());
    const rejected = error.fault === "function" ? null : retryAfterMs;
    const report = error.report();
    this.#tell(
      rejected === null
        ? { kind: "failed", fault: error.fault, error: report }
        : { kind: "rejected", error: report, retryAfterMs: rejected },
    );
  }

  // Exchange: what the caller does

  write(chunk: Buffer): boolean {
    if (this.phase === "settled" || this.#told) return true;
    if (this.#exchange !== null) return this.#exchange.write(chunk);
    this.#pending ??= [];
    this.#pending.push(chunk);
    return false;
  }

  end(): void {
    if (this.#exchange === null) this.#pendingEnd = true;
    else if (this.phase !== "settled") this.#exchange.end();
  }

  resume(): void {
    if (this.phase !== "settled") this.#exchange?.resume();
  }

  cancel(): void {
    if (this.#told || this.#cancelled) return;
    this.#cancelled = true;
    if (this.phase === "running" || this.phase === "sent") {
      this.#exchange?.cancel();
      return;
    }
    if (this.phase === "waiting") {
      this.#owner.left(this);
      this.phase = "settled";
      this.timeouts?.remove(this);
      this.#tell(cancelledOutcome());
    }
  }

  /** Ends it for good, whatever its handler does about that: somebody asked for it. */
  stop(): void {
    if (this.#told) return;
    const error = new KoineError("cancelled");
    const outcome: Outcome = { kind: "failed", fault: error.fault, error: error.report() };
    if (this.phase === "waiting") {
      this.#owner.left(this);
      this.phase = "settled";
      this.timeouts?.remove(this);
      this.#tell(outcome);
    } else this.#endNow(outcome);
  }

  // LinkResponder: what the instance does

  head(head: ResponseHead): void {
    if (this.#told) return;
    this.#status = head.status;
    // A connection that was upgraded lives by the bounds of such connections.
    if (head.status === SWITCHING) this.timeouts?.remove(this);
    this.#responder.head(head, this.#cold ? "cold" : "warm");
  }

  body(chunk: Buffer, last?: boolean): boolean {
    return this.#told ? true : this.#responder.body(chunk, last);
  }

  drained(): void {
    if (!this.#told) this.#responder.drained?.();
  }

  bodyEnded(): void {
    if (!this.#told) this.#responder.bodyEnded();
  }

  succeeded(): void {
    this.#settle(this.#cancelled ? cancelledOutcome() : { kind: "succeeded" });
  }

  failed(error: ErrorReport): void {
    this.#settle(this.#cancelled ? cancelledOutcome() : { kind: "failed", fault: error.fault, error });
  }

  lost(): void {
    const instance = this.#instance;
    if (instance === null) return;
    this.#parts.supervise(
      "ask why an instance ended",
      instance.ended.then((end) => {
        const error = endError(end, this.version.spec);
        this.#settle({ kind: "failed", fault: error.fault, error: error.report() });
      }),
    );
  }

  #settle(outcome: Outcome): void {
    if (this.phase === "settled") return;
    this.phase = "settled";
    this.timeouts?.remove(this);
    const instance = this.#instance;
    instance?.invocationEnded(this.invocation.id);
    this.#tell(outcome);
    if (instance !== null) this.#owner.released(instance);
  }

  #overran(): void {
    const error = new KoineError("function-timed-out", { timeoutMs: this.version.spec.timeoutMs });
    this.#endNow(this.#cancelled ? cancelledOutcome() : { kind: "timedOut", error: error.report() });
  }

  #endNow(outcome: Outcome): void {
    this.#tell(outcome);
    this.#exchange?.cancel();
    if (this.#instance !== null) this.#owner.overran(this.#instance);
  }

  #sendPending(exchange: Exchange): void {
    let flowing = true;
    for (const chunk of this.#pending ?? []) flowing = exchange.write(chunk);
    this.#pending = null;
    if (this.#pendingEnd) exchange.end();
    else if (flowing) this.#responder.drained?.();
  }

  #tell(outcome: Outcome): void {
    if (this.#told) return;
    this.#told = true;
    const figures = this.#figures();
    const activation = this.#activation(outcome, figures);
    this.#owner.finished(this, outcome, figures);
    this.#instance?.watch?.finished(activation);
    this.#responder.ended(outcome, figures);
    this.#parts.onFinished(activation);
  }

  #figures(): InvocationFigures {
    const nowMs = this.#parts.clock.monotonicMs();
    const ran = this.#instance !== null;
    return {
      cold: this.#cold,
      queuedMs: (ran ? this.#startedMs : nowMs) - this.#arrivedMs,
      startMs: this.#startMs,
      durationMs: ran ? nowMs - this.#startedMs : 0,
      memoryBytes: this.#instance?.sampleMemory(nowMs) ?? 0,
      instanceId: this.#instance?.id ?? "",
    };
  }

  #activation(outcome: Outcome, figures: InvocationFigures): Activation {
    const { invocation, version } = this;
    return {
      id: invocation.id,
      namespace: version.namespace,
      package: version.package,
      name: version.name,
      version: version.number,
      mode: invocation.mode,
      attempt: invocation.attempt,
      state: outcome.kind,
      startedAtMs: invocation.receivedAtMs,
      durationMs: figures.durationMs,
      queuedMs: figures.queuedMs,
      startMs: figures.startMs,
      cold: figures.cold,
      memoryBytes: figures.memoryBytes,
      status: this.#status,
      error: outcome.kind === "succeeded" ? null : outcome.error,
      instanceId: figures.instanceId,
    };
  }
}

function cancelledOutcome(): Outcome {
  return { kind: "failed", fault: "caller", error: new KoineError("client-closed-request").report() };
}
