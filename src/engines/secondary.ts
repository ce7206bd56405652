import type { Duplex } from "node:stream";
import { statSync } from "node:fs";
import type { Clock } from "../core/clock.ts";
import { KoineError } from "../core/errors.ts";
import { functionKey, type FunctionRecord, type Version } from "../core/function.ts";
import type { Invocation } from "../core/invocation.ts";
import type { Telemetry } from "../core/telemetry.ts";
import { Allowances } from "../engine/allowance.ts";
import type { Engine, InstanceCounts } from "../engine/engine.ts";
import type { EngineParts, PreparedVersion } from "../engine/parts.ts";
import type { CallDialect } from "../dialects/dialect.ts";
import type { CallsPlatform } from "../dialects/native/calls.ts";
import type { EdgeRequest } from "../gateway/edge-request.ts";
import type { Gateway } from "../gateway/gateway.ts";
import { Catalogue } from "../platform/catalogue.ts";
import type { PackedRecords } from "../store/store.ts";
import { type Answer, EngineChannel } from "./channel.ts";
import { Passing } from "./passing.ts";
import { runWhole } from "./run.ts";
import {
  type EngineReport,
  type Prepared,
  type ToPrimary,
  type ToSecondary,
  type VersionName,
  versionName,
} from "./wire.ts";

/** What the process of a further engine has of its own. */
export interface SecondaryParts {
  readonly engine: Engine;
  readonly gateway: Gateway;
  readonly telemetry: Telemetry;
  /** Sends all records that wait. */
  flushRecords(): void;
  close(): Promise<void>;
}

/** What its parts are given. */
export interface SecondaryContext {
  readonly catalogue: Catalogue;
  readonly allowances: Allowances;
  readonly prepareVersion: EngineParts["prepareVersion"];
  sendRecords(records: PackedRecords): void;
  recordsStuck(): boolean;
  route(calls: readonly CallDialect[]): (request: EdgeRequest, answer: (request: EdgeRequest) => void) => void;
}

export interface SecondaryOptions<Opening> {
  readonly control: Duplex;
  readonly passing: Duplex;
  readonly clock: Clock;
  /** Chooses and wires the parts. */
  open(opening: Opening, context: SecondaryContext): Promise<SecondaryParts>;
}

/** Records that may wait on the way to the first engine, in bytes: beyond, they wait here, where they are bounded. */
const RECORDS_ON_THE_WAY_MAX = 8 * 1024 * 1024;

/** The process of a further engine: does what the first one's tells it. `ended` resolves when that process is gone or wants this one to end. */
export class Secondary<Opening> {
  readonly ended: Promise<void>;
  readonly #options: SecondaryOptions<Opening>;
  readonly #channel: EngineChannel<ToPrimary, ToSecondary<Opening>>;
  readonly #passing: Passing;
  readonly #catalogue = Catalogue.copy();
  readonly #allowances: Allowances;
  readonly #prepared = new WeakMap<Version, { readonly prepared: PreparedVersion; readonly secretsEpoch: number }>();
  #secretsEpoch = 0;
  #parts: SecondaryParts | null = null;

  constructor(options: SecondaryOptions<Opening>) {
    this.#options = options;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.ended = promise;
    this.#channel = new EngineChannel(options.control, {
      told: (message) => this.#told(message),
      called: (message, bytes) => this.#called(message, bytes),
      closed: () => resolve(),
    });
    // Better no engine than one that can answer only calls: another one is started in its place.
    this.#passing = new Passing(options.passing, resolve);
    this.#allowances = new Allowances(options.clock, (request) => this.#channel.tell({ to: "share", request }));
  }

  /** Ends what still runs here. */
  async close(): Promise<void> {
    await this.#parts?.close();
  }

  get #open(): SecondaryParts {
    if (this.#parts === null) throw new KoineError("internal", { detail: "the engine is not open" });
    return this.#parts;
  }

  #told(message: ToSecondary<Opening>): void {
    switch (message.to) {
      case "retire":
        this.#parts?.engine.retire(message.version);
        return;
      case "forget":
        this.#parts?.engine.forget(message.ref);
        return;
      case "use-runtimes":
        this.#parts?.engine.useRuntimes(new Set(message.names));
        return;
      case "share":
        this.#allowances.answered(message.answer);
        return;
      case "be-ready":
        this.#parts?.gateway.setReady(message.ready);
        return;
      default:
        throw new Error(`'${message.to}' must be called`);
    }
  }

  async #called(message: ToSecondary<Opening>, bytes: Buffer): Promise<Answer> {
    switch (message.to) {
      case "open":
        this.#parts = await this.#options.open(message.opening, this.#context());
        for (const { record } of this.#catalogue.all()) this.#limit(record);
        return DONE;
      case "change":
        for (const change of message.changes) {
          this.#catalogue.apply(change);
          if (change.record !== null) this.#limit(change.record);
        }
        return DONE;
      case "forget-secret":
        this.#forgetSecret(message.namespace, message.name);
        return DONE;
      case "listen":
        await this.#open.gateway.listen(message.port, message.host, { shared: "further" });
        return DONE;
      case "run":
        return await this.#run({ ...message.invocation, body: bytes }, message.version);
      case "cancel":
        return { value: this.#open.engine.cancel(message.id, message.namespace) };
      case "report":
        // Who asks is about to read what was recorded, too.
        this.#open.flushRecords();
        return { value: this.#report() };
      case "metrics":
        return { value: this.#open.telemetry.render() };
      case "drain":
        this.#open.gateway.setReady(false);
        await this.#open.engine.drain(NEVER);
        return DONE;
      case "close":
        await this.#open.close();
        this.#open.flushRecords();
        return DONE;
      default:
        throw new KoineError("internal", { detail: `'${message.to}' is not called` });
    }
  }

  #limit(record: FunctionRecord): void {
    this.#parts?.engine.limit(record, record.reservedConcurrency);
  }

  #context(): SecondaryContext {
    return {
      catalogue: this.#catalogue,
      allowances: this.#allowances,
      prepareVersion: (version) => this.#prepareVersion(version),
      sendRecords: ({ count, shapes, lines, activations }) =>
        this.#channel.tell(
          { to: "records", count, shapes, lines },
          activations === null
            ? undefined
            : Buffer.from(activations.buffer, activations.byteOffset, activations.length),
        ),
      recordsStuck: () => this.#channel.backlogBytes > RECORDS_ON_THE_WAY_MAX,
      route: (calls) => (request, answer) => {
        for (const dialect of calls) if (dialect.covers(request)) return answer(request);
        this.#passing.pass(request);
      },
    };
  }

  /** Kept in this process's memory until a secret changes or the code is gone; a promise only where the first engine must be asked. */
  #prepareVersion(version: Version): PreparedVersion | Promise<PreparedVersion> {
    const found = this.#prepared.get(version);
    if (found === undefined || found.secretsEpoch !== this.#secretsEpoch) return this.#askPrepared(version);
    const { codeFolder, codeCacheFolder } = found.prepared;
    // Code that is in use is mounted, which keeps its folder in the kernel's memory: this reads no disk.
    if (!isThere(codeFolder) || (codeCacheFolder !== null && !isThere(codeCacheFolder)))
      return this.#askPrepared(version);
    return found.prepared;
  }

  async #askPrepared(version: Version): Promise<PreparedVersion> {
    const secretsEpoch = this.#secretsEpoch;
    const { value } = await this.#channel.call({ to: "prepare", version: versionName(version) });
    const prepared = value as Prepared;
    this.#prepared.set(version, { prepared, secretsEpoch });
    return prepared;
  }

  /** Here and now, and not when the first engine says so for each version: whoever changed it may call right after. */
  #forgetSecret(namespace: string, name: string): void {
    this.#secretsEpoch++;
    for (const { record, versions } of this.#catalogue.all()) {
      if (record.namespace !== namespace) continue;
      for (const version of versions.values())
        if (version.spec.secrets.includes(name)) this.#parts?.engine.retire(version);
    }
  }

  async #run(invocation: Invocation, name: VersionName): Promise<Answer> {
    const { engine, flushRecords } = this.#open;
    const version = this.#catalogue.versions(name).find((other) => isThe(name, other));
    if (version === undefined)
      throw new KoineError("version-not-found", { name: name.name, qualifier: String(name.number) });
    const { body, ...value } = await runWhole(engine, invocation, version);
    // Its record is there before its outcome is: what is settled leaves the queue for good.
    flushRecords();
    return { value, bytes: body };
  }

  #report(): EngineReport {
    const { engine, gateway } = this.#open;
    const countsByFunction: Record<string, InstanceCounts> = {};
    for (const ref of engine.functions()) countsByFunction[functionKey(ref)] = engine.counts(ref);
    return {
      counts: engine.counts(),
      countsByFunction,
      spares: engine.spares(),
      memoryBytes: engine.memoryBytes,
      inFlight: engine.inFlight,
      connections: gateway.connections,
      codeInUse: [...engine.codeInUse()],
    };
  }
}

/** What calls need of a platform, in a process that has no more of one. */
export function callsPlatform(
  engine: Engine,
  { catalogue, limits, supervise }: Pick<EngineParts, "limits" | "supervise"> & { readonly catalogue: Catalogue },
): CallsPlatform {
  return {
    parts: { limits, supervise },
    resolve: (ref) => catalogue.resolve(ref),
    invoke: (invocation, version, responder) => engine.invoke(invocation, version, responder),
    enqueue: () => Promise.reject(new KoineError("internal", { detail: "only the first engine has the queue" })),
  };
}

const DONE: Answer = { value: null };
/** The one who asked has the deadline. */
const NEVER = new AbortController().signal;

function isThe(name: VersionName, version: Version): boolean {
  return version.number === name.number && version.createdAtMs === name.createdAtMs;
}

function isThere(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false }) !== undefined;
}
