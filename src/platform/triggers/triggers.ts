import type { Clock } from "../../core/clock.ts";
import type { Accepted, EnqueueItem } from "../../core/enqueue.ts";
import { KoineError, toKoineError } from "../../core/errors.ts";
import type { CloudEvent } from "../../core/event.ts";
import { type FunctionRef, formatFunctionRef, type Version } from "../../core/function.ts";
import { newId } from "../../core/ids.ts";
import type { Limits } from "../../core/limits.ts";
import { nearest } from "../../core/nearest.ts";
import type { Logger, Supervise, Telemetry } from "../../core/telemetry.ts";
import type { Store, ValueChange } from "../../store/store.ts";
import { secretsIn, type TriggerKind } from "../../triggers/trigger.ts";
import type { Secrets } from "../secrets.ts";
import { Checkpoints } from "./checkpoints.ts";
import { Deliveries, invocationsFor, toInvocation } from "./delivery.ts";
import { type Hosted, scopedAddress, TriggerHost } from "./host.ts";
import { checkedRequest, type Trigger, triggerKey, type TriggerRequest } from "./record.ts";
import { Topics } from "./topics.ts";

const TRIGGERS = "triggers";
/** One value that changes with every change of a trigger or topic, so that other nodes need to look at one only. */
const CHANGES = "trigger-changes";
const PAGE = 1_000;

export interface TriggersParts {
  readonly kinds: ReadonlyMap<string, TriggerKind>;
  readonly store: Store;
  readonly secrets: Secrets;
  readonly clock: Clock;
  readonly limits: Limits;
  readonly telemetry: Telemetry;
  readonly logger: Logger;
  readonly supervise: Supervise;
  /** The name of this node among those of the store. */
  readonly node: string;
  /** Whether no other node uses the store. */
  readonly alone: boolean;
  enqueueAll(items: readonly EnqueueItem[]): Promise<readonly Accepted[]>;
  resolve(ref: FunctionRef): Version;
  random(): number;
}

/** What `test` found out. */
export interface TriggerTest {
  readonly event: CloudEvent;
  readonly matched: boolean;
  /** The invocation that it was delivered to; null: it was not. */
  readonly activationId: string | null;
  /** Null: the kind has nothing to connect to. */
  readonly connection: { readonly ok: boolean; readonly detail: string } | null;
}

export type { RouteDecision, TriggerRequest } from "../../triggers/trigger.ts";
export type { Topic } from "./topics.ts";

/** The use cases of triggers and topics. Whoever calls has decided that the caller may. */
export class Triggers {
  readonly topics: Topics;
  readonly #parts: TriggersParts;
  readonly #host: TriggerHost;
  readonly #checkpoints: Checkpoints;
  readonly #deliveries: Deliveries;
  readonly #revisions = new Map<string, number>();
  #changesSeen = 0;
  #cancelPoll = (): void => {};
  #running = false;

  constructor(parts: TriggersParts) {
    const { store, clock, limits, logger, supervise, telemetry, node, secrets } = parts;
    this.#parts = parts;
    this.#checkpoints = new Checkpoints(store.values);
    this.#deliveries = new Deliveries({ enqueueAll: (items) => parts.enqueueAll(items), clock, limits, supervise });
    this.#host = new TriggerHost({
      values: store.values,
      clock,
      limits,
      logger,
      supervise,
      telemetry,
      node,
      checkpoints: this.#checkpoints,
      deliveries: this.#deliveries,
      random: () => parts.random(),
      isOver: async (id) => (await store.queue.find(id, clock.nowMs())) === null,
      openSecrets: (namespace, names) => secrets.open(namespace, names),
    });
    this.topics = new Topics({
      values: store.values,
      clock,
      limits,
      subscriptions: (namespace, topic) => this.#subscriptionsOf(namespace, topic),
      put: (items) => this.#deliveries.put(items),
    });
    telemetry.onCollect(() => this.#countStates());
  }

  /** Loads what is stored, so that routes are known; nothing runs yet. */
  async load(): Promise<void> {
    await this.#loadAll();
  }

  /** Runs what was loaded. */
  async start(): Promise<void> {
    this.#running = true;
    await this.#host.start();
    if (!this.#parts.alone) this.#pollLater();
  }

  /** Lets every source end; nothing is accepted from them any more. */
  async stop(): Promise<void> {
    this.#running = false;
    this.#cancelPoll();
    await this.#host.stop();
  }

  get kinds(): ReadonlyMap<string, TriggerKind> {
    return this.#parts.kinds;
  }

  get host(): TriggerHost {
    return this.#host;
  }

  /** @throws KoineError `trigger-not-found` */
  get(namespace: string, name: string): Hosted {
    const found = this.#host.get(triggerKey(namespace, name));
    if (found !== undefined) return found;
    const names = this.list(namespace).map(({ trigger }) => trigger.name);
    const near = nearest(name, names);
    throw new KoineError("trigger-not-found", { name, suggestion: near === null ? "" : `; did you mean '${near}'?` });
  }

  find(namespace: string, name: string): Hosted | null {
    return this.#host.get(triggerKey(namespace, name)) ?? null;
  }

  /** In the order of their names. */
  list(namespace: string): readonly Hosted[] {
    return [...this.#host.all()]
      .filter(({ trigger }) => trigger.namespace === namespace)
      .sort((a, b) => (a.trigger.name < b.trigger.name ? -1 : 1));
  }

  /**
   * Stores a trigger and runs it; answers it and whether it is new.
   * @throws KoineError `conflict` when it is there and `create` says that it must not be; `invalid-trigger`, `unknown-trigger-kind`, `invalid-pattern`,
   * `secret-not-found`, `function-not-found`, `not-acceptable-state` when another trigger has its route
   */
  async put(
    namespace: string,
    name: string,
    request: TriggerRequest & { readonly create?: boolean },
  ): Promise<{ readonly hosted: Hosted; readonly created: boolean }> {
    const { clock, limits } = this.#parts;
    const key = triggerKey(namespace, name);
    const before = this.#host.get(key)?.trigger ?? null;
    if (before !== null && request.create === true)
      throw new KoineError("not-acceptable-state", { detail: `There is a trigger '${name}' already` });
    if (before === null && this.#countIn(namespace) >= limits.triggersPerNamespaceMax)
      throw new KoineError("limit-exceeded", {
        what: `the number of triggers in '${namespace}'`,
        value: limits.triggersPerNamespaceMax + 1,
        allowed: `at most ${limits.triggersPerNamespaceMax}`,
      });
    const kind = this.#kindOf(request.kind);
    if (request.target.namespace !== namespace)
      throw new KoineError("forbidden", { detail: "a trigger calls functions of its own namespace only" });
    this.#parts.resolve(request.target);
    const nowMs = clock.nowMs();
    const settings = kind.parse(request.settings ?? {});
    const checked = checkedRequest(request, limits);
    const trigger: Trigger = {
      namespace,
      name,
      id: before !== null && before.kind === kind.name ? before.id : newId(nowMs),
      kind: kind.name,
      target: request.target,
      settings,
      ...checked,
      ordering: kind.orderingOf(settings) ?? checked.ordering,
      paused: request.paused ?? before?.paused ?? false,
      createdAtMs: before?.createdAtMs ?? nowMs,
      updatedAtMs: nowMs,
    };
    this.#checkOrdering(trigger, kind);
    await this.#parts.secrets.open(namespace, secretsIn(trigger.settings));
    await this.#checkRoute(trigger, kind);
    await this.#commit(key, trigger);
    if (before !== null && before.id !== trigger.id) await this.#checkpoints.delete(before.id);
    await this.#host.put(key, trigger, kind);
    return { hosted: this.get(namespace, name), created: before === null };
  }

  /** @throws KoineError `trigger-not-found` */
  async setPaused(namespace: string, name: string, paused: boolean): Promise<Hosted> {
    const { trigger, kind } = this.get(namespace, name);
    if (trigger.paused !== paused) {
      const key = triggerKey(namespace, name);
      const changed = { ...trigger, paused, updatedAtMs: this.#parts.clock.nowMs() };
      await this.#commit(key, changed);
      await this.#host.put(key, changed, kind);
    }
    return this.get(namespace, name);
  }

  /** @throws KoineError `trigger-not-found` */
  async delete(namespace: string, name: string): Promise<void> {
    const { trigger } = this.get(namespace, name);
    const key = triggerKey(namespace, name);
    await this.#commit(key, null);
    await this.#host.remove(key);
    await this.#checkpoints.delete(trigger.id);
  }

  /** Looks whether its source can be reached and what becomes of an event, by default one as its source would emit it. @throws KoineError `trigger-not-found` */
  async test(
    namespace: string,
    name: string,
    options: { readonly event?: CloudEvent | undefined; readonly deliver: boolean; readonly signal: AbortSignal },
  ): Promise<TriggerTest> {
    const hosted = this.get(namespace, name);
    const { trigger, kind, matches } = hosted;
    const nowMs = this.#parts.clock.nowMs();
    const sample = options.event ?? kind.sample(trigger.settings);
    const event = { ...sample, id: options.event === undefined ? `test-${newId(nowMs)}` : sample.id };
    const matched = matches === null || matches(event);
    const connection = await this.#checkConnection(hosted, options.signal);
    if (!matched || !options.deliver) return { event, matched, activationId: null, connection };
    const [accepted] = await this.#deliveries.put([toInvocation(trigger, [event], nowMs)]);
    return { event, matched, activationId: accepted?.activationId ?? null, connection };
  }

  /** Delivers events that came by a route, those that match, in one commit. @throws KoineError as `Platform.enqueueAll` */
  async accept(hosted: Hosted, events: readonly CloudEvent[]): Promise<readonly Accepted[]> {
    const { counts } = hosted;
    counts.add("received", events.length);
    const wanted = events.filter((event) => hosted.matches === null || hosted.matches(event));
    if (wanted.length < events.length) counts.add("filtered", events.length - wanted.length);
    const accepted = await this.#deliveries.put(invocationsFor(hosted.trigger, wanted, this.#parts.clock.nowMs()));
    counts.add("delivered", wanted.length);
    return accepted;
  }

  /** @throws KoineError `not-acceptable-state` when a trigger needs it */
  checkSecretUnused(namespace: string, name: string): void {
    const users = this.list(namespace).filter(({ trigger }) => secretsIn(trigger.settings).includes(name));
    if (users.length === 0) return;
    const names = users.map(({ trigger }) => trigger.name).join(", ");
    throw new KoineError("not-acceptable-state", { detail: `Secret '${name}' is used by the triggers ${names}` });
  }

  async secretChanged(namespace: string, name: string): Promise<void> {
    await this.#host.secretChanged(namespace, name);
  }

  #countIn(namespace: string): number {
    let count = 0;
    for (const { trigger } of this.#host.all()) if (trigger.namespace === namespace) count++;
    return count;
  }

  #kindOf(name: string): TriggerKind {
    const { kinds } = this.#parts;
    const kind = kinds.get(name);
    if (kind !== undefined) return kind;
    const near = nearest(name, [...kinds.keys()]);
    throw new KoineError("unknown-trigger-kind", {
      kind: name,
      suggestion: near === null ? "" : `; did you mean '${near}'?`,
      known: [...kinds.keys()].join(", "),
    });
  }

  #checkOrdering(trigger: Trigger, kind: TriggerKind): void {
    if (trigger.ordering === "none" || kind.way !== "pull" || kind.abilities.ordering) return;
    if (trigger.ordering === "all") return;
    throw new KoineError("invalid-trigger", {
      kind: kind.name,
      detail: "ordering 'key' needs a source whose events have a key; 'all' is possible",
    });
  }

  async #checkRoute(trigger: Trigger, kind: TriggerKind): Promise<void> {
    if (kind.way !== "route") return;
    const { id, namespace, name, settings } = trigger;
    const secrets = await this.#parts.secrets.open(namespace, secretsIn(settings));
    const route = kind.open(settings, {
      trigger: { id, namespace, name },
      clock: this.#parts.clock,
      secret: ({ secret }) => secrets[secret] ?? "",
    });
    const address = scopedAddress({ trigger, route });
    const other = this.#host.conflictOf(address, id);
    if (other === null) return;
    const where = `${address.methods.join("|") || "ANY"} ${address.host ?? ""}${address.path}`;
    const whose =
      other.trigger.namespace === namespace ? `trigger '${other.trigger.name}'` : "a trigger of another namespace";
    throw new KoineError("not-acceptable-state", { detail: `${where} is the route of ${whose} already` });
  }

  async #checkConnection({ trigger, kind }: Hosted, signal: AbortSignal): Promise<TriggerTest["connection"]> {
    if (kind.way !== "pull" || kind.check === undefined) return null;
    const { secrets, clock, logger } = this.#parts;
    const { id, namespace, name, settings } = trigger;
    try {
      const values = await secrets.open(namespace, secretsIn(settings));
      const host = {
        trigger: { id, namespace, name },
        clock,
        logger,
        random: () => this.#parts.random(),
        isOver: () => Promise.resolve(true),
        checkpoint: { read: () => this.#checkpoints.read(id), write: () => Promise.resolve() },
        secret: ({ secret }: { readonly secret: string }) => values[secret] ?? "",
        report: () => {},
      };
      await kind.check(settings, host, signal);
      return { ok: true, detail: "" };
    } catch (thrown) {
      let detail = toKoineError(thrown).message;
      const values = await secrets.open(namespace, secretsIn(settings)).catch(() => ({}));
      for (const value of Object.values<string>(values))
        if (value.length >= 4) detail = detail.replaceAll(value, "***");
      return { ok: false, detail };
    }
  }

  #subscriptionsOf(namespace: string, topic: string): readonly Hosted[] {
    return [...this.#host.all()].filter(
      ({ trigger, kind }) =>
        kind.way === "subscription" && trigger.namespace === namespace && kind.topicOf(trigger.settings) === topic,
    );
  }

  async #commit(key: string, trigger: Trigger | null): Promise<void> {
    const expect = this.#revisions.get(key) ?? "absent";
    const changes: ValueChange[] = [
      { collection: TRIGGERS, key, value: trigger, expect },
      {
        collection: CHANGES,
        key: "all",
        value: { node: this.#parts.node, atMs: this.#parts.clock.nowMs() },
        expect: "any",
      },
    ];
    const [revision = 0] = await this.#parts.store.values.commit(changes);
    if (trigger === null) this.#revisions.delete(key);
    else this.#revisions.set(key, revision);
  }

  async #loadAll(): Promise<void> {
    const { store, kinds, logger } = this.#parts;
    const gone = new Set(this.#revisions.keys());
    let after: string | undefined;
    for (;;) {
      const page = await store.values.list(TRIGGERS, { limit: PAGE, ...(after === undefined ? {} : { after }) });
      for (const { key, value, revision } of page) {
        gone.delete(key);
        if (this.#revisions.get(key) === revision) continue;
        const trigger = value as Trigger;
        const kind = kinds.get(trigger.kind);
        this.#revisions.set(key, revision);
        if (kind === undefined)
          logger.log("error", "a stored trigger is of a kind that this koine does not have", { trigger: key });
        else await this.#host.put(key, trigger, kind);
      }
      after = page.at(-1)?.key;
      if (page.length < PAGE) break;
    }
    for (const key of gone) {
      this.#revisions.delete(key);
      await this.#host.remove(key);
    }
  }

  #pollLater(): void {
    const { clock, limits, supervise } = this.#parts;
    this.#cancelPoll = clock.after(limits.triggerPollMs, () => supervise("look for changed triggers", this.#poll()));
  }

  async #poll(): Promise<void> {
    const { store, logger } = this.#parts;
    try {
      const revision = (await store.values.get(CHANGES, "all"))?.revision ?? 0;
      if (revision !== this.#changesSeen) {
        await this.#loadAll();
        this.#changesSeen = revision;
      }
    } catch (thrown) {
      logger.log("warn", "changes of triggers cannot be read now", { cause: String(thrown) });
    }
    if (this.#running) this.#pollLater();
  }

  #countStates(): void {
    const counts = new Map<string, number>();
    for (const hosted of this.#host.all()) {
      const key = `${hosted.trigger.kind} ${stateOf(hosted)}`;
      counts.set(key, (counts.get(key) ?? 0) + 1);
    }
    for (const key of this.#shownStates) if (!counts.has(key)) counts.set(key, 0);
    for (const [key, count] of counts) {
      this.#shownStates.add(key);
      const [kind = "", state = ""] = key.split(" ");
      this.#parts.telemetry
        .gauge("koine_triggers", "Triggers by kind and state on this node.", { kind, state })
        .set(count);
    }
  }

  readonly #shownStates = new Set<string>();
}

/** How a trigger is, in a word. `elsewhere`: another node has it, or will take it in a moment. */
export type TriggerState = "paused" | "starting" | "connecting" | "connected" | "failing" | "finished" | "elsewhere";

export function stateOf({ trigger, kind, runner, routeError }: Hosted): TriggerState {
  if (trigger.paused) return "paused";
  if (kind.way === "subscription") return "connected";
  if (kind.way === "route") return routeError === null ? "connected" : "failing";
  const state = runner?.status.state ?? "elsewhere";
  return state === "stopped" ? "elsewhere" : state;
}

/** The target as people write it. */
export function targetText({ target }: Trigger): string {
  const { namespace: _, ...rest } = target;
  return formatFunctionRef({ namespace: "default", ...rest });
}
