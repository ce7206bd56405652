import { KoineError } from "../core/errors.ts";
import { type Alias, type FunctionRecord, type FunctionRef, isName, type Version } from "../core/function.ts";
import type { Activation, Exchange, Invocation, Outcome, Responder } from "../core/invocation.ts";
import type { ActivationQuery, Lease, LogQuery, StoredLogRecord } from "../store/store.ts";
import { encodeQueued, queuedActivation, runQueued } from "./async-invocation.ts";
import { type Deployed, deploy, type DeployOptions, retireUnreachable } from "./deploy.ts";
import type { PlatformParts } from "./parts.ts";
import type { SpecRequest } from "./spec.ts";
import { decideSweep } from "./sweep-packages.ts";

/** Accepted invocations between two looks at the queue's length. */
const LOOK_EVERY = 1_000;

/** The use cases themselves, free of any dialect. Whoever calls has decided that the caller may. */
export class Platform {
  readonly parts: PlatformParts;
  /** Wakes the dispatcher after work was enqueued; set when it runs. */
  onEnqueued: () => void = () => {};
  #waiting = 0;
  #acceptedSinceLook = LOOK_EVERY;

  constructor(parts: PlatformParts) {
    this.parts = parts;
  }

  // Functions

  /** @throws KoineError */
  deploy(ref: FunctionRef, request: SpecRequest, options: DeployOptions): Promise<Deployed> {
    return deploy(this.parts, ref, request, options);
  }

  /** Removes a function, its versions and aliases; running invocations end. @throws KoineError `function-not-found` */
  async deleteFunction(ref: FunctionRef): Promise<void> {
    const { catalogue, engine } = this.parts;
    await catalogue.exclusively(ref, async () => {
      const versions = await catalogue.delete(ref);
      for (const version of versions) engine.retire(version);
      engine.forget(ref);
      engine.useRuntimes(catalogue.runtimesInUse());
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

  // Secrets

  /** Sets a secret; instances that hold the old value end after their running invocations. */
  async putSecret(namespace: string, name: string, value: string): ReturnType<PlatformParts["secrets"]["put"]> {
    const result = await this.parts.secrets.put(namespace, name, value, this.parts.clock.nowMs());
    for (const { record, versions } of this.parts.catalogue.all()) {
      if (record.namespace !== namespace) continue;
      for (const version of versions.values())
        if (version.spec.secrets.includes(name)) this.parts.engine.retire(version);
    }
    return result;
  }

  /** @throws KoineError `secret-not-found`, `not-acceptable-state` when a live version needs it */
  async deleteSecret(namespace: string, name: string): Promise<void> {
    const users = [...this.parts.catalogue.all()].filter(({ record, versions }) => {
      const live = versions.get(record.liveVersion);
      return record.namespace === namespace && live?.spec.secrets.includes(name) === true;
    });
    if (users.length > 0) {
      const names = users.map(({ record }) => record.name).join(", ");
      throw new KoineError("not-acceptable-state", { detail: `Secret '${name}' is used by ${names}` });
    }
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
   * @throws KoineError `payload-too-large`, `too-many-requests`, `storage-full`
   */
  async enqueue(invocation: Invocation): Promise<void> {
    const { limits, store, journal } = this.parts;
    if (invocation.body.length > limits.asyncBodyBytesMax) {
      throw new KoineError("payload-too-large", {
        what: "an asynchronous invocation",
        limit: limits.asyncBodyBytesMax,
      });
    }
    this.resolve(invocation.ref);
    await this.#checkQueue(invocation.ref.name);
    await store.queue.enqueue([encodeQueued(invocation)]);
    journal.activation(queuedActivation(invocation));
    this.onEnqueued();
  }

  /** Runs one claimed invocation; the dispatcher settles it by the outcome. */
  async runLease(lease: Lease, signal: AbortSignal): Promise<Outcome> {
    return await runQueued(this.parts, lease.item, lease.attempt, signal);
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
    const view = { stored, referenced, usedAtMs: packages.usedAtMs, startedAtMs };
    const unused = decideSweep(view, clock.nowMs(), limits.unusedPackageMs);
    for (const digest of unused) {
      await codeCaches.delete(digest);
      await packages.delete(digest);
    }
    return unused;
  }

  /** Invocations at a time that the queue may run of one function. */
  laneLimit(lane: string): number {
    return this.parts.catalogue.liveVersion(lane)?.spec.reservedConcurrency ?? Number.POSITIVE_INFINITY;
  }

  /** The queue's length is looked up now and then: it is a bound, not a count. */
  async #checkQueue(name: string): Promise<void> {
    const { store, clock, limits } = this.parts;
    if (this.#acceptedSinceLook++ >= LOOK_EVERY) {
      this.#acceptedSinceLook = 0;
      this.#waiting = (await store.queue.state(clock.nowMs())).waiting;
    }
    if (this.#waiting + this.#acceptedSinceLook > limits.queueLengthMax) {
      this.#acceptedSinceLook = LOOK_EVERY;
      throw new KoineError("too-many-requests", { name });
    }
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

function byName(a: Alias, b: Alias): number {
  return a.name < b.name ? -1 : 1;
}
