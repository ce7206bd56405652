import { readFileSync } from "node:fs";
import { totalmem } from "node:os";
import { resolve } from "node:path";
import type { UpOptions } from "./cli/commands/up.ts";
import { KoineError } from "./core/errors.ts";
import { isName, type NetworkMode } from "./core/function.ts";
import type { Right } from "./core/invocation.ts";
import { limits } from "./core/limits.ts";
import { type NetworkRule, parseNetworkRules } from "./core/network.ts";
import type { TokenGrant } from "./gateway/access.ts";

/** Everything that can be set, from flags and environment; the one reader of both. See docs/configuration.md. */
export interface Config {
  readonly port: number;
  /** Listened on as well; null: where tools of the dialects look, if that is free; 0: nowhere. */
  readonly secondPort: number | null;
  readonly host: string;
  /** Absolute. */
  readonly dataDirectory: string;
  readonly sandbox: "auto" | "process" | "none";
  readonly examples: boolean;
  readonly logFormat: "text" | "json";
  readonly grants: readonly TokenGrant[];
  /** Further names under which the platform may be addressed while it has no authentication. */
  readonly hosts: readonly string[];
  /** null: egress where the machine can, else none. */
  readonly network: NetworkMode | null;
  readonly allowNetwork: readonly NetworkRule[];
  /** Addresses and networks outside the internet that destinations may be in. */
  readonly destinationsAllowed: readonly string[];
  /** Absolute paths of folders whose files triggers may watch. */
  readonly triggerFolders: readonly string[];
  readonly memoryBudgetBytes: number;
  readonly idleTimeoutMs: number;
  /** Most booted sandboxes per runtime that wait for a version; null: the platform's choice; 0 boots each when it is needed. */
  readonly sparesMax: number | null;
  /** `unix:///path` of the engine that runs images; null: where one listens usually. */
  readonly containerEngine: string | null;
  /** Processes that serve, the first included. */
  readonly engines: number;
  /** Whether this process was started in a mount namespace of its own. */
  readonly privateMounts: boolean;
  readonly environment: Readonly<Record<string, string | undefined>>;
}

const TOKEN_LENGTH_MIN = 16;
const MEMORY_SHARE = 0.8;
const ALL_RIGHTS: readonly Right[] = ["invoke", "read", "write"];
const LOOPBACK = new Set(["127.0.0.1", "localhost", "::1"]);

/** @throws KoineError `invalid-configuration`, `unsafe-host` */
export function readConfig(options: UpOptions, environment: Config["environment"], cwd: string): Config {
  const grants = [
    ...environmentGrants(environment),
    ...fileGrants(options.tokenFile ?? environment["KOINE_TOKEN_FILE"]),
  ];
  const host = options.host ?? environment["KOINE_HOST"] ?? "127.0.0.1";
  if (!isLoopback(host) && grants.length === 0) throw new KoineError("unsafe-host", { host });
  return {
    port: options.port ?? wholeNumber(environment, "KOINE_PORT", 65_535) ?? 4_000,
    secondPort: wholeNumber(environment, "KOINE_SECOND_PORT", 65_535) ?? null,
    host,
    dataDirectory: resolve(cwd, options.dataDirectory ?? environment["KOINE_DATA"] ?? ".koine"),
    sandbox: options.sandbox ?? "auto",
    examples: options.examples ?? false,
    logFormat: options.logFormat ?? (environment["KOINE_LOG_FORMAT"] === "json" ? "json" : "text"),
    grants,
    hosts: listOf(environment["KOINE_HOSTS"]),
    destinationsAllowed: listOf(environment["KOINE_DESTINATIONS_ALLOW"]),
    triggerFolders: listOf(environment["KOINE_TRIGGER_FOLDERS"]).map((folder) => resolve(cwd, folder)),
    network: options.network ?? networkMode(environment["KOINE_NETWORK"]),
    allowNetwork: parseNetworkRules(options.allowNetwork ?? words(environment["KOINE_ALLOW_NETWORK"])),
    memoryBudgetBytes: options.memoryBudgetBytes ?? Math.floor(totalmem() * MEMORY_SHARE),
    idleTimeoutMs: options.idleTimeoutMs ?? limits.idleTimeoutMsDefault,
    sparesMax: wholeNumber(environment, "KOINE_SPARES_MAX", limits.instancesMax) ?? null,
    containerEngine: containerEngineOf(options, environment),
    engines: enginesOf(options, environment),
    privateMounts: environment["KOINE_PRIVATE_MOUNTS"] === "1",
    environment,
  };
}

function words(text: string | undefined): readonly string[] {
  return (text ?? "").split(/[\s,]+/).filter((word) => word !== "");
}

function networkMode(text: string | undefined): NetworkMode | null {
  if (text === undefined || text === "") return null;
  if (text === "none" || text === "egress" || text === "host") return text;
  throw new KoineError("invalid-configuration", { detail: `KOINE_NETWORK is '${text}', not none, egress or host` });
}

/** DOCKER_HOST may name an engine elsewhere, which is of no use here and no reason to refuse to start. */
function containerEngineOf(options: UpOptions, environment: Config["environment"]): string | null {
  const chosen = options.containerEngine ?? environment["KOINE_CONTAINER_ENGINE"];
  if (chosen !== undefined && chosen !== "") {
    if (/^(?:unix:\/\/)?\//.test(chosen)) return chosen;
    throw new KoineError("invalid-configuration", { detail: `the container engine is '${chosen}', not unix:///PATH` });
  }
  const host = environment["DOCKER_HOST"] ?? "";
  return host.startsWith("unix:///") ? host : null;
}

function enginesOf(options: UpOptions, environment: Config["environment"]): number {
  const engines = options.engines ?? wholeNumber(environment, "KOINE_ENGINES", limits.enginesMax) ?? 1;
  if (engines >= 1) return engines;
  throw new KoineError("invalid-configuration", {
    detail: `KOINE_ENGINES is ${engines}; a platform has at least 1 engine`,
  });
}

function listOf(text: string | undefined): readonly string[] {
  return (text ?? "")
    .split(",")
    .map((entry) => entry.trim())
    .filter((entry) => entry !== "");
}

function isLoopback(host: string): boolean {
  return LOOPBACK.has(host) || /^127\.\d+\.\d+\.\d+$/.test(host);
}

function wholeNumber(environment: Config["environment"], name: string, max: number): number | undefined {
  const text = environment[name];
  if (text === undefined || text === "") return undefined;
  if (!/^[0-9]{1,9}$/.test(text) || Number(text) > max) {
    throw new KoineError("invalid-configuration", { detail: `${name} is '${text}', not a whole number up to ${max}` });
  }
  return Number(text);
}

function environmentGrants(environment: Config["environment"]): readonly TokenGrant[] {
  const token = environment["KOINE_TOKEN"];
  if (token === undefined || token === "") return [];
  checkToken(token, "KOINE_TOKEN");
  return [{ token, subject: "operator", namespace: null, rights: ALL_RIGHTS }];
}

/** One grant per line: `TOKEN [SUBJECT [NAMESPACE or * [RIGHTS]]]`, rights as `invoke,read,write`; `#` begins a comment. */
function fileGrants(path: string | undefined): readonly TokenGrant[] {
  if (path === undefined || path === "") return [];
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (thrown) {
    const detail = `the token file cannot be read: ${thrown instanceof Error ? thrown.message : String(thrown)}`;
    throw new KoineError("invalid-configuration", { detail }, { cause: thrown });
  }
  return text.split("\n").flatMap((line, index) => {
    const words = line.replace(/#.*/, "").trim().split(/\s+/);
    return words[0] === undefined || words[0] === "" ? [] : [parseGrant(words, `line ${index + 1} of the token file`)];
  });
}

function parseGrant(
  [token = "", subject = "operator", namespace = "*", rights = "invoke,read,write"]: readonly string[],
  where: string,
): TokenGrant {
  checkToken(token, where);
  if (namespace !== "*" && !isName(namespace)) {
    throw new KoineError("invalid-configuration", { detail: `${where}: '${namespace}' is not a namespace` });
  }
  const chosen = rights.split(",");
  const unknown = chosen.find((right) => !(ALL_RIGHTS as readonly string[]).includes(right));
  if (unknown !== undefined) {
    throw new KoineError("invalid-configuration", {
      detail: `${where}: '${unknown}' is not one of ${ALL_RIGHTS.join(", ")}`,
    });
  }
  return { token, subject, namespace: namespace === "*" ? null : namespace, rights: chosen as readonly Right[] };
}

function checkToken(token: string, where: string): void {
  if (token.length >= TOKEN_LENGTH_MIN) return;
  throw new KoineError("invalid-configuration", {
    detail: `${where}: a token needs at least ${TOKEN_LENGTH_MIN} characters`,
  });
}
