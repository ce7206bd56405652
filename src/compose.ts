import { createHash, randomBytes } from "node:crypto";
import { existsSync, statSync } from "node:fs";
import { access, constants, mkdir, readdir, rm, stat } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Config } from "./config.ts";
import type { EngineView } from "./core/api.ts";
import { type Clock, systemClock } from "./core/clock.ts";
import { KoineError } from "./core/errors.ts";
import { formatFunctionRef, type Version } from "./core/function.ts";
import { limits } from "./core/limits.ts";
import type { NetworkAccess } from "./core/network.ts";
import { type Logger, type Supervise, Telemetry } from "./core/telemetry.ts";
import { awsAdapters, createAwsDialect } from "./dialects/aws/aws.ts";
import { isFunctionUrl } from "./dialects/aws/lambda/url-host.ts";
import { runtimeApiWording } from "./dialects/aws/runtime-api.ts";
import { queueWording } from "./dialects/aws/sqs/sqs.ts";
import type { CallDialect, Dialect, HandlerAdapters, InstanceSurroundings, Surroundings } from "./dialects/dialect.ts";
import type { CallsPlatform } from "./dialects/native/calls.ts";
import { createNativeCalls, createNativeDialect, nativeAdapters } from "./dialects/native/native.ts";
import { Engine } from "./engine/engine.ts";
import { Engines, type EnginesOptions } from "./engines/engines.ts";
import { packOpening } from "./opening.ts";
import type { Agent, EngineParts, InsideOpening, PreparedVersion } from "./engine/parts.ts";
import { requireNetwork } from "./engine/recipe.ts";
import { Access } from "./gateway/access.ts";
import { Gateway } from "./gateway/gateway.ts";
import { InsideGateway, type InsideGrant } from "./gateway/inside.ts";
import { CodeCaches } from "./platform/code-caches.ts";
import { Catalogue } from "./platform/catalogue.ts";
import { REGISTRY_SECRET, registryCredentials } from "./platform/deploy-image.ts";
import { installSettingsPath } from "./platform/install-dependencies.ts";
import { installEnvironment } from "./platform/install-environment.ts";
import { Journal } from "./platform/journal.ts";
import { CodePackages } from "./platform/packages.ts";
import type { PlatformParts } from "./platform/parts.ts";
import { Platform } from "./platform/platform.ts";
import { Reachable } from "./platform/reachable.ts";
import { Secrets } from "./platform/secrets.ts";
import { createActionProxyProtocol } from "./protocols/action-proxy.ts";
import { createFramesProtocol } from "./protocols/frames.ts";
import { createHttpProtocol } from "./protocols/http.ts";
import { createLambdaRuntimeApi } from "./protocols/lambda-runtime-api.ts";
import type { Protocol } from "./protocols/protocol.ts";
import { createStdioProtocol } from "./protocols/stdio.ts";
import { Dispatcher } from "./queue/dispatcher.ts";
import { createCustomRuntime } from "./runtimes/custom.ts";
import { createImageRuntime } from "./runtimes/image.ts";
import { createJavaRuntime } from "./runtimes/java.ts";
import { createNodeRuntime } from "./runtimes/nodejs.ts";
import { createPythonRuntime } from "./runtimes/python.ts";
import { insidePaths, type Runtime } from "./runtimes/runtime.ts";
import { type Containers, openContainers } from "./sandbox/container/driver.ts";
import { openNoneDriver } from "./sandbox/none/driver.ts";
import { openProcessDriver } from "./sandbox/process/driver.ts";
import type { Images } from "./sandbox/images.ts";
import type { IsolationFact, SandboxDriver } from "./sandbox/sandbox.ts";
import { openFileBlobs } from "./store/files.ts";
import { openSqliteStore } from "./store/sqlite.ts";
import type { Store } from "./store/store.ts";
import { openVault } from "./store/vault.ts";
import { createBucketKind } from "./triggers/bucket.ts";
import { createBucketWebhookKind } from "./triggers/bucket-webhook.ts";
import { createCloudEventsKind } from "./triggers/cloudevents.ts";
import { createFilesKind } from "./triggers/files.ts";
import { createJetStreamKind } from "./triggers/jetstream.ts";
import { createKafkaKind } from "./triggers/kafka.ts";
import { createMqttKind } from "./triggers/mqtt.ts";
import { createNatsKind } from "./triggers/nats.ts";
import { createPostgresKinds } from "./triggers/postgres.ts";
import { createRabbitMqKind } from "./triggers/rabbitmq.ts";
import { createRedisKinds } from "./triggers/redis.ts";
import { createScheduleKind } from "./triggers/schedule.ts";
import { createSqsKind } from "./triggers/sqs.ts";
import { createTopicKind } from "./triggers/topic.ts";
import type { TriggerKind } from "./triggers/trigger.ts";
import { createWebhookKind } from "./triggers/webhook.ts";

/** The one place where implementations are chosen and wired. */
export interface Composition {
  readonly config: Config;
  readonly platform: Platform;
  /** The engine of this process. */
  readonly engine: Engine;
  /** Those of other processes; null: there are none. */
  readonly engines: Engines | null;
  readonly gateway: Gateway;
  readonly dialects: readonly Dialect[];
  readonly driver: SandboxDriver;
  readonly network: NetworkAccess;
  readonly dispatcher: Dispatcher;
  /** What was left behind by an earlier, killed platform and swept away. */
  readonly swept: number;
  /** Resolves when the store cannot be used any more: then the platform must end, for it can promise nothing. */
  readonly storeFailed: Promise<KoineError>;
  close(): Promise<void>;
}

const RETENTION_INTERVAL_MS = 10 * 60_000;
const LAUNCHES_AHEAD = 4;
const SPARES_MIN = 2;
const FIRST_ENGINE = 1;
const SPARES_MAX = 72;
/** Spare sandboxes of one runtime may take this share of the memory budget, at so many bytes each. */
const SPARES_MEMORY_SHARE = 0.05;
const SPARE_BYTES = 12 * 1024 * 1024;

/** Adapters in the order in which `auto` tries them. */
const ADAPTERS: readonly { readonly dialect: string; readonly adapters: HandlerAdapters }[] = [
  { dialect: "native", adapters: nativeAdapters },
  { dialect: "aws", adapters: awsAdapters },
];

export interface Base {
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
  const storeFailed = Promise.withResolvers<KoineError>();
  const store = opened.adopt(await openStore(dataDirectory, { logger, onFailed: storeFailed.resolve }), (open) =>
    open.close(),
  );
  const clock = systemClock;
  const telemetry = new Telemetry();
  const driver = opened.adopt(await openDriver(config, logger), (open) => open.close());
  const containers = opened.adopt(openImageSandboxes(config), (open) => open.driver.close());
  const network = platformNetwork(config, driver);
  const swept = (await driver.sweep()) + (await sweepFurtherEngines(config, logger));
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
  const { images } = containers;
  const prepareCode = codePreparer({ packages, runtimes, images, secrets });
  const codeCacheOf = (version: Version): string | null => codeCaches.find(version);
  // Dialects need the platform, and the platform what they give to functions.
  const dialectsByName = new Map<string, Dialect>();
  const surroundingsOf = ({ spec }: Version): Surroundings | undefined =>
    dialectsByName.get(spec.dialect)?.surroundings;
  const prepareVersion = versionPreparer({ prepareCode, secrets, images, codeCacheOf, surroundingsOf });
  const protocols = openProtocols();
  const engines =
    config.engines === 1 ? null : openEngines(base, { catalogue, secrets, journal, prepareVersion, telemetry });
  const inside: { gateway: InsideGateway | null } = { gateway: null };
  const first = new Engine({
    ...engineParts(base, { driver, imageDriver: containers.driver, runtimes, telemetry }),
    openInside: (version, instanceId) =>
      openInside(version, surroundingsOf(version)?.open(version, instanceId) ?? null, {
        secrets,
        gateway: inside.gateway,
      }),
    sharing: engines?.sharing ?? null,
    prepareVersion,
    keepCodeCache: (version, files) => codeCaches.keep(version, files),
    onFinished: (activation) => journal.activation(activation),
    onLog: (record) => journal.line(record),
  });
  const engine = engines?.around(first) ?? first;
  const parts: PlatformParts = {
    clock,
    limits,
    store,
    catalogue,
    packages,
    codeCaches,
    images,
    secrets,
    journal,
    engine,
    runtimes,
    telemetry,
    reachable: new Reachable(config.destinationsAllowed),
    logger,
    supervise,
    // The data directory is one process's own: whoever had triggers before on it is gone.
    triggers: {
      kinds: triggerKinds(clock, telemetry, config),
      telemetry,
      node: "local",
      alone: true,
      random: Math.random,
    },
    prepareVersion,
    prepareCode,
    protocols: new Set([...protocols.values()].flatMap(({ name, program }) => (program === undefined ? [] : [name]))),
    models: (language) => ADAPTERS.flatMap(({ adapters }) => adapters.models[language] ?? []),
  };
  for (const { record } of catalogue.all()) engine.limit(record, record.reservedConcurrency);
  const platform = new Platform(parts);
  await platform.triggers.load();
  const dispatcher = startDispatcher(platform);
  const access = new Access({ grants: config.grants, hosts: config.hosts });
  const native = createNativeDialect(platform, {
    version: base.version,
    startedAtMs: clock.nowMs(),
    dataDirectory,
    sandbox: driver.name,
    authentication: access.configured,
    memoryBudgetBytes: config.memoryBudgetBytes,
    engines: () => engineViews({ engine: first, engines, gateway }),
    doctor: async () =>
      [...(await Promise.all([driver.inspect(), containers.driver.inspect()])), networkFact(network)].flat(),
  });
  const aws = await createAwsDialect(platform, vault);
  const openapi = (): Readonly<Record<string, unknown>> => native.openapi?.() ?? {};
  const routing = engines?.routing(callDialects(platform)) ?? {};
  const dialects = [native, aws];
  for (const dialect of dialects) dialectsByName.set(dialect.name, dialect);
  inside.gateway = opened.adopt(new InsideGateway({ dialects: [native], limits, supervise }), (gate) => gate.close());
  const gateway = new Gateway({
    access,
    dialects,
    telemetry,
    logger,
    limits,
    openapi,
    elsewhere: isElsewhere,
    ...routing,
  });
  engines?.answerBy((request) => gateway.passedOn(request));
  const stopRetention = keepRetention(platform);
  const containersSwept = sweepContainers(config, containers).catch((thrown: unknown) =>
    logger.log("warn", "containers of before may still be there", { cause: String(thrown) }),
  );
  supervise("sweep containers", containersSwept);
  engine.useRuntimes(catalogue.runtimesInUse((spec) => engine.spareRuntimeOf(spec)));
  // In the reverse order, and each of them even when another fails, or the process would stay for ever.
  const closing = opened.move();
  closing.defer(() => journal.catchUp());
  closing.defer(() => packages.close());
  closing.defer(() => engines?.close());
  closing.defer(() => first.close());
  return {
    config,
    platform,
    engine: first,
    engines,
    gateway,
    dialects,
    driver,
    network,
    dispatcher,
    swept,
    storeFailed: storeFailed.promise,
    async close() {
      stopRetention();
      await closing.disposeAsync();
    },
  };
}

/** What every engine of a platform is given, in whichever process it is. What is limited is divided here, or held by the engines' ledger. */
export function engineParts(
  { config, logger, supervise }: Pick<Base, "config" | "logger" | "supervise">,
  { driver, imageDriver, runtimes, telemetry }: Pick<EngineParts, "driver" | "imageDriver" | "runtimes" | "telemetry">,
): Omit<EngineParts, "sharing" | "prepareVersion" | "keepCodeCache" | "onFinished" | "onLog"> {
  const sparesMax = partOf(config.sparesMax ?? sparesMaxIn(config.memoryBudgetBytes), config);
  return {
    clock: systemClock,
    limits,
    driver,
    imageDriver,
    protocols: openProtocols(),
    agent: AGENT,
    runtimes,
    adaptersOf,
    adapterMounts: ADAPTERS.map(({ dialect, adapters }) => ({
      source: adapters.folder,
      target: `${insidePaths.handlers}/${dialect}`,
    })),
    network: platformNetwork(config, driver),
    telemetry,
    logger,
    supervise,
    settings: {
      memoryBudgetBytes: Math.floor(config.memoryBudgetBytes / config.engines),
      instancesMax: Math.floor(limits.instancesMax / config.engines),
      idleTimeoutMs: config.idleTimeoutMs,
      sparesMin: Math.min(partOf(SPARES_MIN, config), sparesMax),
      sparesMax,
      sparesBootingMax: Math.max(1, Math.floor(availableParallelism() / config.engines)),
    },
  };
}

/** One engine's part of a number of things, rounded up. */
function partOf(count: number, { engines }: Config): number {
  return Math.ceil(count / engines);
}

/** Whether everything at the host of a request is a dialect's, whatever the path. */
export const isElsewhere = isFunctionUrl;

/** Dialects' calls of functions, which every engine answers by itself. */
export function callDialects(platform: CallsPlatform): readonly CallDialect[] {
  return [createNativeCalls(platform, isElsewhere)];
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

async function openStore(
  directory: string,
  { logger, onFailed }: { readonly logger: Logger; readonly onFailed: (error: KoineError) => void },
): Promise<Store> {
  const sqlite = await openSqliteStore({ directory, logger, onFailed });
  const blobs = await openFileBlobs(join(directory, "blobs"));
  const { values, log, queue } = sqlite;
  return { values, log, queue, blobs, close: () => sqlite.close() };
}

/** @param engine engines keep apart what they have on the machine, so that what one leaves behind can be found without the others' */
export async function openDriver(config: Config, logger: Logger, engine = FIRST_ENGINE): Promise<SandboxDriver> {
  const directory = sandboxFolder(config, engine);
  const tag = platformTag(config);
  if (config.sandbox === "none") return await openNoneDriver({ directory });
  try {
    return await openProcessDriver({
      directory,
      tag: engine === FIRST_ENGINE ? tag : `${tag}-${engine}`,
      identities: { tag, part: { index: engine - FIRST_ENGINE, count: config.engines } },
      logger,
      privateMounts: config.privateMounts,
      launchesAhead: LAUNCHES_AHEAD,
      networkAhead: { mode: config.network ?? "egress", allow: config.allowNetwork },
    });
  } catch (thrown) {
    if (config.sandbox === "process") throw thrown;
    logger.log("warn", "functions are NOT isolated from this machine; 'koine doctor' says what is missing", {
      cause: String(thrown),
    });
    return await openNoneDriver({ directory });
  }
}

/** Asks nothing of a container engine before there is an image. */
export function openImageSandboxes(config: Config, engine = FIRST_ENGINE): Containers {
  const { environment } = config;
  const clientConfig = environment["DOCKER_CONFIG"] ?? (environment["HOME"] && join(environment["HOME"], ".docker"));
  return openContainers({
    address: config.containerEngine,
    tag: platformTag(config),
    ...(engine === FIRST_ENGINE ? {} : { part: String(engine) }),
    directory: containerFolder(config, engine),
    runtimeFolder: environment["XDG_RUNTIME_DIR"],
    clientConfigFile: clientConfig ? join(clientConfig, "config.json") : null,
    searchPath: environment["PATH"] ?? "",
  });
}

function platformTag({ dataDirectory }: Config): string {
  return createHash("sha256").update(dataDirectory).digest("hex").slice(0, 12);
}

function containerFolder({ dataDirectory }: Config, engine: number): string {
  return join(dataDirectory, "containers", `engine-${engine}`);
}

/** What a killed platform left in the container engine; nothing is asked of an engine by a platform that never had images. */
async function sweepContainers(
  config: Config,
  { driver }: Pick<Containers, "driver">,
  engine = FIRST_ENGINE,
): Promise<number> {
  return existsSync(containerFolder(config, engine)) ? await driver.sweep() : 0;
}

/**
 * Functions can call the internet but not the machine, where that can be had; where it cannot, nothing: the machine's network is given
 * to nobody who did not say so.
 * @throws KoineError `network-unavailable` for a mode that was asked for
 */
function platformNetwork({ network, allowNetwork }: Config, driver: SandboxDriver): NetworkAccess {
  if (network !== null) requireNetwork(driver, network);
  const found = driver.sharesNetwork === true ? "host" : driver.networks?.egress.had === false ? "none" : "egress";
  const mode = network ?? found;
  return { mode, allow: mode === "egress" ? allowNetwork : [] };
}

function networkFact({ mode, allow }: NetworkAccess): IsolationFact {
  const listed = allow.length === 0 ? "" : `, and ${allow.map(({ text }) => text).join(" ")}`;
  const detail = { none: "nothing", egress: `the internet${listed}`, host: "everything that this machine reaches" }[
    mode
  ];
  return {
    ability: "functions do not reach the machine",
    holds: mode !== "host",
    detail: `network ${mode}: ${detail}`,
    remedy: mode === "host" ? "Start koine without '--network host', and let --allow-network name what they need." : "",
  };
}

/** Runs the programs of the protocol `stdio` in sandboxes of processes. */
const AGENT: Agent = {
  runtime: "nodejs26.x",
  language: "nodejs",
  adapter: { dialect: "native", model: "stdio", path: `${insidePaths.bootstrap}/nodejs/stdio.mjs` },
};

function openProtocols(): ReadonlyMap<string, Protocol> {
  const all = [
    createFramesProtocol(),
    createHttpProtocol(),
    createStdioProtocol(),
    createLambdaRuntimeApi(runtimeApiWording),
    createActionProxyProtocol(),
  ];
  return new Map(all.map((protocol) => [protocol.name, protocol]));
}

/**
 * Gives an instance what its dialect has for it, and a port of its own to ask the platform: with what proves that it is the one, where it is
 * allowed to.
 */
function openInside(
  version: Version,
  surroundings: InstanceSurroundings | null,
  { secrets, gateway }: { readonly secrets: Secrets; readonly gateway: InsideGateway | null },
): InsideOpening | null {
  const { namespace, spec } = version;
  if (gateway === null || (surroundings === null && spec.allow === undefined)) return null;
  const grant: InsideGrant = {
    token: randomBytes(32).toString("base64url"),
    subject: `function:${formatFunctionRef(version)}`,
    namespace,
    allow: new Set(spec.allow),
    secret: async (name) => {
      if (!spec.secrets.includes(name)) throw new KoineError("secret-not-found", { name, namespace });
      return (await secrets.open(namespace, [name]))[name] ?? "";
    },
    dialect: surroundings === null ? null : (request) => surroundings.handle(request),
    revoked: false,
  };
  return {
    serve: (connection) => gateway.serve(connection, grant),
    environment: (port) => {
      const url = port === null ? null : `http://127.0.0.1:${port}`;
      const ofDialect = surroundings?.environment(url) ?? {};
      if (spec.allow === undefined) return ofDialect;
      if (url === null) {
        const remedy = "Deploy it without --allow.";
        throw new KoineError("not-supported", { what: "Asking the platform from inside", remedy });
      }
      return { ...ofDialect, KOINE_API: url, KOINE_TOKEN: grant.token, KOINE_NAMESPACE: namespace };
    },
    watch: surroundings?.watch ?? null,
    close: () => {
      grant.revoked = true;
    },
  };
}

function triggerKinds(
  clock: Clock,
  telemetry: Telemetry,
  { triggerFolders }: Config,
): ReadonlyMap<string, TriggerKind> {
  const lateness = telemetry.histogram(
    "koine_schedule_lateness_seconds",
    "Time from a schedule's slot to the acceptance of its event.",
  );
  const all = [
    createScheduleKind(clock, (lateMs) => lateness.observe(lateMs / 1_000)),
    createWebhookKind(),
    createCloudEventsKind(),
    createTopicKind(),
    createFilesKind(triggerFolders),
    createKafkaKind(),
    createNatsKind(),
    createJetStreamKind(),
    createRabbitMqKind(),
    createMqttKind(),
    ...createRedisKinds(),
    ...createPostgresKinds(),
    createSqsKind(queueWording),
    createBucketKind(),
    createBucketWebhookKind(),
  ];
  return new Map(all.map((kind) => [kind.name, kind]));
}

export function openRuntimes(dataDirectory: string, config: Config): ReadonlyMap<string, Runtime> {
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
  const all = [
    node("nodejs26.x"),
    node("nodejs24.x"),
    node("nodejs22.x"),
    python,
    createJavaRuntime({ name: "java17" }),
    createJavaRuntime({ name: "java21" }),
    createJavaRuntime({ name: "java25" }),
    createCustomRuntime(),
    createImageRuntime(),
  ];
  return new Map(all.map((runtime) => [runtime.name, runtime]));
}

function sandboxFolder(config: Config, engine: number): string {
  const folder = join(config.dataDirectory, "sandboxes");
  return engine === FIRST_ENGINE ? folder : join(folder, `engine-${engine}`);
}

/** Ends what an engine's killed process left behind, and forgets that there was one. */
async function sweepEngine(config: Config, logger: Logger, engine: number): Promise<number> {
  const driver = await openDriver(config, logger, engine);
  const containers = openImageSandboxes(config, engine);
  try {
    await sweepContainers(config, containers, engine).catch(() => {});
    return await driver.sweep();
  } finally {
    await Promise.all([driver.close(), containers.driver.close()]);
    await rm(containerFolder(config, engine), { recursive: true, force: true });
    await rm(sandboxFolder(config, engine), { recursive: true, force: true });
  }
}

/** After a killed platform that had further engines; a platform that stops leaves no folder of theirs. */
async function sweepFurtherEngines(config: Config, logger: Logger): Promise<number> {
  const names = await readdir(sandboxFolder(config, FIRST_ENGINE)).catch(() => []);
  let swept = 0;
  for (const name of names) {
    const engine = Number(/^engine-(\d+)$/.exec(name)?.[1]);
    if (engine > FIRST_ENGINE)
      swept += await sweepEngine({ ...config, engines: Math.max(engine, config.engines) }, logger, engine);
  }
  return swept;
}

function openEngines(
  { config, logger, supervise }: Base,
  parts: Pick<EnginesOptions, "catalogue" | "secrets" | "journal" | "prepareVersion" | "telemetry">,
): Engines {
  // The extension is ours: `.ts` from source, `.js` when built.
  const extension = import.meta.url.slice(import.meta.url.lastIndexOf("."));
  const entry = fileURLToPath(new URL(`./engine-main${extension}`, import.meta.url));
  return new Engines({
    ...parts,
    count: config.engines,
    memoryBudgetBytes: config.memoryBudgetBytes,
    program: { file: process.execPath, args: [...process.execArgv, entry], environment: config.environment },
    opening: (engine) => packOpening({ config, engine }),
    sweep: (engine) => sweepEngine(config, logger, engine),
    clock: systemClock,
    logger,
    supervise,
  });
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

function codePreparer({
  packages,
  runtimes,
  images,
  secrets,
}: Pick<PlatformParts, "packages" | "runtimes" | "images" | "secrets">): PlatformParts["prepareCode"] {
  return async (version, { onPhase, onOutput, signal }) => {
    const { code, runtime: name, image, annotations } = version.spec;
    if (image !== undefined) {
      const secret = annotations[REGISTRY_SECRET];
      await images.ensure(image, () => registryCredentials({ secrets }, version.namespace, secret), signal);
      return "";
    }
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
  images,
  codeCacheOf,
  surroundingsOf,
}: {
  readonly images: Images;
  readonly prepareCode: PlatformParts["prepareCode"];
  readonly secrets: Secrets;
  codeCacheOf(version: Version): string | null;
  surroundingsOf(version: Version): Surroundings | undefined;
}): ConstructorParameters<typeof Engine>[0]["prepareVersion"] {
  const kept = new WeakMap<Version, { readonly prepared: PreparedVersion; readonly secretChanges: number }>();
  const prepare = async (version: Version, signal: AbortSignal): Promise<PreparedVersion> => {
    const secretChanges = secrets.changes;
    const [codeFolder, opened, beside] = await Promise.all([
      prepareCode(version, { signal }),
      secrets.open(version.namespace, version.spec.secrets),
      surroundingsOf(version)?.prepare(version, signal),
    ]);
    const environment = { ...beside?.environment, ...version.spec.environment, ...opened };
    const mounts = beside?.mounts ?? [];
    const prepared = { codeFolder, environment, codeCacheFolder: codeCacheOf(version), mounts };
    kept.set(version, { prepared, secretChanges });
    return prepared;
  };
  return (version, signal) => {
    const found = kept.get(version);
    if (found === undefined || found.secretChanges !== secrets.changes) return prepare(version, signal);
    // Code that is in use is mounted, which keeps its folder in the kernel's memory: this reads no disk.
    const { image } = version.spec;
    const isThere =
      image === undefined
        ? [found.prepared.codeFolder, ...(found.prepared.mounts ?? []).map(({ source }) => source)].every(
            (folder) => statSync(folder, { throwIfNoEntry: false }) !== undefined,
          )
        : images.has(image);
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
    invoke: (lease, signal) => platform.work.run(lease, signal),
    onSettled: (lease, settlement, outcome) => platform.work.settled(lease, settlement, outcome),
    laneLimit: (lane) => platform.work.laneLimit(lane),
    inFlightMax: bounds.asyncInFlightMax,
    supervise,
    logger,
  });
  platform.onEnqueued = () => dispatcher.notify();
  platform.work.cancelRunning = (id) => dispatcher.cancel(id);
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
    const unneeded = platform.sweepImages().then(
      (count) => count > 0 && logger.log("info", "let go of images that nothing needs", { count }),
      (thrown: unknown) => logger.log("warn", "images that nothing needs are still there", { cause: String(thrown) }),
    );
    supervise("remove unused images", unneeded);
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

function engineViews({ engine, engines, gateway }: Pick<Composition, "engine" | "engines" | "gateway">): EngineView[] {
  const { inFlight } = engine;
  const own = {
    engine: FIRST_ENGINE,
    pid: process.pid,
    connections: gateway.connections,
    inFlight,
    instances: engine.counts(),
  };
  const others = (engines?.states() ?? []).map(({ engine: number, pid, report }) => ({
    engine: number,
    pid,
    connections: report?.connections ?? 0,
    inFlight: report?.inFlight ?? 0,
    instances: report?.counts ?? { starting: 0, idle: 0, busy: 0, frozen: 0 },
  }));
  return [own, ...others];
}
