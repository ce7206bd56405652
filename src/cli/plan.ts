import { basename, resolve } from "node:path";
import { readFile } from "node:fs/promises";
import { parseEnv } from "node:util";
import type { DeployRequest } from "../core/api.ts";
import { type Allowance, ALLOWANCES, type FunctionRef, type NetworkMode } from "../core/function.ts";
import { parseFunctionRef } from "../core/function.ts";
import { parseCommandLine } from "./command-line.ts";
import { CliFailure, usageFailure } from "./failure.ts";
import { chosenImage, dockerfileIn, type ImageSource, nameOfImage } from "./image-source.ts";
import { nameFrom, type Project, type ProjectChoice, recogniseProject } from "./project.ts";
import type { ProjectFile } from "./project-file.ts";
import type { ProjectFolder } from "./project-folder.ts";
import { parseCores, parseCount, parseDuration, parseMemory } from "./quantity.ts";

/** The options of `deploy` and `dev`, as they stand on the command line. */
export interface DeployFlags {
  readonly name?: string;
  readonly runtime?: string;
  readonly handler?: string;
  readonly handlerModel?: string;
  readonly protocol?: string;
  readonly command?: string;
  readonly port?: string;
  readonly readyPath?: string;
  /** An image instead of a folder. */
  readonly image?: string;
  readonly build?: "image";
  readonly dockerfile?: string;
  readonly registrySecret?: string;
  readonly env?: readonly string[];
  readonly envFile?: string;
  readonly secret?: readonly string[];
  readonly memory?: string;
  readonly timeout?: string;
  readonly concurrency?: string;
  readonly maxConcurrency?: string;
  readonly idleTimeout?: string;
  readonly cpu?: string;
  readonly network?: NetworkMode;
  readonly allowNetwork?: readonly string[];
  readonly allow?: readonly string[];
  readonly retries?: string;
  readonly retryDelay?: string;
  readonly maxEventAge?: string;
  readonly onSuccess?: string;
  readonly onFailure?: string;
  readonly destinationSecret?: string;
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
  /** null: the folder itself is the code. */
  readonly image: ImageSource | null;
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
  const chosen = {
    runtime: flags.runtime ?? file.runtime,
    handler: flags.handler ?? file.handler,
    protocol: flags.protocol ?? file.protocol,
    command: commandOf(flags.command ?? file.command),
  };
  const { project, image } = codeOf(folder, chosen, chosenImage(folder, flags, file));
  const name = flags.name ?? file.name ?? (image?.kind === "image" ? imageName(image.image) : ownName(folder));
  const ref = parseFunctionRef(name, given.namespace);
  if (ref.qualifier !== undefined) {
    throw usageFailure("A deploy makes the next version itself", "Leave out what follows the ':' in the name.");
  }
  const handlerModel = flags.handlerModel ?? file.handlerModel;
  const memoryBytesMax = flags.memory === undefined ? megabytes(file.memoryMb) : parseMemory(flags.memory);
  const timeout = flags.timeout ?? file.timeout;
  const idleTimeout = flags.idleTimeout ?? file.idleTimeout;
  const instanceConcurrency = optionCount(flags.concurrency, "--concurrency") ?? file.concurrency;
  const reservedConcurrency = optionCount(flags.maxConcurrency, "--max-concurrency") ?? file.maxConcurrency;
  const network = flags.network ?? file.network;
  const allow = allowances(flags.allow ?? file.allow);
  const allowNetwork = flags.allowNetwork ?? file.allowNetwork;
  const cpuCores = flags.cpu === undefined ? file.cpu : parseCores(flags.cpu);
  const description = flags.description ?? file.description;
  const environment = { ...file.environment, ...given.environment };
  const secrets = [...new Set([...(file.secrets ?? []), ...(flags.secret ?? [])])];
  const request = {
    runtime: project.runtime,
    ...imageSettings(image, flags.registrySecret ?? file.registrySecret),
    ...(project.handler === undefined ? {} : { handler: project.handler }),
    ...programSettings(project, file, flags),
    ...(handlerModel === undefined ? {} : { handlerModel }),
    ...(memoryBytesMax === undefined ? {} : { memoryBytesMax }),
    ...(timeout === undefined ? {} : { timeoutMs: parseDuration(timeout) }),
    ...(idleTimeout === undefined ? {} : { idleTimeoutMs: parseDuration(idleTimeout) }),
    ...(instanceConcurrency === undefined ? {} : { instanceConcurrency }),
    ...(reservedConcurrency === undefined ? {} : { reservedConcurrency }),
    ...(network === undefined ? {} : { network }),
    ...(allowNetwork === undefined ? {} : { allowNetwork }),
    ...(allow === undefined ? {} : { allow }),
    ...(cpuCores === undefined ? {} : { cpuCores }),
    ...((flags.public ?? file.public) === true ? { access: "public" as const } : {}),
    ...asyncSettings(file, flags),
    ...(description === undefined ? {} : { description }),
    ...(Object.keys(environment).length === 0 ? {} : { environment }),
    ...(secrets.length === 0 ? {} : { secrets }),
    ...(flags.check === false ? { check: false } : {}),
    ...(flags.live === false ? { live: false } : {}),
  };
  return { ref, request, image, notes: [...project.notes, ...(network === "host" ? [HOST_NETWORK] : [])] };
}

const HOST_NETWORK =
  "network host: its code reaches everything that this machine can, other services too; for development only";

/** What runs: an image that was asked for, else what the folder looks like, else what its Dockerfile makes. */
function codeOf(
  folder: ProjectFolder,
  chosen: ProjectChoice,
  asked: ImageSource | null,
): { readonly project: Project; readonly image: ImageSource | null } {
  const { protocol, command } = chosen;
  const ofImage = (image: ImageSource, notes: readonly string[]) => ({
    project: {
      runtime: "image",
      ...(protocol === undefined ? {} : { protocol }),
      ...(command === undefined ? {} : { command }),
      notes,
    },
    image,
  });
  if (asked !== null) return ofImage(asked, []);
  const dockerfile = dockerfileIn(folder);
  if (dockerfile === undefined) return { project: recogniseProject(folder.facts, chosen), image: null };
  try {
    const project = recogniseProject(folder.facts, chosen);
    const what = project.handler ?? project.command?.join(" ") ?? project.runtime;
    const note = `${dockerfile} is left alone, since '${what}' can run without it; --build image uses it`;
    return { project: { ...project, notes: [...project.notes, note] }, image: null };
  } catch (thrown) {
    if (chosen.handler !== undefined || chosen.runtime !== undefined) throw thrown;
    return ofImage({ kind: "build", dockerfile }, [`built from ${dockerfile}`]);
  }
}

function imageSettings(image: ImageSource | null, registrySecret: string | undefined): Partial<DeployRequest> {
  const annotations = registrySecret === undefined ? {} : { annotations: { "registry-secret": registrySecret } };
  if (image === null) return {};
  switch (image.kind) {
    case "image":
      return { image: image.image, ...annotations };
    case "build":
      return { build: { dockerfile: image.dockerfile } };
    default:
      return image satisfies never;
  }
}

function imageName(image: string): string {
  const name = nameOfImage(image);
  if (name !== undefined) return name;
  throw new CliFailure("invalid-project", `No function name can be made of '${image}'`, "Give one with --name.");
}

/** What is said of a program that the function brings. */
function programSettings(
  { protocol, command }: Project,
  file: ProjectFile,
  flags: DeployFlags,
): Pick<DeployRequest, "protocol" | "command" | "port" | "readyPath"> {
  const port = optionCount(flags.port, "--port") ?? file.port;
  const readyPath = flags.readyPath ?? file.readyPath;
  return {
    ...(protocol === undefined ? {} : { protocol }),
    ...(command === undefined ? {} : { command }),
    ...(port === undefined ? {} : { port }),
    ...(readyPath === undefined ? {} : { readyPath }),
  };
}

function commandOf(command: string | readonly string[] | undefined): readonly string[] | undefined {
  return typeof command === "string" ? parseCommandLine(command) : command;
}

/** How asynchronous invocations are tried again, and where their outcomes go. */
function asyncSettings(file: ProjectFile, flags: DeployFlags): Pick<DeployRequest, "retry" | "destinations"> {
  const retries = flags.retries === undefined ? file.retries : parseCount(flags.retries, "a number for --retries", 0);
  const delay = flags.retryDelay ?? file.retryDelay;
  const age = flags.maxEventAge ?? file.maxEventAge;
  const onSuccess = flags.onSuccess ?? file.onSuccess;
  const onFailure = flags.onFailure ?? file.onFailure;
  const secret = flags.destinationSecret ?? file.destinationSecret;
  const retry = {
    ...(retries === undefined ? {} : { attemptsMax: retries + 1 }),
    ...(delay === undefined ? {} : { delayMs: parseDuration(delay) }),
    ...(age === undefined ? {} : { ageMsMax: parseDuration(age) }),
  };
  const destinations = {
    ...(onSuccess === undefined ? {} : { onSuccess }),
    ...(onFailure === undefined ? {} : { onFailure }),
    ...(secret === undefined ? {} : { secret }),
  };
  return {
    ...(Object.keys(retry).length === 0 ? {} : { retry }),
    ...(Object.keys(destinations).length === 0 ? {} : { destinations }),
  };
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

/** `invoke,publish`, once or repeated. */
function allowances(given: readonly string[] | undefined): readonly Allowance[] | undefined {
  return given
    ?.flatMap((text) => text.split(","))
    .map((word) => {
      const known = ALLOWANCES.find((one) => one === word.trim());
      if (known !== undefined) return known;
      throw usageFailure(`'${word}' is nothing that a function can be allowed`, `There are ${ALLOWANCES.join(", ")}.`);
    });
}
