import { setTimeout as sleep } from "node:timers/promises";
import type { UpOptions } from "./cli/commands/up.ts";
import { compose, type Composition } from "./compose.ts";
import { readConfig } from "./config.ts";
import { systemClock } from "./core/clock.ts";
import { type KoineError, toKoineError } from "./core/errors.ts";
import { limits } from "./core/limits.ts";
import type { Logger, Supervise } from "./core/telemetry.ts";
import { deployExamples } from "./examples.ts";
import { createLogger } from "./log.ts";

interface UpContext {
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly version: string;
  readonly cwd: string;
}

/** Two signals within this time are one key press that arrived twice: from the terminal and from a parent. */
const SAME_KEY_PRESS_MS = 300;

/** Runs the platform until it is told to stop; answers the exit code. */
export async function up(options: UpOptions, context: UpContext): Promise<number> {
  let logger = createLogger(process.stderr, { format: options.logFormat ?? "text", clock: systemClock });
  try {
    const config = readConfig(options, context.environment, context.cwd);
    logger = createLogger(process.stderr, { format: config.logFormat, clock: systemClock });
    const supervise = supervisor(logger);
    const composition = await compose({ config, version: context.version, logger, supervise });
    return await run(composition, { version: context.version, logger, supervise });
  } catch (thrown) {
    printError(toKoineError(thrown));
    return 1;
  }
}

interface RunContext {
  readonly version: string;
  readonly logger: Logger;
  readonly supervise: Supervise;
}

async function run(composition: Composition, context: RunContext): Promise<number> {
  const { config, gateway, dispatcher, swept } = composition;
  const stop = stopSignals();
  try {
    const address = await gateway.listen(config.port, config.host);
    const host = address.family === "IPv6" ? `[${address.address}]` : address.address;
    const url = `http://${host}:${address.port}`;
    dispatcher.start();
    gateway.setReady(true);
    if (swept > 0) context.logger.log("info", "swept away what a killed platform had left", { count: swept });
    await printReady(composition, context.version, url);
    if (config.examples)
      context.supervise("deploy the examples", deployExamples(url, config.grants[0]?.token, stop.first));
  } catch (thrown) {
    await composition.close();
    throw thrown;
  }
  await aborted(stop.first);
  return await drain(composition, stop.second);
}

/** Lets running invocations end, within limits; a second Ctrl-C ends the wait. */
async function drain({ gateway, engine, dispatcher, close }: Composition, hurry: AbortSignal): Promise<number> {
  const inFlight = engine.inFlight;
  process.stdout.write(
    `\n  stopping${inFlight > 0 ? `: ${inFlight} running invocations may end (Ctrl-C again to stop at once)` : ""}\n`,
  );
  const signal = AbortSignal.any([hurry, AbortSignal.timeout(limits.drainMsMax)]);
  hurry.addEventListener("abort", () => process.stdout.write("  stopping at once\n"), { once: true });
  gateway.setReady(false);
  await Promise.all([dispatcher.drain(signal), engine.drain(signal)]);
  const closed = Promise.all([gateway.close(AbortSignal.timeout(hurry.aborted ? 0 : 1_000)), close()]);
  await Promise.race([closed, aborted(hurry).then(() => sleep(500))]);
  return hurry.aborted ? 130 : 0;
}

async function printReady({ config, driver }: Composition, version: string, url: string): Promise<void> {
  const facts = await driver.inspect();
  const missing = facts.filter((fact) => !fact.holds);
  const relative = config.dataDirectory.startsWith(`${process.cwd()}/`)
    ? `./${config.dataDirectory.slice(process.cwd().length + 1)}`
    : config.dataDirectory;
  const lines = [`  koine ${version}   API ${url}   data ${relative}   sandbox ${summary(driver.name, facts)}`];
  if (missing.length > 0)
    lines.push(
      `  not isolated: ${missing.map((fact) => fact.ability).join(", ")}   ('koine doctor' says why and how to get it)`,
    );
  if (config.grants.length > 0) lines.push("  callers need a token");
  process.stdout.write(`${lines.join("\n")}\n`);
}

function summary(name: string, facts: Awaited<ReturnType<Composition["driver"]["inspect"]>>): string {
  const holding = facts.filter((fact) => fact.holds).map((fact) => fact.ability);
  const namespaces = holding.filter(
    (ability) => ability.endsWith("namespace") && !ability.startsWith("network"),
  ).length;
  const parts = [
    ...(namespaces > 0 ? [`${namespaces} namespaces`] : []),
    ...(holding.some((ability) => ability === "system call filter") ? ["seccomp"] : []),
    ...(holding.some((ability) => ability === "memory limit") ? ["cgroup"] : []),
  ];
  return parts.length === 0 ? `${name} (no isolation)` : `${name} (${parts.join(", ")})`;
}

function stopSignals(): { readonly first: AbortSignal; readonly second: AbortSignal } {
  const first = new AbortController();
  const second = new AbortController();
  let firstAtMs = 0;
  for (const name of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    process.on(name, () => {
      const nowMs = systemClock.monotonicMs();
      if (!first.signal.aborted) {
        firstAtMs = nowMs;
        first.abort();
      } else if (nowMs - firstAtMs > SAME_KEY_PRESS_MS) second.abort();
    });
  }
  return { first: first.signal, second: second.signal };
}

async function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return;
  await new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
}

/** A promise that nobody awaits and that fails is a defect or a broken machine: it is logged, never swallowed. */
function supervisor(logger: Logger): Supervise {
  return (what, promise) => {
    promise.catch((thrown: unknown) => {
      const error = thrown instanceof Error ? (thrown.stack ?? thrown.message) : String(thrown);
      logger.log("error", `failed to ${what}`, { error });
    });
  };
}

function printError(error: KoineError): void {
  const cause = error.code === "internal" && error.cause instanceof Error ? `\n${error.cause.stack ?? ""}` : "";
  process.stderr.write(
    `error: ${error.message}\n  hint: ${error.hint}\n  code ${error.code}  fault ${error.fault}${cause}\n`,
  );
}
