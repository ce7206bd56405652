import { Agent, type ClientRequest } from "node:http";
import type { Duplex } from "node:stream";
import { type Clock, systemClock } from "../core/clock.ts";
import { limits } from "../core/limits.ts";
import { Timed, Timeouts } from "../core/timeouts.ts";

/** What Node's requests do with their agent's connections, which its types do not tell. */
interface Assignable {
  reusedSocket: boolean;
  readonly destroyed: boolean;
  onSocket(stream: Duplex | null, error?: Error): void;
}

/**
 * Connections to one program, kept for further requests. Not Node's own pool: that gives a connection to the next request in the moment in
 * which it is free, and whatever a program had sent without having been asked would be taken for its answer.
 */
export class Connections extends Agent {
  readonly #connect: () => Promise<Duplex>;
  readonly #all = new Set<Duplex>();
  /** The most recently used last. */
  readonly #idle: Kept[] = [];
  readonly #timeouts: Timeouts;
  #isClosed = false;

  constructor(connect: () => Promise<Duplex>, clock: Clock = systemClock) {
    super({ keepAlive: true });
    this.#connect = connect;
    this.#timeouts = new Timeouts(clock, limits.programConnectionIdleMsMax);
  }

  /** Node's requests ask for their connection by this. */
  addRequest(request: ClientRequest & Assignable): void {
    const kept = this.#take();
    if (kept !== null) {
      request.reusedSocket = true;
      request.onSocket(kept);
      return;
    }
    this.#connect().then(
      (stream) => {
        if (this.#isClosed) stream.destroy();
        this.#watch(stream);
        request.onSocket(stream);
      },
      (thrown: unknown) => request.onSocket(null, thrown instanceof Error ? thrown : new Error(String(thrown))),
    );
  }

  override destroy(): void {
    this.#isClosed = true;
    this.#timeouts.close();
    for (const stream of this.#all) stream.destroy();
    super.destroy();
  }

  #watch(stream: Duplex): void {
    this.#all.add(stream);
    const onFree = (): void => this.#freed(stream);
    stream.on("free", onFree);
    stream.once("close", () => this.#all.delete(stream));
    // It speaks another protocol from here on, and belongs to who asked for that.
    stream.once("agentRemove", () => {
      stream.off("free", onFree);
      this.#all.delete(stream);
    });
  }

  #freed(stream: Duplex): void {
    if (stream.destroyed || !stream.writable || this.#isClosed) {
      stream.destroy();
      return;
    }
    const kept = new Kept(stream, () => this.#forget(kept));
    // By then what came with the answer and is none has been read, and has ended the connection.
    setImmediate(() => setImmediate(() => this.#keep(kept)));
  }

  #keep(kept: Kept): void {
    if (kept.stream.destroyed) return;
    if (this.#isClosed || this.#idle.length >= limits.programConnectionsIdleMax) {
      kept.stream.destroy();
      return;
    }
    this.#idle.push(kept);
    this.#timeouts.add(kept);
  }

  #take(): Duplex | null {
    for (let kept = this.#idle.pop(); kept !== undefined; kept = this.#idle.pop()) {
      this.#timeouts.remove(kept);
      kept.release();
      if (!kept.stream.destroyed && kept.stream.writable) return kept.stream;
    }
    return null;
  }

  #forget(kept: Kept): void {
    this.#timeouts.remove(kept);
    const at = this.#idle.indexOf(kept);
    if (at >= 0) this.#idle.splice(at, 1);
  }
}

/** A connection on which nothing is asked: whatever comes ends it. */
class Kept extends Timed {
  readonly stream: Duplex;
  readonly #gone: () => void;
  readonly #onData = (): void => void this.stream.destroy();

  constructor(stream: Duplex, gone: () => void) {
    super();
    this.stream = stream;
    this.#gone = gone;
    stream.on("data", this.#onData).on("end", this.#onData).on("close", this.#gone);
  }

  override timedOut(): void {
    this.stream.destroy();
  }

  /** It is used again. */
  release(): void {
    this.stream.off("data", this.#onData).off("end", this.#onData).off("close", this.#gone);
  }
}
