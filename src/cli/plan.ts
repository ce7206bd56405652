import { basename, resolve } from "node:path";
import { readFile } from "node:fs/promises";
import { parseEnv } from "node:util";
import type { DeployRequest } from "../core/api.ts";
import type { FunctionRef } from "../core/function.ts";
import { parseFunctionRef } from "../core/function.ts";
import { CliFailure, usageFailure } from "./failure.ts";
import { nameFrom, recogniseProject } from "./project.ts";
import type { ProjectFolder } from "./project-folder.ts";
import { parseCount, parseDuration, parseMemory } from "./quantity.ts";

/** The options of `deploy` and `dev`, as they stand on the command line. */
export interface DeployFlags {
  readonly name?: string;
  readonly runtime?: string;
  readonly handler?: string;
  readonly handlerModel?: string;
  readonly env?: readonly string[];
  readonly envFile?: string;
  readonly secret?: readonly string[];
  readonly memory?: string;
  readonly timeout?: string;
  readonly concurrency?: string;
  readonly maxConcurrency?: string;
  readonly idleTimeout?: string;
  readonly public?: boolean;
  readonly description?: string;
  /** False: `--no-check`. */
  readonly check?: boolean;
  /** False: `--no-live`. */
  readonly live?: boolean;
}

export interface DeployPlan {
  readonly ref: FunctionRef;
  readonly request: Omit<DeployRequest, "code">;
  readonly notes: readonly string[];
}

/**
 * What to deploy as what: flags first, then koine.json, then what the folder holds.
 * @throws CliFailure `usage` or `invalid-project`, KoineError `invalid-name`
 */
export function planDeploy(
  folder: ProjectFolder,
  flags: DeployFlags,
  given: { readonly namespace: string; readonly environment: Readonly<Record<string, string>> },
): DeployPlan {
  const file = folder.projectFile ?? {};
  const chosen = { runtime: flags.runtime ?? file.runtime, handler: flags.handler ?? file.handler };
  const project = recogniseProject(folder.facts, chosen);
  const ref = parseFunctionRef(flags.name ?? file.name ?? ownName(folder), given.namespace);
  if (ref.qualifier !== undefined) {
    throw usageFailure("A deploy makes the next version itself", "Leave out what follows the ':' in the name.");
  }
  const handlerModel = flags.handlerModel ?? file.handlerModel;
  const memoryBytesMax = flags.memory === undefined ? megabytes(file.memoryMb) : parseMemory(flags.memory);
  const timeout = flags.timeout ?? file.timeout;
  const idleTimeout = flags.idleTimeout ?? file.idleTimeout;
  const instanceConcurrency = optionCount(flags.concurrency, "--concurrency") ?? file.concurrency;
  const reservedConcurrency = optionCount(flags.maxConcurrency, "--max-concurrency") ?? file.maxConcurrency;
  const description = flags.description ?? file.description;
  const environment = { ...file.environment, ...given.environment };
  const secrets = [...new Set([...(file.secrets ?? []), ...(flags.secret ?? [])])];
  const request = {
    runtime: project.runtime,
    handler: project.handler,
    ...(handlerModel === undefined ? {} : { handlerModel }),
    ...(memoryBytesMax === undefined ? {} : { memoryBytesMax }),
    ...(timeout === undefined ? {} : { timeoutMs: parseDuration(timeout) }),
    ...(idleTimeout === undefined ? {} : { idleTimeoutMs: parseDuration(idleTimeout) }),
    ...(instanceConcurrency === undefined ? {} : { instanceConcurrency }),
    ...(reservedConcurrency === undefined ? {} : { reservedConcurrency }),
    ...((flags.public ?? file.public) === true ? { access: "public" as const } : {}),
    ...(description === undefined ? {} : { description }),
    ...(Object.keys(environment).length === 0 ? {} : { environment }),
    ...(secrets.length === 0 ? {} : { secrets }),
    ...(flags.check === false ? { check: false } : {}),
    ...(flags.live === false ? { live: false } : {}),
  };
  return { ref, request, notes: project.notes };
}

/**
 * The variables of `--env-file`, then those of `--env`.
 * @throws CliFailure `usage` or `file-not-usable`
 */
export async function readEnvironment(flags: DeployFlags, cwd: string): Promise<Readonly<Record<string, string>>> {
  const environment: Record<string, string> = {};
  if (flags.envFile !== undefined) {
    const path = resolve(cwd, flags.envFile);
    for (const [name, value] of Object.entries(parseEnv(await readFile(path, "utf8")))) environment[name] = value ?? "";
  }
  for (const pair of flags.env ?? []) {
    const equals = pair.indexOf("=");
    if (equals < 1) throw usageFailure(`'${pair}' is not an environment variable`, "Write --env NAME=VALUE.");
    environment[pair.slice(0, equals)] = pair.slice(equals + 1);
  }
  return environment;
}

function ownName(folder: ProjectFolder): string {
  const packageName = folder.facts.packageJson?.name;
  const own = folder.isFile ? basename(folder.path).replace(/\.[^.]+$/, "") : basename(folder.path);
  const name = (typeof packageName === "string" ? nameFrom(packageName) : undefined) ?? nameFrom(own);
  if (name !== undefined) return name;
  throw new CliFailure("invalid-project", `No function name can be made of '${own}'`, "Give one with --name.");
}

function megabytes(count: number | undefined): number | undefined {
  return count === undefined ? undefined : count * 1024 * 1024;
}

function optionCount(text: string | undefined, option: string): number | undefined {
  return text === undefined ? undefined : parseCount(text, `a number for ${option}`);
}
