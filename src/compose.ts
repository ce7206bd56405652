import { createHash } from "node:crypto";
import { statSync } from "node:fs";
import { access, constants, mkdir, stat } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Config } from "./config.ts";
import { systemClock } from "./core/clock.ts";
import { KoineError } from "./core/errors.ts";
import type { Version } from "./core/function.ts";
import { limits } from "./core/limits.ts";
import { type Logger, type Supervise, Telemetry } from "./core/telemetry.ts";
import { awsAdapters, createAwsDialect } from "./dialects/aws/aws.ts";
import type { HandlerAdapters } from "./dialects/dialect.ts";
import { createNativeDialect, nativeAdapters } from "./dialects/native/native.ts";
import { Engine } from "./engine/engine.ts";
import type { PreparedVersion } from "./engine/parts.ts";
import { Access } from "./gateway/access.ts";
import { Gateway } from "./gateway/gateway.ts";
import { CodeCaches } from "./platform/code-caches.ts";
import { Catalogue } from "./platform/catalogue.ts";
import { installSettingsPath } from "./platform/install-dependencies.ts";
import { installEnvironment } from "./platform/install-environment.ts";
import { Journal } from "./platform/journal.ts";
import { CodePackages } from "./platform/packages.ts";
import type { PlatformParts } from "./platform/parts.ts";
import { Platform } from "./platform/platform.ts";
import { Secrets } from "./platform/secrets.ts";
import { createFramesProtocol } from "./protocols/frames.ts";
import { Dispatcher } from "./queue/dispatcher.ts";
import { createNodeRuntime } from "./runtimes/nodejs.ts";
import { createPythonRuntime } from "./runtimes/python.ts";
import { insidePaths, type Runtime } from "./runtimes/runtime.ts";
import { openNoneDriver } from "./sandbox/none/driver.ts";
import { openProcessDriver } from "./sandbox/process/driver.ts";
import type { SandboxDriver } from "./sandbox/sandbox.ts";
import { openFileBlobs } from "./store/files.ts";
import { openSqliteStore } from "./store/sqlite.ts";
import type { Store } from "./store/store.ts";
import { openVault } from "./store/vault.ts";

/** The one place where implementations are chosen and wired. */
export interface Composition {
  readonly config: Config;
  readonly platform: Platform;
  readonly engine: Engine;
  readonly gateway: Gateway;
  readonly driver: SandboxDriver;
  readonly dispatcher: Dispatcher;
  /** What was left behind by an earlier, killed platform and swept away. */
  readonly swept: number;
  close(): Promise<void>;
}

const RETENTION_INTERVAL_MS = 10 * 60_000;
const ASYNC_IN_FLIGHT_MAX = 64;
const LAUNCHES_AHEAD = 4;
const SPARES_MIN = 2;
const SPARES_MAX = 72;
/** Spare sandboxes of one runtime may take this share of the memory budget, at so many bytes each. */
const SPARES_MEMORY_SHARE = 0.05;
const SPARE_BYTES = 12 * 1024 * 1024;

/** Adapters in the order in which `auto` tries them. */
const ADAPTERS: readonly { readonly dialect: string; readonly adapters: HandlerAdapters }[] = [
  { dialect: "native", adapters: nativeAdapters },
  { dialect: "aws", adapters: awsAdapters },
];

interface Base {
  readonly config: Config;
  readonly version: string;
  readonly logger: Logger;
  readonly supervise: Supervise;
}

/** Opens the data directory and wires everything; nothing listens yet. @throws KoineError */
export async function compose(base: Base): Promise<Composition> {
  const { config, logger, supervise } = base;
  const { dataDirectory } = config;
  await prepareDataDirectory(dataDirectory);
  await using opened = new AsyncDisposableStack();
  const store = opened.adopt(await openStore(dataDirectory, logger), (open) => open.close());
  const clock = systemClock;
  const telemetry = new Telemetry();
  const driver = opened.adopt(await openDriver(config, logger), (open) => open.close());
  const swept = await driver.sweep();
  const runtimes = openRuntimes(dataDirectory, config);
  const journal = new Journal(store.log, limits);
  const vault = await openVault({ keyFile: join(dataDirectory, "secrets.key") });
  const secrets = new Secrets(store, vault, limits);
  const packages = await CodePackages.open({
    blobs: store.blobs,
    directory: join(dataDirectory, "packages"),
    limits,
    driver,
    clock,
    installEnvironment: installEnvironment({ environment: config.environment, insideFolder: installSettingsPath }),
  });
  const codeCaches = await CodeCaches.open({ directory: join(dataDirectory, "packages", "compiled") });
  const catalogue = await Catalogue.open(store);
  const prepareCode = codePreparer(packages, runtimes);
  const codeCacheOf = (version: Version): string | null => codeCaches.find(version);
  const prepareVersion = versionPreparer({ prepareCode, secrets, codeCacheOf });
  const engine = new Engine({
    clock,
    limits,
    driver,
    protocol: createFramesProtocol(),
    runtimes,
    adaptersOf,
    adapterMounts: ADAPTERS.map(({ dialect, adapters }) => ({
      source: adapters.folder,
      target: `${insidePaths.handlers}/${dialect}`,
    })),
    network: "host",
    prepareVersion,
    keepCodeCache: (version, files) => codeCaches.keep(version, files),
    onFinished: (activation) => journal.activation(activation),
    onLog: (record) => journal.line(record),
    telemetry,
    logger,
    supervise,
    settings: {
      memoryBudgetBytes: config.memoryBudgetBytes,
      instancesMax: limits.instancesMax,
      idleTimeoutMs: config.idleTimeoutMs,
      sparesMin: Math.min(SPARES_MIN, config.sparesMax ?? SPARES_MIN),
      sparesMax: config.sparesMax ?? sparesMaxIn(config.memoryBudgetBytes),
      sparesBootingMax: availableParallelism(),
    },
  });
  const parts: PlatformParts = {
    clock,
    limits,
    store,
    catalogue,
    packages,
    codeCaches,
    secrets,
    journal,
    engine,
    runtimes,
    logger,
    supervise,
    prepareVersion,
    prepareCode,
    models: (language) => ADAPTERS.flatMap(({ adapters }) => adapters.models[language] ?? []),
  };
  const platform = new Platform(parts);
  const dispatcher = startDispatcher(platform);
  const access = new Access({ grants: config.grants, hosts: config.hosts });
  const native = createNativeDialect(platform, {
    version: base.version,
    startedAtMs: clock.nowMs(),
    dataDirectory,
    sandbox: driver.name,
    authentication: access.configured,
    memoryBudgetBytes: config.memoryBudgetBytes,
    doctor: () => driver.inspect(),
  });
  const aws = await createAwsDialect(platform, vault);
  const openapi = (): Readonly<Record<string, unknown>> => native.openapi?.() ?? {};
  const gateway = new Gateway({ access, dialects: [native, aws], telemetry, logger, limits, openapi });
  const stopRetention = keepRetention(platform);
  engine.useRuntimes(catalogue.runtimesInUse());
  // In the reverse order, and each of them even when another fails, or the process would stay for ever.
  const closing = opened.move();
  closing.defer(() => journal.catchUp());
  closing.defer(() => packages.close());
  closing.defer(() => engine.close());
  return {
    config,
    platform,
    engine,
    gateway,
    driver,
    dispatcher,
    swept,
    async close() {
      stopRetention();
      await closing.disposeAsync();
    },
  };
}

function sparesMaxIn(memoryBudgetBytes: number): number {
  const affordable = Math.floor((memoryBudgetBytes * SPARES_MEMORY_SHARE) / SPARE_BYTES);
  return Math.max(SPARES_MIN, Math.min(SPARES_MAX, affordable));
}

/** @throws KoineError `data-directory-unusable` */
async function prepareDataDirectory(directory: string): Promise<void> {
  try {
    await makeFolders(directory);
    if (!(await stat(directory)).isDirectory()) throw new Error("it is not a folder");
    await access(directory, constants.R_OK | constants.W_OK | constants.X_OK);
  } catch (thrown) {
    const detail = thrown instanceof Error ? thrown.message : String(thrown);
    throw new KoineError("data-directory-unusable", { directory, detail }, { cause: thrown });
  }
}

/** Like `mkdir` with `recursive`, which never ends where the parent exists and still nothing can be made, as below /proc. */
async function makeFolders(folder: string): Promise<void> {
  try {
    await mkdir(folder, { mode: 0o700 });
  } catch (thrown) {
    const { code } = thrown as NodeJS.ErrnoException;
    if (code === "EEXIST") return;
    const parent = dirname(folder);
    if (
      code !== "ENOENT" ||
      parent === folder ||
      (await access(parent).then(
        () => true,
        () => false,
      ))
    )
      throw thrown;
    await makeFolders(parent);
    await mkdir(folder, { mode: 0o700 });
  }
}

async function openStore(directory: string, logger: Logger): Promise<Store> {
  const sqlite = await openSqliteStore({ directory, logger });
  const blobs = await openFileBlobs(join(directory, "blobs"));
  const { values, log, queue } = sqlite;
  return { values, log, queue, blobs, close: () => sqlite.close() };
}

async function openDriver(config: Config, logger: Logger): Promise<SandboxDriver> {
  const directory = join(config.dataDirectory, "sandboxes");
  const tag = createHash("sha256").update(config.dataDirectory).digest("hex").slice(0, 12);
  if (config.sandbox === "none") return await openNoneDriver({ directory });
  try {
    return await openProcessDriver({
      directory,
      tag,
      logger,
      privateMounts: config.privateMounts,
      launchesAhead: LAUNCHES_AHEAD,
    });
  } catch (thrown) {
    if (config.sandbox === "process") throw thrown;
    logger.log("warn", "functions are NOT isolated from this machine; 'koine doctor' says what is missing", {
      cause: String(thrown),
    });
    return await openNoneDriver({ directory });
  }
}

function openRuntimes(dataDirectory: string, config: Config): ReadonlyMap<string, Runtime> {
  const bootstrap = (language: string): string => fileURLToPath(new URL(`../bootstrap/${language}`, import.meta.url));
  const cacheDirectory = join(dataDirectory, "runtimes");
  const node = (name: "nodejs26.x" | "nodejs24.x" | "nodejs22.x"): Runtime =>
    createNodeRuntime({
      name,
      cacheDirectory,
      bootstrapFolder: bootstrap("nodejs"),
      adapters: adaptersOf("nodejs"),
      environment: config.environment,
    });
  const python = createPythonRuntime({
    name: "python3",
    bootstrapFolder: bootstrap("python"),
    handlerFolders: ADAPTERS.map(({ adapters }) => adapters.folder),
    adapters: adaptersOf("python"),
    searchPath: config.environment["PATH"] ?? "",
  });
  const all = [node("nodejs26.x"), node("nodejs24.x"), node("nodejs22.x"), python];
  return new Map(all.map((runtime) => [runtime.name, runtime]));
}

/** Adapters of a language, as paths inside a sandbox. */
function adaptersOf(
  language: string,
): readonly { readonly dialect: string; readonly model: string; readonly path: string }[] {
  const extension = language === "nodejs" ? "mjs" : "py";
  return ADAPTERS.flatMap(({ dialect, adapters }) =>
    (adapters.models[language] ?? []).map((model) => ({
      dialect,
      model,
      path: `${insidePaths.handlers}/${dialect}/${language}/${model}.${extension}`,
    })),
  );
}

function codePreparer(packages: CodePackages, runtimes: ReadonlyMap<string, Runtime>): PlatformParts["prepareCode"] {
  return async (version, { onPhase, onOutput, signal }) => {
    const { code, runtime: name } = version.spec;
    const runtime = runtimes.get(name);
    if (runtime === undefined)
      throw new KoineError("unknown-runtime", { runtime: name, known: [...runtimes.keys()].join(", ") });
    onPhase?.(`preparing ${name}`);
    const launch = await runtime.prepare(signal);
    if (version.spec.memoryBytesMax < launch.overheadBytes) {
      const allowed = `at least ${Math.ceil(launch.overheadBytes / 1024 / 1024)} MB, which ${name} needs for itself`;
      throw new KoineError("limit-exceeded", { what: "memory", value: version.spec.memoryBytesMax, allowed });
    }
    const built = await packages.withDependencies(code, { name, launch }, { onOutput: onOutput ?? (() => {}), signal });
    return built.folder;
  };
}

/** Keeps what a version needs, secrets included, in this process's memory, until a secret changes or the code is gone. */
function versionPreparer({
  prepareCode,
  secrets,
  codeCacheOf,
}: {
  readonly prepareCode: PlatformParts["prepareCode"];
  readonly secrets: Secrets;
  codeCacheOf(version: Version): string | null;
}): ConstructorParameters<typeof Engine>[0]["prepareVersion"] {
  const kept = new WeakMap<Version, { readonly prepared: PreparedVersion; readonly secretChanges: number }>();
  const prepare = async (version: Version, signal: AbortSignal): Promise<PreparedVersion> => {
    const secretChanges = secrets.changes;
    const [codeFolder, opened] = await Promise.all([
      prepareCode(version, { signal }),
      secrets.open(version.namespace, version.spec.secrets),
    ]);
    const environment = { ...version.spec.environment, ...opened };
    const prepared = { codeFolder, environment, codeCacheFolder: codeCacheOf(version) };
    kept.set(version, { prepared, secretChanges });
    return prepared;
  };
  return (version, signal) => {
    const found = kept.get(version);
    if (found === undefined || found.secretChanges !== secrets.changes) return prepare(version, signal);
    // Code that is in use is mounted, which keeps its folder in the kernel's memory: this reads no disk.
    const isThere = statSync(found.prepared.codeFolder, { throwIfNoEntry: false }) !== undefined;
    if (!isThere) return prepare(version, signal);
    const codeCacheFolder = codeCacheOf(version);
    return codeCacheFolder === found.prepared.codeCacheFolder ? found.prepared : { ...found.prepared, codeCacheFolder };
  };
}

function startDispatcher(platform: Platform): Dispatcher {
  const { store, clock, limits: bounds, supervise, logger } = platform.parts;
  const dispatcher = new Dispatcher({
    queue: store.queue,
    clock,
    invoke: (lease, signal) => platform.runLease(lease, signal),
    policyOf: () => ({
      attemptsMax: bounds.asyncAttemptsMax,
      ageMsMax: bounds.asyncAgeMsMax,
      delaysMs: [60_000, 120_000],
    }),
    laneLimit: (lane) => platform.laneLimit(lane),
    inFlightMax: ASYNC_IN_FLIGHT_MAX,
    supervise,
    logger,
  });
  platform.onEnqueued = () => dispatcher.notify();
  return dispatcher;
}

/** Removes old activations and logs, and code that nothing needs, now and then; answers how to stop. */
function keepRetention(platform: Platform): () => void {
  const { store, clock, limits: bounds, supervise, logger } = platform.parts;
  const startedAtMs = clock.nowMs();
  const run = (): void => {
    const swept = platform.sweepPackages(startedAtMs).then((digests) => {
      if (digests.length > 0) logger.log("info", "removed code packages that nothing needs", { count: digests.length });
    });
    supervise("remove unused code packages", swept);
    const retained = store.log.retain({
      olderThanMs: clock.nowMs() - bounds.activationRetentionMs,
      bytesMax: bounds.journalBytesMax,
    });
    supervise("remove old activations and logs", retained);
  };
  const timer = setInterval(run, RETENTION_INTERVAL_MS);
  timer.unref();
  return () => clearInterval(timer);
}
