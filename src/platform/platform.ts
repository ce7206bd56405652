import type { Accepted, EnqueueItem, EnqueueOptions, OutcomeFollower, PartialFailureReader } from "../core/enqueue.ts";
import { KoineError } from "../core/errors.ts";
import {
  type Alias,
  type Digest,
  type FunctionRecord,
  type FunctionRef,
  isName,
  type Version,
} from "../core/function.ts";
import type { Activation, Exchange, Invocation, Responder } from "../core/invocation.ts";
import type { ActivationQuery, LogQuery, StoredLogRecord } from "../store/store.ts";
import { AsyncWork, recordOf, type RunState } from "./async-work.ts";
import { type Deployed, deploy, type DeployOptions, retireUnreachable } from "./deploy.ts";
import { destinationSecrets, type TopicPublisher } from "./destinations.ts";
import type { PlatformParts } from "./parts.ts";
import type { DeploySource } from "./deploy-image.ts";
import { decideSweep } from "./sweep-packages.ts";
import { PARTIAL_FAILURES, readPartialFailures } from "./triggers/delivery.ts";
import { Triggers } from "./triggers/triggers.ts";

/** The use cases themselves, free of any dialect. Whoever calls has decided that the caller may. */
export class Platform {
  readonly parts: PlatformParts;
  /** Wakes the dispatcher after work was enqueued; set when it runs. */
  onEnqueued: () => void = () => {};
  /** Who else needs code packages, beside versions: a package that none of them names can go. */
  readonly packageHolders: (() => Promise<readonly Digest[]>)[] = [];
  /** Readers of partial failures by the name that `EnqueueOptions.partialFailures` gives; registered before anything is enqueued. */
  readonly partialFailureReaders = new Map<string, PartialFailureReader>([[PARTIAL_FAILURES, readPartialFailures]]);
  /** Followers of outcomes by the name that `EnqueueOptions.follower` gives; registered before anything is enqueued. */
  readonly outcomeFollowers = new Map<string, OutcomeFollower>();
  readonly triggers: Triggers;
  readonly work: AsyncWork;

  constructor(parts: PlatformParts) {
    this.parts = parts;
    this.triggers = new Triggers({
      ...parts,
      ...parts.triggers,
      enqueueAll: (items) => this.enqueueAll(items),
      resolve: (ref) => this.resolve(ref),
    });
    const { partialFailureReaders, outcomeFollowers, triggers } = this;
    this.work = new AsyncWork({ ...parts, partialFailureReaders, outcomeFollowers, topics: topicPublisher(triggers) });
  }

  // Functions

  /** @throws KoineError */
  async deploy(
    ref: FunctionRef,
    request: DeploySource,
    options: Omit<DeployOptions, "topicExists">,
  ): Promise<Deployed> {
    const topicExists = (namespace: string, topic: string): Promise<unknown> =>
      this.triggers.topics.get(namespace, topic);
    const deployed = await deploy(this.parts, ref, request, { ...options, topicExists });
    // More of it may run at a time than before.
    this.onEnqueued();
    return deployed;
  }

  /** Removes a function, its versions and aliases; running invocations end. @throws KoineError `function-not-found` */
  async deleteFunction(ref: FunctionRef): Promise<void> {
    const { catalogue, engine } = this.parts;
    await catalogue.exclusively(ref, async () => {
      const versions = await catalogue.delete(ref);
      for (const version of versions) engine.retire(version);
      engine.forget(ref);
      engine.useRuntimes(catalogue.runtimesInUse((spec) => engine.spareRuntimeOf(spec)));
    });
  }

  /** Makes a version live. @throws KoineError `function-not-found`, `version-not-found` */
  async publish(ref: FunctionRef, number: number): Promise<FunctionRecord> {
    const { catalogue, clock } = this.parts;
    return await catalogue.exclusively(ref, async () => {
      const before = catalogue.record(ref);
      this.#checkVersion(ref, number);
      if (before.liveVersion === number) return before;
      const record = {
        ...before,
        liveVersion: number,
        previousVersion: before.liveVersion,
        updatedAtMs: clock.nowMs(),
      };
      await catalogue.put(record);
      retireUnreachable(this.parts, record, before.liveVersion);
      return record;
    });
  }

  /** Makes the version live that was live before, or a named one. @throws KoineError `not-acceptable-state` when there was none */
  async rollback(ref: FunctionRef, number?: number): Promise<FunctionRecord> {
    const { previousVersion } = this.parts.catalogue.record(ref);
    const target = number ?? previousVersion;
    if (target === null)
      throw new KoineError("not-acceptable-state", {
        detail: `Function '${ref.name}' has no earlier version to return to`,
      });
    return await this.publish(ref, target);
  }

  /** @throws KoineError `invalid-name`, `version-not-found`, `invalid-request` */
  async putAlias(ref: FunctionRef, name: string, target: Pick<Alias, "version" | "additional">): Promise<Alias> {
    if (!isName(name) || /^[0-9]+$/.test(name)) throw new KoineError("invalid-name", { name });
    this.#checkVersion(ref, target.version);
    if (target.additional !== undefined) this.#checkVersion(ref, target.additional.version);
    const alias: Alias = {
      name,
      version: target.version,
      ...(target.additional === undefined ? {} : { additional: target.additional }),
      updatedAtMs: this.parts.clock.nowMs(),
    };
    await this.#changeAliases(ref, (aliases) =>
      [...aliases.filter((other) => other.name !== name), alias].sort(byName),
    );
    return alias;
  }

  /** @throws KoineError `alias-not-found` */
  async deleteAlias(ref: FunctionRef, name: string): Promise<void> {
    await this.#changeAliases(ref, (aliases) => {
      if (!aliases.some((alias) => alias.name === name))
        throw new KoineError("alias-not-found", { name: ref.name, alias: name });
      return aliases.filter((alias) => alias.name !== name);
    });
  }

  /**
   * Bounds the Slots of all versions of a function together, at once and until another call, whatever their specs say; undefined: as they say.
   * @throws KoineError `function-not-found`, `limit-exceeded`
   */
  async reserveConcurrency(ref: FunctionRef, max: number | undefined): Promise<void> {
    const { catalogue, clock, engine, limits } = this.parts;
    if (max !== undefined && !(Number.isInteger(max) && max >= 0 && max <= limits.reservedConcurrencyMax)) {
      const allowed = `a whole number from 0 to ${limits.reservedConcurrencyMax}`;
      throw new KoineError("limit-exceeded", { what: "concurrency", value: max, allowed });
    }
    await catalogue.exclusively(ref, async () => {
      const { reservedConcurrency: _before, ...record } = catalogue.record(ref);
      const bound = max === undefined ? {} : { reservedConcurrency: max };
      await catalogue.put({ ...record, ...bound, updatedAtMs: clock.nowMs() });
      engine.limit(ref, max);
    });
    // More of it may run at a time than before.
    this.onEnqueued();
  }

  // Secrets

  /** Sets a secret; instances that hold the old value end after their running invocations. */
  async putSecret(namespace: string, name: string, value: string): ReturnType<PlatformParts["secrets"]["put"]> {
    const result = await this.parts.secrets.put(namespace, name, value, this.parts.clock.nowMs());
    for (const { record, versions } of this.parts.catalogue.all()) {
      if (record.namespace !== namespace) continue;
      for (const version of versions.values())
        if (version.spec.secrets.includes(name)) this.parts.engine.retire(version);
    }
    await this.triggers.secretChanged(namespace, name);
    return result;
  }

  /** @throws KoineError `secret-not-found`, `not-acceptable-state` when a live version needs it */
  async deleteSecret(namespace: string, name: string): Promise<void> {
    const users = [...this.parts.catalogue.all()].filter(({ record, versions }) => {
      const spec = versions.get(record.liveVersion)?.spec;
      if (record.namespace !== namespace || spec === undefined) return false;
      return spec.secrets.includes(name) || destinationSecrets(spec.destinations, namespace).includes(name);
    });
    if (users.length > 0) {
      const names = users.map(({ record }) => record.name).join(", ");
      throw new KoineError("not-acceptable-state", { detail: `Secret '${name}' is used by ${names}` });
    }
    this.triggers.checkSecretUnused(namespace, name);
    await this.parts.secrets.delete(namespace, name);
  }

  // Invocations

  /** @throws KoineError `function-not-found`, `version-not-found` */
  resolve(ref: FunctionRef): Version {
    return this.parts.catalogue.resolve(ref);
  }

  invoke(invocation: Invocation, version: Version, responder: Responder): Exchange {
    return this.parts.engine.invoke(invocation, version, responder);
  }

  /**
   * Accepts an invocation for later: on disk when this resolves.
   * @throws KoineError `payload-too-large`, `limit-exceeded`, `queue-full`, `dead-letters-full`, `storage-full`
   */
  async enqueue(invocation: Invocation, options?: EnqueueOptions): Promise<Accepted> {
    const [accepted] = await this.enqueueAll([{ invocation, options }]);
    if (accepted === undefined) throw new KoineError("internal", { detail: "the queue answered nothing" });
    return accepted;
  }

  /** Accepts several invocations in one commit: all of them, or none. @throws KoineError as `enqueue` */
  async enqueueAll(items: readonly EnqueueItem[]): Promise<readonly Accepted[]> {
    const accepted = await this.work.accept(items);
    this.onEnqueued();
    return accepted;
  }

  // What happened

  async activations(query: ActivationQuery): Promise<readonly Activation[]> {
    await this.parts.journal.catchUp();
    return await this.parts.store.log.list(query);
  }

  /** @throws KoineError `activation-not-found` */
  async activation(namespace: string, id: string): Promise<Activation> {
    await this.parts.journal.catchUp();
    const activation = await this.parts.store.log.get(id);
    if (activation === null || activation.namespace !== namespace) throw new KoineError("activation-not-found", { id });
    return activation;
  }

  /** What is known of an activation beside its record. */
  async run(namespace: string, id: string): Promise<{ readonly activation: Activation; readonly state: RunState }> {
    await this.parts.journal.catchUp();
    const stored = await this.parts.store.log.get(id);
    const state = await this.work.stateOf(id);
    // What follows from another invocation has no record until it runs, and a crash may take one; what is in the queue is there all the same.
    const activation = stored ?? recordOf(state);
    if (activation === null || activation.namespace !== namespace) throw new KoineError("activation-not-found", { id });
    return { activation, state };
  }

  /** Ends an invocation that waits or runs. @throws KoineError `activation-not-found`, `not-acceptable-state` */
  async cancel(namespace: string, id: string): Promise<void> {
    // One that runs for the first time, and is not asynchronous, has no record yet.
    const stored = await this.parts.store.log.get(id);
    if (stored !== null) await this.activation(namespace, id);
    if (await this.work.cancel(namespace, id)) {
      // What waited for it by its ordering key is due now.
      this.onEnqueued();
      return;
    }
    if (stored === null) throw new KoineError("activation-not-found", { id });
    throw new KoineError("not-acceptable-state", { detail: `Activation '${id}' has ended already` });
  }

  /** Runs again what became a dead letter. @throws KoineError `activation-not-found`, `not-acceptable-state`, `queue-full` */
  async replay(namespace: string, id: string): Promise<void> {
    // A dead letter may outlive the record of its activation.
    const letter = await this.parts.store.queue.deadLetter(id);
    if (letter?.lane.startsWith(`${namespace}/`) !== true) await this.activation(namespace, id);
    await this.work.replayRun(id);
    this.onEnqueued();
  }

  async logs(query: LogQuery): Promise<readonly StoredLogRecord[]> {
    await this.parts.journal.catchUp();
    return await this.parts.store.log.logs(query);
  }

  followLogs(query: LogQuery, signal: AbortSignal): AsyncIterable<readonly StoredLogRecord[]> {
    return this.parts.journal.follow(query, signal);
  }

  /** Removes code packages that nothing needs any more; answers which. */
  async sweepPackages(startedAtMs: number): Promise<readonly string[]> {
    const { packages, codeCaches, catalogue, engine, clock, limits } = this.parts;
    const referenced = new Set(engine.codeInUse());
    const stored = await packages.list();
    for (const { versions } of catalogue.all())
      for (const version of versions.values()) referenced.add(version.spec.code);
    for (const digests of await Promise.all(this.packageHolders.map((holder) => holder())))
      for (const digest of digests) referenced.add(digest);
    const view = { stored, referenced, usedAtMs: packages.usedAtMs, startedAtMs };
    const unused = decideSweep(view, clock.nowMs(), limits.unusedPackageMs);
    for (const digest of unused) {
      await codeCaches.delete(digest);
      await packages.delete(digest);
    }
    return unused;
  }

  /** Lets go of images that no version names; answers how many. */
  async sweepImages(): Promise<number> {
    const { catalogue, images } = this.parts;
    const needed = [...catalogue.all()].flatMap(({ versions }) =>
      [...versions.values()].flatMap(({ spec }) => spec.image ?? []),
    );
    return await images.keepOnly(new Set(needed));
  }

  #checkVersion(ref: FunctionRef, number: number): void {
    const known = this.parts.catalogue.versions(ref).some((version) => version.number === number);
    if (!known) throw new KoineError("version-not-found", { name: ref.name, qualifier: String(number) });
  }

  async #changeAliases(ref: FunctionRef, change: (aliases: readonly Alias[]) => readonly Alias[]): Promise<void> {
    const { catalogue, clock } = this.parts;
    await catalogue.exclusively(ref, async () => {
      const record = catalogue.record(ref);
      await catalogue.put({ ...record, aliases: change(record.aliases), updatedAtMs: clock.nowMs() });
    });
  }
}

function topicPublisher({ topics }: Triggers): TopicPublisher {
  return {
    publish: async ({ namespace, topic, event }) => void (await topics.publish(namespace, topic, [event])),
  };
}

function byName(a: Alias, b: Alias): number {
  return a.name < b.name ? -1 : 1;
}
