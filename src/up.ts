import type { AddressInfo } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import type { UpOptions } from "./cli/commands/up.ts";
import { compose, type Composition } from "./compose.ts";
import { readConfig } from "./config.ts";
import { systemClock } from "./core/clock.ts";
import { type KoineError, toKoineError } from "./core/errors.ts";
import { limits } from "./core/limits.ts";
import type { Logger, Supervise } from "./core/telemetry.ts";
import { deployExamples } from "./examples.ts";
import { createLogger, createSupervisor } from "./log.ts";

interface UpContext {
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly version: string;
  readonly cwd: string;
}

/** Time that instances get to end when the store is lost. */
const GIVE_UP_MS = 2_000;
/** Two signals within this time are one key press that arrived twice: from the terminal and from a parent. */
const SAME_KEY_PRESS_MS = 300;

/** Runs the platform until it is told to stop; answers the exit code. */
export async function up(options: UpOptions, context: UpContext): Promise<number> {
  let logger = createLogger(process.stderr, { format: options.logFormat ?? "text", clock: systemClock });
  try {
    const config = readConfig(options, context.environment, context.cwd);
    logger = createLogger(process.stderr, { format: config.logFormat, clock: systemClock });
    const supervise = createSupervisor(logger);
    const composition = await compose({ config, version: context.version, logger, supervise });
    return await run(composition, { version: context.version, logger, supervise });
  } catch (thrown) {
    printError(toKoineError(thrown));
    // What had begun before it failed must not keep a platform that never was.
    setTimeout(() => process.exit(1), GIVE_UP_MS).unref();
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
    const address = await listen(composition);
    const host = address.family === "IPv6" ? `[${address.address}]` : address.address;
    const url = `http://${host}:${address.port}`;
    dispatcher.start();
    await composition.platform.triggers.start();
    for (const dialect of composition.dialects) dialect.start?.();
    gateway.setReady(true);
    composition.engines?.setReady(true);
    if (swept > 0) context.logger.log("info", "swept away what a killed platform had left", { count: swept });
    const second = await listenToo(composition);
    await printReady(composition, { version: context.version, url, second });
    if (config.examples)
      context.supervise("deploy the examples", deployExamples(url, config.grants[0]?.token, stop.first));
  } catch (thrown) {
    await composition.close();
    throw thrown;
  }
  const failure = await Promise.race([aborted(stop.first).then(() => null), composition.storeFailed]);
  return failure === null ? await drain(composition, stop.second) : await giveUp(composition, failure);
}

/** Nothing that runs could be settled, and nothing that is accepted could be kept: ends at once, so that a new start can go on with what is on disk. */
async function giveUp({ gateway, engine, engines }: Composition, failure: KoineError): Promise<number> {
  gateway.setReady(false);
  engines?.kill();
  await Promise.race([engine.close(), sleep(GIVE_UP_MS)]);
  printError(failure);
  // Connections and timers of what has lost its store would keep the process for ever.
  process.exit(1);
}

/** Answers where the platform listens, with all its engines. */
async function listen({ config, gateway, engines }: Composition): Promise<AddressInfo> {
  const { port, host } = config;
  if (engines === null) return await gateway.listen(port, host);
  await engines.open();
  const address = await gateway.listen(port, host, { shared: "first" });
  await engines.listen(address.port, host);
  return address;
}

/** Listens where tools look that know another platform; a line that says so, or why they will not find this one. Null: nobody looks. */
async function listenToo({ config, gateway, dialects }: Composition): Promise<string | null> {
  const { host, secondPort } = config;
  const usual = config.port === 0 ? undefined : dialects.find(({ usualPort }) => usualPort !== undefined)?.usualPort;
  const port = secondPort ?? usual ?? 0;
  if (port === 0 || port === config.port) return null;
  const url = `http://${host.includes(":") ? `[${host}]` : host}:${port}`;
  try {
    await gateway.listenToo(port, host);
    return `also at ${url}, where tools of other platforms look (KOINE_SECOND_PORT=0: not)`;
  } catch (thrown) {
    const error = toKoineError(thrown);
    if (secondPort !== null || error.code !== "port-in-use") throw error;
    return `port ${port} is taken: tools that look there find something else`;
  }
}

/** Lets running invocations end, within limits; a second Ctrl-C ends the wait. */
async function drain(composition: Composition, hurry: AbortSignal): Promise<number> {
  const { gateway, dialects, engine, engines, dispatcher, platform, close } = composition;
  await engines?.refresh();
  const inFlight = engine.inFlight + (engines?.inFlight ?? 0);
  process.stdout.write(
    `\n  stopping${inFlight > 0 ? `: ${inFlight} running invocations may end (Ctrl-C again to stop at once)` : ""}\n`,
  );
  const signal = AbortSignal.any([hurry, AbortSignal.timeout(limits.drainMsMax)]);
  hurry.addEventListener("abort", () => process.stdout.write("  stopping at once\n"), { once: true });
  gateway.setReady(false);
  const sources = Promise.all([platform.triggers.stop(), ...dialects.map((dialect) => dialect.close?.())]);
  // What a source has handed to a function may run for longer than there is time.
  await Promise.all([
    Promise.race([sources, aborted(signal)]),
    dispatcher.drain(signal),
    engine.drain(signal),
    engines?.drain(signal),
  ]);
  if (hurry.aborted) engines?.kill();
  const closed = Promise.all([gateway.close(AbortSignal.timeout(hurry.aborted ? 0 : 1_000)), close()]);
  await Promise.race([closed, aborted(hurry).then(() => sleep(500))]);
  return hurry.aborted ? 130 : 0;
}

async function printReady(
  { config, driver, network }: Composition,
  { version, url, second }: { readonly version: string; readonly url: string; readonly second: string | null },
): Promise<void> {
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
  if (second !== null) lines.push(`  ${second}`);
  lines.push(`  ${networkLine(network, driver)}`);
  if (config.grants.length > 0) lines.push("  callers need a token");
  process.stdout.write(`${lines.join("\n")}\n`);
}

/** What functions reach, and what to do where that is less or more than it should be. */
function networkLine({ mode, allow }: Composition["network"], driver: Composition["driver"]): string {
  switch (mode) {
    case "egress": {
      const listed =
        allow.length === 0 ? "not this machine or private networks" : allow.map(({ text }) => text).join(" ");
      return `network egress: functions reach the internet, ${allow.length === 0 ? listed : `and ${listed}`}`;
    }
    case "host":
      return "network host: functions reach EVERYTHING that this machine can, its own services too; for development only";
    case "none": {
      const egress = driver.networks?.egress;
      if (egress === undefined || egress.had) return "network none: functions reach nothing";
      return `network none: functions reach nothing, as egress cannot be had (${egress.detail}; 'koine doctor' says how to get it)`;
    }
    default:
      return mode satisfies never;
  }
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

function printError(error: KoineError): void {
  const cause = error.code === "internal" && error.cause instanceof Error ? `\n${error.cause.stack ?? ""}` : "";
  process.stderr.write(
    `error: ${error.message}\n  hint: ${error.hint}\n  code ${error.code}  fault ${error.fault}${cause}\n`,
  );
}
