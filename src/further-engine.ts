import { rm } from "node:fs/promises";
import { join } from "node:path";
import { Socket } from "node:net";
import { callDialects, engineParts, isElsewhere, openDriver, openImageSandboxes, openRuntimes } from "./compose.ts";
import { systemClock } from "./core/clock.ts";
import { limits } from "./core/limits.ts";
import { type Logger, Telemetry } from "./core/telemetry.ts";
import { Engine } from "./engine/engine.ts";
import { type Opening, unpackOpening } from "./opening.ts";
import { engineDescriptors } from "./engines/process.ts";
import { callsPlatform, Secondary, type SecondaryContext, type SecondaryParts } from "./engines/secondary.ts";
import { Access } from "./gateway/access.ts";
import { Gateway } from "./gateway/gateway.ts";
import { createLogger, createSupervisor } from "./log.ts";
import { RecordRelay } from "./store/sqlite/relay.ts";

/** How long what runs may take to end when the first engine's process is gone, in milliseconds. */
const ORPHANED_MS_MAX = 1_000;

/** Serves as a further engine of the platform whose process started this one, until that wants it to end or is gone. */
export async function serveFurtherEngine(): Promise<void> {
  // They are meant for the first engine's process, which tells this one what follows.
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => {});
  const secondary = new Secondary<string>({
    control: new Socket({ fd: engineDescriptors.control }),
    passing: new Socket({ fd: engineDescriptors.passing }),
    clock: systemClock,
    open: (opening, context) => openFurtherEngine(unpackOpening(opening), context),
  });
  await secondary.ended;
  await Promise.race([secondary.close(), new Promise((resolve) => setTimeout(resolve, ORPHANED_MS_MAX))]);
}

async function openFurtherEngine(
  { config, engine: number }: Opening,
  context: SecondaryContext,
): Promise<SecondaryParts> {
  const logger = numbered(createLogger(process.stderr, { format: config.logFormat, clock: systemClock }), number);
  const supervise = createSupervisor(logger);
  const { dataDirectory } = config;
  const telemetry = new Telemetry();
  const driver = await openDriver(config, logger, number);
  const { driver: imageDriver } = openImageSandboxes(config, number);
  const runtimes = openRuntimes(dataDirectory, config);
  const relay = new RecordRelay({
    send: (records) => context.sendRecords(records),
    stuck: () => context.recordsStuck(),
  });
  const engine = new Engine({
    ...engineParts({ config, logger, supervise }, { driver, imageDriver, runtimes, telemetry }),
    sharing: { allowances: context.allowances, memoryBudgetBytes: config.memoryBudgetBytes },
    prepareVersion: context.prepareVersion,
    // Only the check of a deploy has something to keep, and that runs in the first engine.
    keepCodeCache: async () => {},
    onFinished: (activation) => relay.activation(activation),
    onLog: (record) => relay.line(record),
  });
  const { catalogue } = context;
  const calls = callDialects(callsPlatform(engine, { catalogue, limits, supervise }));
  const gateway = new Gateway({
    access: new Access({ grants: config.grants, hosts: config.hosts }),
    dialects: calls,
    telemetry,
    logger,
    limits,
    openapi: () => ({}),
    elsewhere: isElsewhere,
    route: context.route(calls),
  });
  return {
    engine,
    gateway,
    telemetry,
    flushRecords: () => relay.flush(),
    close: once(async () => {
      await Promise.all([gateway.close(AbortSignal.timeout(CLOSE_MS_MAX)), engine.close()]);
      await Promise.all([driver.close(), imageDriver.close()]);
      await rm(join(dataDirectory, "sandboxes", `engine-${number}`), { recursive: true, force: true });
    }),
  };
}

/** Connections may end by themselves for so long after everything on them was answered. */
const CLOSE_MS_MAX = 1_000;

function numbered(logger: Logger, engine: number): Logger {
  return { log: (level, message, fields = {}) => logger.log(level, message, { engine, ...fields }) };
}

function once(action: () => Promise<void>): () => Promise<void> {
  let done: Promise<void> | null = null;
  return () => (done ??= action());
}
