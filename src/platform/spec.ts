import { createHash } from "node:crypto";
import { KoineError } from "../core/errors.ts";
import type { Digest, FunctionSpec } from "../core/function.ts";
import type { Limits } from "../core/limits.ts";
import type { Runtime } from "../runtimes/runtime.ts";

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
  context: { runtimes: ReadonlyMap<string, Runtime>; models: ModelsOf; limits: Limits },
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
    handler: request.handler ?? "index",
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
  };
  const known = models(runtime.language);
  if (spec.handlerModel !== "auto" && !known.includes(spec.handlerModel)) {
    const all = ["auto", ...known].join(", ");
    throw new KoineError("unknown-handler-model", { model: spec.handlerModel, runtime: runtimeName, known: all });
  }
  checkHandler(spec.handler);
  checkEnvironment(spec, limits);
  within("memory", spec.memoryBytesMax, limits.memoryBytesMin, limits.memoryBytesMax, MEGABYTES);
  within("timeout", spec.timeoutMs, limits.timeoutMsMin, limits.timeoutMsMax, MILLISECONDS);
  within("concurrency", spec.instanceConcurrency, 1, limits.instanceConcurrencyMax);
  if (spec.reservedConcurrency !== null)
    within("max concurrency", spec.reservedConcurrency, 0, limits.reservedConcurrencyMax);
  if (spec.idleTimeoutMs !== null) within("idle timeout", spec.idleTimeoutMs, 0, limits.idleTimeoutMsMax, MILLISECONDS);
  return spec;
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
