import type { Clock } from "../core/clock.ts";
import { KoineError, toKoineError } from "../core/errors.ts";
import { limits } from "../core/limits.ts";
import type { Counter, Logger, Supervise, Telemetry } from "../core/telemetry.ts";
import { Allowances, type ShareAnswer } from "../engine/allowance.ts";
import { type Engine, MEMORY_KEY } from "../engine/engine.ts";
import type { Sharing } from "../engine/parts.ts";
import type { Catalogue, CatalogueChange } from "../platform/catalogue.ts";
import type { Journal } from "../platform/journal.ts";
import type { PlatformParts } from "../platform/parts.ts";
import type { Secrets } from "../platform/secrets.ts";
import type { CallDialect } from "../dialects/dialect.ts";
import type { EdgeRequest } from "../gateway/edge-request.ts";
import type { GatewayParts } from "../gateway/gateway.ts";
import type { Answer } from "./channel.ts";
import { sumExpositions } from "./exposition.ts";
import { Ledger } from "./ledger.ts";
import type { EngineProgram } from "./process.ts";
import { SecondaryEngine } from "./secondary-engine.ts";
import { SharedEngine } from "./shared-engine.ts";
import type { EngineReport, ToPrimary, ToSecondary, VersionName } from "./wire.ts";

export interface EnginesOptions {
  /** Of the platform, the first included. */
  readonly count: number;
  readonly memoryBudgetBytes: number;
  readonly program: EngineProgram;
  /** What the process of an engine is told first. */
  opening(engine: number): unknown;
  /** Ends what an engine's killed process left behind. */
  sweep(engine: number): Promise<number>;
  readonly catalogue: Catalogue;
  readonly secrets: Secrets;
  readonly journal: Journal;
  readonly prepareVersion: PlatformParts["prepareVersion"];
  readonly clock: Clock;
  readonly telemetry: Telemetry;
  readonly logger: Logger;
  readonly supervise: Supervise;
}

/** What is shown of an engine. */
export interface EngineState {
  readonly engine: number;
  readonly pid: number | null;
  readonly report: EngineReport | null;
}

const FIRST = 1;
const SNAPSHOT_PIECE = 500;
const RESTART_MS_FIRST = 100;
const RESTART_MS_MAX = 5_000;
/** An engine that has lived for so long is started anew without delay. */
const STEADY_MS = 60_000;
/** A report that takes longer is left out: what was reported before is shown. */
const REPORT_MS_MAX = 2_000;

/**
 * The further engines of a platform, each a process of its own, seen from the first: starts them, keeps their copies of the catalogue up to date,
 * divides what is limited, takes their records, and starts one anew that ends.
 */
export class Engines {
  readonly #options: EnginesOptions;
  readonly #ledger: Ledger;
  readonly #allowances: Allowances;
  readonly #secondaries = new Map<number, SecondaryEngine>();
  readonly #restarts: Counter;
  #address: { readonly port: number; readonly host: string } | null = null;
  #ready = false;
  #answerPassed: (request: EdgeRequest) => void = () => {};
  #runtimes: ReadonlySet<string> = new Set();
  #closing = false;

  constructor(options: EnginesOptions) {
    this.#options = options;
    this.#ledger = new Ledger((engine, answer) => this.#answerShare(engine, answer));
    this.#allowances = new Allowances(options.clock, (request) =>
      // Not before the one who asks has finished: the answer may change what it is about to do.
      queueMicrotask(() => this.#ledger.asked(FIRST, request)),
    );
    this.#restarts = options.telemetry.counter(
      "koine_engine_restarts_total",
      "Engines that ended by themselves and were started anew.",
    );
    options.catalogue.onChanged = (change) => this.#change([change]);
    options.secrets.onChanged = (namespace, name) => this.#callAll({ to: "forget-secret", namespace, name });
  }

  /** What the first engine shares with the others. */
  get sharing(): Sharing {
    return { allowances: this.#allowances, memoryBudgetBytes: this.#options.memoryBudgetBytes };
  }

  /** The first engine, as the one that the platform sees in place of all. */
  around(first: Engine): SharedEngine {
    this.#holdMemory(FIRST);
    return new SharedEngine(first, {
      secondaries: () => this.#secondaries.values(),
      tell: (message) => this.#tellAll(message),
      useRuntimes: (names) => {
        this.#runtimes = names;
        this.#tellAll({ to: "use-runtimes", names: [...names] });
      },
    });
  }

  /** How the first engine's gateway is to treat requests: calls of functions at once, all others with fresh reports of every engine. */
  routing(calls: readonly CallDialect[]): Required<Pick<GatewayParts, "route" | "metrics">> {
    return {
      route: (request, answer) => {
        for (const dialect of calls) if (dialect.covers(request)) return answer(request);
        this.#answerFresh(request, answer);
      },
      metrics: () => this.metrics(),
    };
  }

  /** Says who answers what other engines have received. */
  answerBy(answer: (request: EdgeRequest) => void): void {
    this.#answerPassed = answer;
  }

  /** Starts all of them. @throws KoineError `engine-failed`, and what their start throws */
  async open(): Promise<void> {
    const started = await Promise.allSettled(this.#numbers().map((number) => this.#start(number)));
    for (const each of started) if (each.status === "rejected") throw toKoineError(each.reason);
  }

  /** Has them listen where the first does. @throws KoineError */
  async listen(port: number, host: string): Promise<void> {
    this.#address = { port, host };
    await Promise.all([...this.#secondaries.values()].map((engine) => engine.call({ to: "listen", port, host })));
  }

  setReady(ready: boolean): void {
    this.#ready = ready;
    this.#tellAll({ to: "be-ready", ready });
  }

  /** Asks every engine what it does. */
  async refresh(): Promise<void> {
    const { clock } = this.#options;
    const asked = [...this.#secondaries.values()].map(async (engine) => {
      engine.report = (await engine.call({ to: "report" })) as EngineReport;
    });
    const { promise: late, resolve } = Promise.withResolvers<void>();
    const cancel = clock.after(REPORT_MS_MAX, resolve);
    await Promise.race([Promise.allSettled(asked), late]);
    cancel();
  }

  /** The metrics of all engines, added up. */
  async metrics(): Promise<string> {
    const asked = [...this.#secondaries.values()].map(
      async (engine) => (await engine.call({ to: "metrics" })) as string,
    );
    const answered = (await Promise.allSettled(asked)).flatMap((text) =>
      text.status === "fulfilled" ? [text.value] : [],
    );
    return sumExpositions([this.#options.telemetry.render(), ...answered]);
  }

  /** Of the further ones. */
  states(): readonly EngineState[] {
    return this.#numbers().map((engine) => {
      const running = this.#secondaries.get(engine);
      return { engine, pid: running?.process.pid ?? null, report: running?.report ?? null };
    });
  }

  /** Invocations that run in further engines, as they last said. */
  get inFlight(): number {
    return [...this.#secondaries.values()].reduce((sum, { report }) => sum + (report?.inFlight ?? 0), 0);
  }

  /** Has them take no more invocations; resolves when the running ones have ended, or when the signal aborts. */
  async drain(signal: AbortSignal): Promise<void> {
    this.#closing = true;
    const drained = [...this.#secondaries.values()].map((engine) => engine.callPatiently({ to: "drain" }));
    const aborted = new Promise<void>((resolve) => {
      if (signal.aborted) resolve();
      else signal.addEventListener("abort", () => resolve(), { once: true });
    });
    await Promise.race([Promise.allSettled(drained), aborted]);
  }

  /** Has them hand over what they still have, and ends them. */
  async close(): Promise<void> {
    this.#closing = true;
    await Promise.all(
      [...this.#secondaries.values()].map(async (engine) => {
        await engine.call({ to: "close" }, limits.engineCloseMsMax).catch(() => {});
        engine.process.control.destroy();
        await engine.process.ended;
      }),
    );
  }

  /** Ends them at once. */
  kill(): void {
    this.#closing = true;
    for (const engine of this.#secondaries.values()) engine.process.kill();
  }

  #answerFresh(request: EdgeRequest, answer: (request: EdgeRequest) => void): void {
    const { response } = request;
    let left = false;
    response.listener = {
      flowed: () => {},
      left: () => {
        left = true;
      },
    };
    const fresh = this.refresh().then(() => {
      response.listener = null;
      if (!left) answer(request);
    });
    this.#options.supervise("ask the engines what they do", fresh);
  }

  #numbers(): number[] {
    return Array.from({ length: this.#options.count - 1 }, (_, index) => FIRST + 1 + index);
  }

  async #start(number: number): Promise<void> {
    const { program, clock, opening } = this.#options;
    const engine = await SecondaryEngine.start(program, number, {
      clock,
      events: {
        told: (message, bytes) => this.#told(number, message, bytes),
        called: (message) => this.#called(message),
        passedOn: (request) => this.#answerFresh(request, this.#answerPassed),
      },
    });
    const startedMs = clock.monotonicMs();
    let isOpen = false;
    const ended = engine.process.ended.then((how) => {
      this.#secondaries.delete(number);
      if (isOpen) this.#lost(engine, how, clock.monotonicMs() - startedMs);
    });
    this.#options.supervise("watch an engine", ended);
    try {
      await engine.call({ to: "open", opening: opening(number) }, limits.engineOpenMsMax);
      // Changes reach it from here on, in between the pieces of the whole.
      this.#secondaries.set(number, engine);
      await this.#snapshot(engine);
      engine.tell({ to: "use-runtimes", names: [...this.#runtimes] });
      this.#holdMemory(number);
      if (this.#address !== null) await engine.call({ to: "listen", ...this.#address });
      engine.tell({ to: "be-ready", ready: this.#ready });
      isOpen = true;
      // The platform has begun to stop meanwhile, and does not know of this one.
      if (this.#closing) engine.process.kill();
    } catch (thrown) {
      this.#secondaries.delete(number);
      this.#ledger.left(number);
      engine.process.kill();
      throw toKoineError(thrown);
    }
  }

  async #snapshot(engine: SecondaryEngine): Promise<void> {
    let changes: CatalogueChange[] = [];
    for (const change of this.#options.catalogue.snapshot()) {
      changes.push(change);
      if (changes.length < SNAPSHOT_PIECE) continue;
      await engine.call({ to: "change", changes });
      changes = [];
    }
    await engine.call({ to: "change", changes });
  }

  #holdMemory(engine: number): void {
    const { memoryBudgetBytes, count } = this.#options;
    this.#ledger.hold(engine, {
      key: MEMORY_KEY,
      max: memoryBudgetBytes,
      amount: Math.floor(memoryBudgetBytes / count),
    });
  }

  /** One that served has ended by itself. */
  #lost({ number }: SecondaryEngine, how: number | string, livedMs: number): void {
    if (this.#closing) return;
    const { logger, supervise } = this.#options;
    logger.log("error", "an engine ended; what it ran is lost, and it is started anew", { engine: number, how });
    supervise("start an engine anew", this.#restart(number, livedMs >= STEADY_MS ? 0 : RESTART_MS_FIRST));
  }

  async #restart(number: number, delayMs: number): Promise<void> {
    const { clock, logger, sweep } = this.#options;
    // Only when nothing runs there any more can others have its slots.
    const swept = await sweep(number).catch((thrown: unknown) => {
      logger.log("error", "what an engine left behind cannot be swept away", { engine: number, error: String(thrown) });
      return 0;
    });
    if (swept > 0) logger.log("info", "swept away what an engine had left", { engine: number, count: swept });
    this.#ledger.left(number);
    if (delayMs > 0) await new Promise<void>((resolve) => clock.after(delayMs, resolve));
    if (this.#closing) return;
    try {
      await this.#start(number);
      this.#restarts.add();
      logger.log("info", "an engine runs again", { engine: number });
    } catch (thrown) {
      logger.log("error", "an engine cannot be started anew", { engine: number, error: String(thrown) });
      await this.#restart(number, Math.min(RESTART_MS_MAX, Math.max(RESTART_MS_FIRST, delayMs * 2)));
    }
  }

  #told(engine: number, message: ToPrimary, bytes: Buffer): void {
    switch (message.to) {
      case "share":
        this.#ledger.asked(engine, message.request);
        return;
      case "records": {
        const { count, shapes, lines } = message;
        // A copy: what is kept or sent to another thread must not hold, or take along, all that came with it.
        const activations = bytes.length === 0 ? null : new Uint8Array(bytes);
        this.#options.journal.packed({ count, shapes, lines, activations });
        return;
      }
      case "prepare":
        return;
      default:
        return message satisfies never;
    }
  }

  async #called(message: ToPrimary): Promise<Answer> {
    if (message.to !== "prepare") throw new KoineError("internal", { detail: `'${message.to}' is not called` });
    const { catalogue, prepareVersion } = this.#options;
    const { version: name } = message;
    const version = catalogue.versions(name).find((other) => isThe(name, other));
    if (version === undefined)
      throw new KoineError("version-not-found", { name: name.name, qualifier: String(name.number) });
    return { value: await prepareVersion(version, AbortSignal.timeout(limits.buildTimeoutMs)) };
  }

  #answerShare(engine: number, answer: ShareAnswer): void {
    if (engine !== FIRST) this.#secondaries.get(engine)?.tell({ to: "share", answer });
    else queueMicrotask(() => this.#allowances.answered(answer));
  }

  #change(changes: readonly CatalogueChange[]): Promise<void> {
    return this.#callAll({ to: "change", changes });
  }

  /** One that is gone need not know. */
  async #callAll(message: ToSecondary): Promise<void> {
    await Promise.allSettled([...this.#secondaries.values()].map((engine) => engine.call(message)));
  }

  #tellAll(message: ToSecondary): void {
    for (const engine of this.#secondaries.values()) engine.tell(message);
  }
}

function isThe(name: VersionName, version: { readonly number: number; readonly createdAtMs: number }): boolean {
  return version.number === name.number && version.createdAtMs === name.createdAtMs;
}
