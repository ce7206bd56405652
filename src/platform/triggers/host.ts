import type { Telemetry } from "../../core/telemetry.ts";
import { KoineError, toKoineError } from "../../core/errors.ts";
import { compilePattern, type EventFilter } from "../../triggers/pattern.ts";
import { secretsIn, type TriggerKind, type TriggerRoute } from "../../triggers/trigger.ts";
import { Claims, type ClaimsOptions } from "./claims.ts";
import { TriggerCounts } from "./counts.ts";
import type { Trigger } from "./record.ts";
import { type RouteAddress, type RouteMatch, RouteTable } from "./route-table.ts";
import { Runner, type RunnerParts, type RunStatus } from "./runner.ts";

/** A trigger as this node has it. */
export interface Hosted {
  readonly trigger: Trigger;
  readonly kind: TriggerKind;
  readonly matches: EventFilter | null;
  readonly counts: TriggerCounts;
  runner: Runner | null;
  route: TriggerRoute | null;
  /** Why a route cannot be served. */
  routeError: KoineError | null;
}

export interface HostParts extends Omit<RunnerParts, "counts"> {
  readonly telemetry: Telemetry;
  readonly supervise: ClaimsOptions["supervise"];
  readonly values: ClaimsOptions["values"];
  readonly node: string;
}

/** Runs triggers: pulling ones that this node has claimed, routes and subscriptions always. */
export class TriggerHost {
  readonly #parts: HostParts;
  readonly #claims: Claims;
  readonly #hosted = new Map<string, Hosted>();
  #routes = new RouteTable<Hosted>();
  /** Changes of which triggers run, one after the other. */
  #changing: Promise<void> = Promise.resolve();
  #claimsAgain = false;
  #toClaim: Hosted[] = [];
  #claimed: Promise<void> | null = null;
  #started = false;

  constructor(parts: HostParts) {
    this.#parts = parts;
    const { values, clock, logger, supervise, node, limits } = parts;
    this.#claims = new Claims({
      values,
      clock,
      logger,
      supervise,
      node,
      leaseMs: limits.nodeLeaseMs,
      onLost: () =>
        supervise(
          "let go of triggers",
          this.#change(() => this.#stopAll()),
        ),
      onBeat: () => this.#claimSoon(),
    });
  }

  /** Begins to run what was put so far. */
  async start(): Promise<void> {
    await this.#parts.checkpoints.load();
    await this.#claims.start();
    this.#started = true;
    await this.#change(() => this.#claimAll());
  }

  /** Lets every source end, so that another node may go on. */
  async stop(): Promise<void> {
    this.#started = false;
    await this.#change(() => this.#stopAll());
    await this.#claims.stop();
  }

  get(key: string): Hosted | undefined {
    return this.#hosted.get(key);
  }

  all(): Iterable<Hosted> {
    return this.#hosted.values();
  }

  /** Takes a new or changed trigger; what ran of it before ends first. */
  async put(key: string, trigger: Trigger, kind: TriggerKind): Promise<void> {
    const before = this.#hosted.get(key);
    const counts =
      before?.trigger.id === trigger.id
        ? before.counts
        : new TriggerCounts(this.#parts.telemetry, { namespace: trigger.namespace, trigger: trigger.name });
    const matches = trigger.filter === null ? null : compilePattern(trigger.filter);
    const hosted: Hosted = { trigger, kind, matches, counts, runner: null, route: null, routeError: null };
    this.#hosted.set(key, hosted);
    if (kind.way === "route") await this.#openRoute(hosted);
    if (before?.kind.way === "route" || kind.way === "route") this.#placeRoutes();
    if (before?.runner !== undefined && before.runner !== null) {
      const { runner } = before;
      await this.#change(() => runner.stop());
    }
    if (before !== undefined && (trigger.paused || before.trigger.id !== trigger.id))
      await this.#claims.release(before.trigger.id, { deleted: before.trigger.id !== trigger.id });
    if (this.#started && kind.way === "pull" && !trigger.paused) await this.#claimWithOthers(hosted);
  }

  async remove(key: string): Promise<void> {
    const hosted = this.#hosted.get(key);
    if (hosted === undefined) return;
    this.#hosted.delete(key);
    if (hosted.kind.way === "route") this.#placeRoutes();
    const { runner } = hosted;
    if (runner !== null) await this.#change(() => runner.stop());
    if (hosted.kind.way === "pull") await this.#claims.release(hosted.trigger.id, { deleted: true });
    hosted.counts.forget();
  }

  /** How a pulling trigger is here; null when another node has it, or nobody. */
  status({ runner }: Hosted): RunStatus | null {
    return runner?.status ?? null;
  }

  nodeOf({ trigger, kind }: Hosted): string | null {
    return kind.way === "pull" ? this.#claims.ownerOf(trigger.id) : null;
  }

  /** Opens anew what uses a secret that has changed. */
  async secretChanged(namespace: string, name: string): Promise<void> {
    for (const [key, { trigger, kind }] of this.#hosted)
      if (trigger.namespace === namespace && secretsIn(trigger.settings).includes(name))
        await this.put(key, trigger, kind);
  }

  /** The route of a request, the methods that are possible, or null. */
  matchRoute(host: string, method: string, path: string): RouteMatch<Hosted> | readonly string[] | null {
    return this.#routes.match(host, method, path);
  }

  knowsRouteHost(host: string): boolean {
    return this.#routes.knowsHost(host);
  }

  /** The trigger that has a route which this one would hide. */
  conflictOf(address: RouteAddress, except: string): Hosted | null {
    const others = new RouteTable<Hosted>();
    for (const hosted of this.#hosted.values())
      if (hosted.route !== null && hosted.trigger.id !== except) others.add(scopedAddress(hosted), hosted);
    return others.conflictOf(address);
  }

  async #openRoute(hosted: Hosted): Promise<void> {
    const { trigger, kind } = hosted;
    if (kind.way !== "route") return;
    const { id, namespace, name, settings } = trigger;
    try {
      const secrets = await this.#parts.openSecrets(namespace, secretsIn(settings));
      hosted.route = kind.open(settings, {
        trigger: { id, namespace, name },
        clock: this.#parts.clock,
        secret: ({ secret }) => {
          const value = secrets[secret];
          if (value === undefined) throw new KoineError("secret-not-found", { name: secret, namespace });
          return value;
        },
      });
    } catch (thrown) {
      hosted.routeError = toKoineError(thrown);
    }
  }

  #placeRoutes(): void {
    const routes = new RouteTable<Hosted>();
    for (const hosted of this.#hosted.values())
      if (hosted.route !== null && !hosted.trigger.paused) routes.add(scopedAddress(hosted), hosted);
    this.#routes = routes;
  }

  /** Triggers that are made at the same time are claimed in one commit. */
  #claimWithOthers(hosted: Hosted): Promise<void> {
    this.#toClaim.push(hosted);
    this.#claimed ??= this.#change(async () => {
      const some = this.#toClaim;
      this.#toClaim = [];
      this.#claimed = null;
      await this.#claim(some);
    });
    return this.#claimed;
  }

  #claimSoon(): void {
    if (this.#claimsAgain || !this.#started) return;
    this.#claimsAgain = true;
    this.#parts.supervise(
      "run triggers",
      this.#change(() => this.#claimAll()),
    );
  }

  /** Starts what is free to run here and does not run, and ends what this node has lost. */
  async #claimAll(): Promise<void> {
    this.#claimsAgain = false;
    if (!this.#started) return;
    const wanted = [...this.#hosted.values()].filter(({ trigger, kind }) => kind.way === "pull" && !trigger.paused);
    const lost = wanted.filter(({ runner, trigger }) => runner !== null && !this.#claims.holds(trigger.id));
    await Promise.all(lost.map((hosted) => this.#stopOne(hosted)));
    await this.#claim(wanted);
  }

  async #claim(some: readonly Hosted[]): Promise<void> {
    const idle = new Map(some.filter(({ runner }) => runner === null).map((hosted) => [hosted.trigger.id, hosted]));
    if (idle.size === 0 || !this.#started) return;
    try {
      const { held, seized } = await this.#claims.claim([...idle.keys()]);
      for (const id of seized) await this.#parts.checkpoints.seize(id);
      for (const id of held) {
        const hosted = idle.get(id);
        // It may have been changed or deleted while it was claimed.
        if (hosted !== undefined && this.#hosted.get(keyOf(hosted.trigger)) === hosted) this.#run(hosted);
      }
    } catch (thrown) {
      this.#parts.logger.log("warn", "triggers cannot be claimed now; it is tried again", { cause: String(thrown) });
    }
  }

  #run(hosted: Hosted): void {
    const { trigger, kind, counts } = hosted;
    if (kind.way !== "pull") return;
    const runner = new Runner(trigger, kind, { ...this.#parts, counts, secretNames: secretsIn(trigger.settings) });
    hosted.runner = runner;
    this.#parts.supervise(`run trigger ${trigger.name}`, runner.start());
  }

  async #stopAll(): Promise<void> {
    await Promise.all([...this.#hosted.values()].map((hosted) => this.#stopOne(hosted)));
  }

  async #stopOne(hosted: Hosted): Promise<void> {
    const { runner, trigger } = hosted;
    if (runner === null) return;
    hosted.runner = null;
    await runner.stop();
    this.#parts.checkpoints.forget(trigger.id);
  }

  #change(step: () => Promise<void>): Promise<void> {
    this.#changing = this.#changing.then(step);
    return this.#changing;
  }
}

/** Where a route is served: those of other namespaces than the default one stand below theirs, unless they have a host of their own. */
export function scopedAddress({ trigger, route }: Pick<Hosted, "trigger" | "route">): RouteAddress {
  if (route === null) throw new KoineError("internal", { detail: "the route is not open" });
  const { host, methods, path } = route;
  const below = host === undefined && trigger.namespace !== "default" ? `/ns/${trigger.namespace}` : "";
  return { ...(host === undefined ? {} : { host }), methods, path: below + path };
}

function keyOf({ namespace, name }: Trigger): string {
  return `${namespace}/${name}`;
}
