import { createHash } from "node:crypto";
import type { Clock } from "../../core/clock.ts";
import type { SandboxRequest } from "../sandbox.ts";
import type { Container } from "./container.ts";

export interface AheadOptions {
  readonly clock: Clock;
  /** Most containers that wait. */
  readonly max: number;
  /** How long one waits after the last request like it, in milliseconds. */
  readonly waitMs: number;
  /** Starts one whose image's program does not begin yet. */
  make(request: SandboxRequest): Promise<Container>;
}

interface Waiting {
  readonly request: SandboxRequest;
  container: Container | null;
  /** Whether one is about to be made. */
  isComing: boolean;
  cancelExpiry: () => void;
}

/** The container for the next request is made when the processor has got over the last one, in milliseconds. */
const MAKE_AFTER_MS = 500;

/**
 * Containers that were started before anybody asked, at most one for each kind of request, for requests that were seen lately. Nothing of
 * the image has run in them: they cost some memory of the engine's, and save what the engine needs to set one up.
 */
export class ContainersAhead {
  readonly #options: AheadOptions;
  /** In the order of their last request. */
  readonly #waiting = new Map<string, Waiting>();
  readonly #making = new Set<Promise<void>>();
  #closed = false;

  constructor(options: AheadOptions) {
    this.#options = options;
  }

  /** A container for a request, if one waits; and the next one like it is made soon. */
  take(request: SandboxRequest): Container | null {
    const { max, clock } = this.#options;
    // In the machine's network each instance has another port, and so no two requests are alike.
    if (max === 0 || this.#closed || request.mounts.length > 0 || request.network === "host") return null;
    const key = keyOf(request);
    const waiting = this.#waiting.get(key) ?? { request, container: null, isComing: false, cancelExpiry: () => {} };
    const { container } = waiting;
    waiting.container = null;
    this.#waiting.delete(key);
    this.#waiting.set(key, waiting);
    waiting.cancelExpiry();
    waiting.cancelExpiry = clock.after(this.#options.waitMs, () => this.#drop(key, waiting));
    if (!waiting.isComing) {
      waiting.isComing = true;
      clock.after(MAKE_AFTER_MS, () => this.#begin(key, waiting));
    }
    for (const [oldKey, old] of this.#waiting) {
      if (this.#waiting.size <= max) break;
      this.#drop(oldKey, old);
    }
    return container;
  }

  /** Ends those of an image that is about to be removed. */
  forget(image: string): void {
    for (const [key, waiting] of this.#waiting) if (waiting.request.image === image) this.#drop(key, waiting);
  }

  /** Those that wait now. */
  get containers(): readonly Container[] {
    return [...this.#waiting.values()].flatMap(({ container }) => container ?? []);
  }

  async close(): Promise<void> {
    this.#closed = true;
    const ending = this.containers.map((container) => container.remove());
    for (const [key, waiting] of this.#waiting) this.#drop(key, waiting);
    await Promise.all([...ending, ...this.#making]);
  }

  #begin(key: string, waiting: Waiting): void {
    if (!this.#isWanted(key, waiting)) return;
    const making = this.#make(key, waiting).finally(() => {
      waiting.isComing = false;
      this.#making.delete(making);
    });
    this.#making.add(making);
  }

  async #make(key: string, waiting: Waiting): Promise<void> {
    let container: Container;
    try {
      container = await this.#options.make(waiting.request);
    } catch {
      // The next request tries again, and tells what is wrong.
      this.#drop(key, waiting);
      return;
    }
    if (!this.#isWanted(key, waiting)) {
      await container.remove();
      return;
    }
    waiting.container = container;
    void container.ended.then(() => {
      if (waiting.container === container) this.#drop(key, waiting);
    });
  }

  #isWanted(key: string, waiting: Waiting): boolean {
    return this.#waiting.get(key) === waiting && !this.#closed;
  }

  #drop(key: string, waiting: Waiting): void {
    waiting.cancelExpiry();
    if (this.#waiting.get(key) === waiting) this.#waiting.delete(key);
    void waiting.container?.remove();
    waiting.container = null;
  }
}

/** Equal for requests that the same container can serve. */
function keyOf({ image, command, environment, limits, network, allowNetwork, cwd, idle }: SandboxRequest): string {
  const variables = Object.entries(environment).sort(([a], [b]) => (a < b ? -1 : 1));
  const parts = [
    image,
    command,
    variables,
    Object.entries(limits),
    network,
    (allowNetwork ?? []).map(({ text }) => text),
    cwd ?? null,
    idle === true,
  ];
  return createHash("sha256").update(JSON.stringify(parts)).digest("hex");
}
