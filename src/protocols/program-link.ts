import { setTimeout as delay } from "node:timers/promises";
import type { Exchange } from "../core/invocation.ts";
import type {
  Link,
  LinkEvents,
  LinkInvocation,
  LinkResponder,
  Reach,
  Specialisation,
  Specialised,
} from "./protocol.ts";

/** An invocation that is under way. */
export interface OpenCall extends Exchange {
  /** The program is gone: tells `lost`. */
  lost(): void;
}

/**
 * What links to programs of the user's have in common: such a program runs from the start, is specialised by its launch, and its end is the
 * link's end.
 */
export abstract class ProgramLink<Call extends OpenCall> implements Link {
  protected readonly reach: Reach;
  protected readonly events: LinkEvents;
  readonly #calls = new Set<Call>();
  readonly #closing = new AbortController();
  #isClosed = false;

  constructor(reach: Reach, events: LinkEvents) {
    this.reach = reach;
    this.events = events;
    reach.channel.on("error", () => {});
    void reach.ended.then(() => this.#ended());
  }

  async ready(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
  }

  async specialise(specialisation: Specialisation, signal: AbortSignal): Promise<Specialised> {
    const beganMs = performance.now();
    const handlerModel = await this.prepare(specialisation, AbortSignal.any([signal, this.#closing.signal]));
    return { handlerModel, loadMs: performance.now() - beganMs };
  }

  invoke(invocation: LinkInvocation, responder: LinkResponder): Exchange {
    const call = this.open(invocation, responder);
    if (this.over) {
      // Answered after this call returned, so that the caller holds its exchange first.
      queueMicrotask(() => call.lost());
      return call;
    }
    this.#calls.add(call);
    this.begin(call);
    return call;
  }

  async ping(): Promise<boolean> {
    return !this.over;
  }

  close(): void {
    this.#abandon();
  }

  protected get over(): boolean {
    return this.#closing.signal.aborted;
  }

  protected get openCalls(): ReadonlySet<Call> {
    return this.#calls;
  }

  /** Must be called once for each call that has told its end. */
  protected settled(call: Call): void {
    this.#calls.delete(call);
  }

  /** Waits until the program can be used; answers what is shown as its handler model. */
  protected abstract prepare(specialisation: Specialisation, signal: AbortSignal): Promise<string>;
  protected abstract open(invocation: LinkInvocation, responder: LinkResponder): Call;
  protected abstract begin(call: Call): void;
  /** Lets go of what belongs to the link; it is over. */
  protected abstract release(): void;

  /** Whether the program ends within a moment: what looks like a broken connection then is its end. */
  async endsSoon(withinMs: number): Promise<boolean> {
    if (this.over) return true;
    const waited = new AbortController();
    const timeout = delay(withinMs, false, { signal: waited.signal, ref: false }).catch(() => false);
    const ends = await Promise.race([this.reach.ended.then(() => true), timeout]);
    waited.abort();
    return ends;
  }

  #ended(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#abandon();
    this.events.closed("the program ended");
  }

  #abandon(): void {
    if (this.over) return;
    this.#closing.abort(new Error("the program ended"));
    const calls = [...this.#calls];
    this.#calls.clear();
    for (const call of calls) call.lost();
    this.release();
  }
}
