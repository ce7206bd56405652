import { createHash } from "node:crypto";
import { KoineError } from "../core/errors.ts";
import type { Digest, FunctionSpec } from "../core/function.ts";
import type { Limits } from "../core/limits.ts";
import { parseNetworkRules } from "../core/network.ts";
import type { Runtime } from "../runtimes/runtime.ts";
import { completeAsync } from "./async-settings.ts";

/** A spec as a caller gives it: code, and what differs from the defaults. */
export type SpecRequest = Pick<FunctionSpec, "code" | "dialect"> & {
  readonly [Key in keyof FunctionSpec]?: FunctionSpec[Key] | undefined;
};

const DEFAULT_RUNTIME = "nodejs26.x";
const ENVIRONMENT_NAME = /^[A-Za-z_][A-Za-z0-9_]*$/;

/** Handler models by language, for error texts and checks. */
export type ModelsOf = (language: string) => readonly string[];

/**
 * Fills in defaults and checks everything that can be checked without the code.
 * @throws KoineError `unknown-runtime`, `unknown-handler-model`, `limit-exceeded`, `invalid-request`
 */
export function completeSpec(
  request: SpecRequest,
  context: {
    runtimes: ReadonlyMap<string, Runtime>;
    models: ModelsOf;
    /** Names of the protocols that programs of the user's may speak. */
    protocols: ReadonlySet<string>;
    limits: Limits;
  },
): FunctionSpec {
  const { runtimes, models, limits } = context;
  const runtimeName = request.runtime ?? DEFAULT_RUNTIME;
  const runtime = runtimes.get(runtimeName);
  if (runtime === undefined) {
    throw new KoineError("unknown-runtime", { runtime: runtimeName, known: [...runtimes.keys()].join(", ") });
  }
  const spec: FunctionSpec = {
    code: request.code,
    runtime: runtimeName,
    handler: request.handler ?? (request.protocol === undefined ? "index" : programName(request)),
    handlerModel: request.handlerModel ?? "auto",
    environment: request.environment ?? {},
    secrets: [...new Set(request.secrets)].sort(),
    memoryBytesMax: request.memoryBytesMax ?? limits.memoryBytesDefault,
    timeoutMs: request.timeoutMs ?? limits.timeoutMsDefault,
    instanceConcurrency: request.instanceConcurrency ?? 1,
    reservedConcurrency: request.reservedConcurrency ?? null,
    idleTimeoutMs: request.idleTimeoutMs ?? null,
    access: request.access ?? "token",
    dialect: request.dialect,
    description: request.description ?? "",
    annotations: request.annotations ?? {},
    ...ownProgram(request),
    ...ownShare(request),
    ...completeAsync(request, limits),
  };
  checkProgram(spec, runtime, context.protocols);
  const known = models(runtime.language);
  if (spec.handlerModel !== "auto" && !known.includes(spec.handlerModel)) {
    const all = ["auto", ...known].join(", ");
    throw new KoineError("unknown-handler-model", { model: spec.handlerModel, runtime: runtimeName, known: all });
  }
  checkHandler(spec.handler);
  checkEnvironment(spec, limits);
  within("memory", spec.memoryBytesMax, limits.memoryBytesMin, limits.memoryBytesMax, MEGABYTES);
  within("timeout", spec.timeoutMs, limits.timeoutMsMin, limits.timeoutMsMax, MILLISECONDS);
  checkShare(spec, limits);
  within("concurrency", spec.instanceConcurrency, 1, limits.instanceConcurrencyMax);
  if (spec.reservedConcurrency !== null)
    within("max concurrency", spec.reservedConcurrency, 0, limits.reservedConcurrencyMax);
  if (spec.idleTimeoutMs !== null) within("idle timeout", spec.idleTimeoutMs, 0, limits.idleTimeoutMsMax, MILLISECONDS);
  return spec;
}

/** What a spec says of the machine it runs on; absent fields stay so. */
function ownShare({ network, allowNetwork, cpuCores, freezeAfterMs, allow = [] }: SpecRequest): Partial<FunctionSpec> {
  return {
    ...(allow.length === 0 ? {} : { allow: [...new Set(allow)].sort() }),
    ...(network === undefined ? {} : { network }),
    ...(allowNetwork === undefined ? {} : { allowNetwork: [...new Set(allowNetwork)].sort() }),
    ...(cpuCores === undefined ? {} : { cpuCores }),
    ...(freezeAfterMs === undefined ? {} : { freezeAfterMs }),
  };
}

/** What a spec says of a program of the user's; fields that are absent stay so, or the digests of older versions would change. */
function ownProgram({ protocol, command, port, readyPath, image }: SpecRequest): Partial<FunctionSpec> {
  return {
    ...(protocol === undefined ? {} : { protocol }),
    ...(command === undefined ? {} : { command }),
    ...(port === undefined ? {} : { port }),
    ...(readyPath === undefined ? {} : { readyPath }),
    ...(image === undefined ? {} : { image }),
  };
}

/** Stands in messages where a handler would. */
function programName({ command, image }: SpecRequest): string {
  const program = command?.find((word) => !word.startsWith("-") && !word.startsWith("/bin/")) ?? image ?? "bootstrap";
  return program.replace(/^(?:\.\/|\/)+/, "").slice(0, 256) || "program";
}

const COMMAND_BYTES_MAX = 8_192;
const IMAGE_RUNTIME = "image";

function checkProgram(spec: FunctionSpec, runtime: Runtime, protocols: ReadonlySet<string>): void {
  const refuse = (detail: string): KoineError => new KoineError("invalid-request", { detail });
  const { protocol, command, port, readyPath, image } = spec;
  const known = [...protocols].join(", ");
  if ((image !== undefined) !== (runtime.name === IMAGE_RUNTIME))
    throw refuse(`runtime '${runtime.name}' is ${image === undefined ? "for images only" : "not for images"}`);
  if (protocol === undefined) {
    if (runtime.program !== undefined || image !== undefined)
      throw refuse(`${image === undefined ? `runtime '${runtime.name}'` : "an image"} needs a protocol: ${known}`);
    if (command !== undefined || port !== undefined || readyPath !== undefined)
      throw refuse(`a command, port or ready path needs a protocol: ${known}`);
    return;
  }
  if (!protocols.has(protocol)) throw new KoineError("unknown-protocol", { protocol, known });
  if (spec.handlerModel !== "auto") throw refuse("a program that speaks a protocol has no handler model");
  if (command === undefined && runtime.program === undefined && image === undefined)
    throw refuse(`protocol '${protocol}' with runtime '${runtime.name}' needs a command, such as 'node server.js'`);
  if (command !== undefined) {
    const bytes = command.reduce((sum, word) => sum + Buffer.byteLength(word) + 1, 0);
    if (command.length === 0 || command[0] === "" || command.some((word) => word.includes("\0")))
      throw refuse("a command is a program and its arguments");
    if (bytes > COMMAND_BYTES_MAX) throw refuse(`a command has at most ${COMMAND_BYTES_MAX} bytes`);
  }
  if (port !== undefined) within("port", port, 1, 65_535);
  if (readyPath !== undefined && !/^\/[\x21-\x7e]*$/.test(readyPath))
    throw refuse("a ready path begins with '/' and has no spaces");
}

/** Equal for specs that run the same; keys in a fixed order. */
export function specDigest(spec: FunctionSpec): Digest {
  return `sha256:${createHash("sha256").update(canonical(spec)).digest("hex")}`;
}

function canonical(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  if (value !== null && typeof value === "object") {
    const entries = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
    return `{${entries.map(([key, inner]) => `${JSON.stringify(key)}:${canonical(inner)}`).join(",")}}`;
  }
  return JSON.stringify(value) ?? "null";
}

function checkHandler(handler: string): void {
  const outside = handler.startsWith("/") || handler.split("/").includes("..") || handler.includes("\0");
  if (handler === "" || handler.length > 256 || outside) {
    throw new KoineError("invalid-request", {
      detail: `handler '${handler}' must be a path within the package, such as index.handler`,
    });
  }
}

function checkEnvironment(spec: FunctionSpec, limits: Limits): void {
  const entries = Object.entries(spec.environment);
  for (const [name, value] of entries) {
    if (!ENVIRONMENT_NAME.test(name))
      throw new KoineError("invalid-request", { detail: `'${name}' cannot name an environment variable` });
    if (value.includes("\0"))
      throw new KoineError("invalid-request", { detail: `environment variable '${name}' contains a NUL character` });
  }
  const bytes = entries.reduce((sum, [name, value]) => sum + Buffer.byteLength(name) + Buffer.byteLength(value), 0);
  within("environment size", bytes, 0, limits.environmentBytesMax);
  within("number of environment variables", entries.length + spec.secrets.length, 0, limits.environmentEntriesMax);
}

function checkShare({ network, allowNetwork, cpuCores }: FunctionSpec, limits: Limits): void {
  if (allowNetwork !== undefined) {
    parseNetworkRules(allowNetwork);
    if (network !== undefined && network !== "egress" && allowNetwork.length > 0) {
      throw new KoineError("invalid-request", {
        detail: `the network mode '${network}' has no list of what is allowed: only 'egress' has`,
      });
    }
  }
  if (cpuCores === undefined || (cpuCores >= limits.cpuCoresMin && cpuCores <= limits.cpuCoresMax)) return;
  const allowed = `from ${limits.cpuCoresMin} to ${limits.cpuCoresMax} cores`;
  throw new KoineError("limit-exceeded", { what: "cpu share", value: cpuCores, allowed });
}

interface Unit {
  readonly size: number;
  readonly name: string;
}

const COUNT: Unit = { size: 1, name: "" };
const MEGABYTES: Unit = { size: 1024 * 1024, name: " MB" };
const MILLISECONDS: Unit = { size: 1, name: " ms" };

// oxlint-disable-next-line max-params -- reads as the sentence it checks: what, value, from, to, in
function within(what: string, value: number, min: number, max: number, unit: Unit = COUNT): void {
  if (Number.isInteger(value) && value >= min && value <= max) return;
  const shown = (number: number): string => `${Math.round((number / unit.size) * 100) / 100}${unit.name}`;
  const allowed = `${unit === COUNT ? "a whole number " : ""}from ${shown(min)} to ${shown(max)}`;
  throw new KoineError("limit-exceeded", { what, value: shown(value), allowed });
}
