import type { Clock } from "../../core/clock.ts";
import { toKoineError } from "../../core/errors.ts";
import type { Logger, Supervise } from "../../core/telemetry.ts";
import type { Store, ValueEntry } from "../../store/store.ts";

const NODES = "nodes";
const CLAIMS = "trigger-claims";
const PAGE = 1_000;
const CHANGES_PER_COMMIT = 500;
const BEATS_PER_LEASE = 3;

interface Claim {
  /** Empty: given back. */
  readonly node: string;
}

export interface ClaimsOptions {
  readonly values: Store["values"];
  readonly clock: Clock;
  readonly logger: Logger;
  readonly supervise: Supervise;
  /** Unique among the nodes of a store; the same after a restart where that is known to be the only one. */
  readonly node: string;
  readonly leaseMs: number;
  /** This node could not show itself in time: others may have its triggers now. */
  readonly onLost: () => void;
  /** After each beat: triggers of nodes that are gone may be free. */
  readonly onBeat: () => void;
}

/**
 * Which node runs a trigger. A node shows that it lives by one small write every few seconds, however many triggers it has; a claim counts while the
 * node that made it does so. Whether another lives is judged by how long its record has not changed by our own clock, so no two clocks are compared.
 */
export class Claims {
  readonly #options: ClaimsOptions;
  readonly #mine = new Set<string>();
  /** Of other nodes: their record, and since when by the monotonic clock it is the same. */
  readonly #others = new Map<string, { readonly revision: number; readonly sinceMs: number }>();
  readonly #claims = new Map<string, ValueEntry>();
  /** Who had a trigger when this node claimed it. */
  readonly #before = new Map<string, string>();
  #shownAtMs = Number.NEGATIVE_INFINITY;
  #beat = 0;
  #cancelTimer = (): void => {};
  #running = false;
  #lost = false;

  constructor(options: ClaimsOptions) {
    this.#options = options;
  }

  /** Shows this node; resolves when others can see it. */
  async start(): Promise<void> {
    this.#running = true;
    await this.#show();
    await this.#loadClaims();
    this.#later();
  }

  /** Whether this node may run the trigger, as far as it knows. */
  holds(id: string): boolean {
    return this.#mine.has(id) && !this.#lost;
  }

  /** The node that has a trigger; null: nobody. */
  ownerOf(id: string): string | null {
    const node = (this.#claims.get(id)?.value as Claim | undefined)?.node ?? "";
    return node === "" ? null : node;
  }

  /** Claims what is free; answers what this node has now, and of that what another had before. */
  async claim(
    ids: readonly string[],
  ): Promise<{ readonly held: readonly string[]; readonly seized: readonly string[] }> {
    const held: string[] = ids.filter((id) => this.holds(id));
    const seized: string[] = [];
    if (this.#lost) return { held, seized };
    const free = ids.filter((id) => !this.#mine.has(id) && this.#isFree(id));
    for (let from = 0; from < free.length; from += CHANGES_PER_COMMIT) {
      const some = free.slice(from, from + CHANGES_PER_COMMIT);
      const won = (await this.#commit(some)) ? some : await this.#oneByOne(some);
      for (const id of won) {
        this.#mine.add(id);
        held.push(id);
        if (this.#seizes(id)) seized.push(id);
      }
    }
    return { held, seized };
  }

  /** Gives a trigger back, or forgets it when it is deleted. */
  async release(id: string, { deleted }: { readonly deleted: boolean }): Promise<void> {
    const wasMine = this.#mine.delete(id);
    this.#before.delete(id);
    if (deleted) this.#claims.delete(id);
    if (!wasMine && !deleted) return;
    const value = deleted ? null : ({ node: "" } satisfies Claim);
    try {
      const [revision = 0] = await this.#options.values.commit([{ collection: CLAIMS, key: id, value, expect: "any" }]);
      if (value !== null) this.#claims.set(id, { key: id, value, revision });
    } catch (thrown) {
      this.#options.logger.log("warn", "a trigger cannot be given back; it stays with this node while it lives", {
        cause: String(thrown),
      });
    }
  }

  /** Lets others see that this node is gone. */
  async stop(): Promise<void> {
    this.#running = false;
    this.#cancelTimer();
    const { values, node, logger } = this.#options;
    const freed = [...this.#mine].map((key) => ({
      collection: CLAIMS,
      key,
      value: { node: "" } satisfies Claim,
      expect: "any" as const,
    }));
    this.#mine.clear();
    try {
      for (let from = 0; from < freed.length; from += CHANGES_PER_COMMIT)
        await values.commit(freed.slice(from, from + CHANGES_PER_COMMIT));
      await values.commit([{ collection: NODES, key: node, value: null, expect: "any" }]);
    } catch (thrown) {
      logger.log("warn", "triggers cannot be given back; others take them when this node's time is over", {
        cause: String(thrown),
      });
    }
  }

  #seizes(id: string): boolean {
    const before = this.#before.get(id) ?? "";
    return before !== "" && before !== this.#options.node;
  }

  #isFree(id: string): boolean {
    const owner = this.ownerOf(id);
    if (owner === null || owner === this.#options.node) return true;
    const seen = this.#others.get(owner);
    // A node that has no record is given the same time as one whose record stands still.
    if (seen === undefined) {
      this.#others.set(owner, { revision: 0, sinceMs: this.#options.clock.monotonicMs() });
      return false;
    }
    return this.#options.clock.monotonicMs() - seen.sinceMs >= this.#options.leaseMs;
  }

  async #commit(ids: readonly string[]): Promise<boolean> {
    const { values, node } = this.#options;
    const changes = ids.map((key) => ({
      collection: CLAIMS,
      key,
      value: { node } satisfies Claim,
      expect: this.#claims.get(key)?.revision ?? ("absent" as const),
    }));
    try {
      const revisions = await values.commit(changes);
      for (const [index, key] of ids.entries()) {
        this.#before.set(key, this.ownerOf(key) ?? "");
        this.#claims.set(key, { key, value: { node }, revision: revisions[index] ?? 0 });
      }
      return true;
    } catch (thrown) {
      if (toKoineError(thrown).code !== "conflict") throw thrown;
      return false;
    }
  }

  /** Somebody else took one of them in between: each for itself then. */
  async #oneByOne(ids: readonly string[]): Promise<readonly string[]> {
    const won: string[] = [];
    for (const id of ids) {
      const entry = await this.#options.values.get(CLAIMS, id);
      if (entry === null) this.#claims.delete(id);
      else this.#claims.set(id, entry);
      if (this.#isFree(id) && (await this.#commit([id]))) won.push(id);
    }
    return won;
  }

  #later(): void {
    const { clock, leaseMs, supervise } = this.#options;
    this.#cancelTimer = clock.after(leaseMs / BEATS_PER_LEASE, () => supervise("show this node", this.#tick()));
  }

  async #tick(): Promise<void> {
    const { clock, leaseMs, logger, onLost, onBeat } = this.#options;
    try {
      await this.#show();
      if (this.#lost) logger.log("info", "this node shows itself again and may run triggers");
      this.#lost = false;
      await this.#loadClaims();
    } catch (thrown) {
      logger.log("warn", "this node cannot show itself", { cause: String(thrown) });
    }
    // Before others believe it gone, it must have stopped.
    if (!this.#lost && clock.monotonicMs() - this.#shownAtMs > (leaseMs * 2) / BEATS_PER_LEASE) {
      this.#lost = true;
      this.#mine.clear();
      logger.log("error", "this node could not show itself in time and lets go of its triggers");
      onLost();
    }
    if (!this.#running) return;
    if (!this.#lost) onBeat();
    this.#later();
  }

  async #show(): Promise<void> {
    const { values, node, clock } = this.#options;
    const atMs = clock.monotonicMs();
    await values.commit([{ collection: NODES, key: node, value: { beat: ++this.#beat }, expect: "any" }]);
    this.#shownAtMs = atMs;
    for (const { key, revision } of await values.list(NODES, { limit: PAGE })) {
      if (key !== node && this.#others.get(key)?.revision !== revision)
        this.#others.set(key, { revision, sinceMs: clock.monotonicMs() });
    }
  }

  /** What other nodes have; alone on a store there is nothing to look for after the first time. */
  async #loadClaims(): Promise<void> {
    if (this.#claims.size > 0 && this.#others.size === 0) return;
    let after: string | undefined;
    for (;;) {
      const page = await this.#options.values.list(CLAIMS, { limit: PAGE, ...(after === undefined ? {} : { after }) });
      for (const entry of page) {
        this.#claims.set(entry.key, entry);
        if ((entry.value as Claim).node !== this.#options.node) this.#mine.delete(entry.key);
      }
      after = page.at(-1)?.key;
      if (page.length < PAGE) return;
    }
  }
}
