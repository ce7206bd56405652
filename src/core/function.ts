import { KoineError } from "./errors.ts";
import { limits } from "./limits.ts";

/** `sha256:` and 64 hexadecimal digits; addresses a CodePackage by the content of its tree. */
export type Digest = string;

export const DEFAULT_NAMESPACE = "default";
/** The package of functions that were deployed without one. */
export const DEFAULT_PACKAGE = "";

/** The parsed address `namespace/package/name[:qualifier]`. */
export interface FunctionRef {
  readonly namespace: string;
  /** Empty for functions without a package. */
  readonly package: string;
  readonly name: string;
  /** A version number or an alias; absent means the live version. */
  readonly qualifier?: string;
}

/** Who may call a function over HTTP once the platform has authentication: holders of a token, or everybody. */
export type InvokeAccess = "token" | "public";

/**
 * How much of the network code in a sandbox can reach. `none`: nothing. `egress`: out to the internet and to what a list allows, never to the machine
 * itself, the platform, or private ranges. `host`: everything the machine can.
 */
export type NetworkMode = "none" | "egress" | "host";

/** What is absent is the platform's choice. */
export interface RetrySettings {
  /** Attempts, the first included. */
  readonly attemptsMax?: number | undefined;
  /** Wait after the first failed attempt; it doubles with each, up to `limits.retryDelayMsMax`. In milliseconds. */
  readonly delayMs?: number | undefined;
  /** Age at which an event is given up, in milliseconds. */
  readonly ageMsMax?: number | undefined;
}

/** `function:NAME`, `function:PACKAGE/NAME:ALIAS`, `topic:NAME`, `https://…`. */
export interface Destinations {
  readonly onSuccess?: string | undefined;
  readonly onFailure?: string | undefined;
  /** Name of the namespace's secret that signs what is sent to URLs. */
  readonly secret?: string | undefined;
}

/** What a function's code may ask of the platform: call functions, publish events, keep schedules, read its own secrets as they are now. */
export type Allowance = "invoke" | "publish" | "schedule" | "secrets";

export const ALLOWANCES: readonly Allowance[] = ["invoke", "publish", "schedule", "secrets"];

/** What the user asked for. Immutable once it belongs to a Version. Fields that are absent came later than the version, or were not asked for. */
export interface FunctionSpec {
  readonly code: Digest;
  /** A name from the runtime catalogue, such as `nodejs26.x`. */
  readonly runtime: string;
  /** `file` or `file.export`, relative to the package, without or with extension: `index`, `src/app.handler`. */
  readonly handler: string;
  /** A handler model's name, or `auto`: recognised from what the module exports. */
  readonly handlerModel: string;
  readonly environment: Readonly<Record<string, string>>;
  /** Names of the namespace's secrets that become environment variables. */
  readonly secrets: readonly string[];
  readonly memoryBytesMax: number;
  readonly timeoutMs: number;
  /** Invocations one instance serves at a time. */
  readonly instanceConcurrency: number;
  /** Most invocations of the function at a time on all instances; null: bounded by the node only. */
  readonly reservedConcurrency: number | null;
  /** Idle time after which an instance is stopped; null: the platform's choice. */
  readonly idleTimeoutMs: number | null;
  /** Idle time after which an instance is kept from using processor time, in milliseconds. Absent: the platform's choice. */
  readonly freezeAfterMs?: number;
  readonly access: InvokeAccess;
  /** Absent: the platform's choice. */
  readonly network?: NetworkMode;
  /** What it may reach beyond the internet, with `egress`: rules such as `10.1.2.0/24:5432`. Absent: all that the platform allows. */
  readonly allowNetwork?: readonly string[];
  /** Share of the processors, 1 = one core. Absent: in proportion to its memory where others want them, all that nobody wants. */
  readonly cpuCores?: number;
  /** The wire protocol that the function's own program speaks: `http`, `stdio`, `lambda-runtime-api`, `action-proxy`. Absent: the runtime's bootstrap speaks ours. */
  readonly protocol?: string;
  /** Program and arguments, paths inside the sandbox; for runtimes that launch what the package or image brings. Absent: what the runtime or the image says. */
  readonly command?: readonly string[];
  /** The port that its program listens on. Absent: the protocol's. */
  readonly port?: number;
  /** The path that its program answers with 2xx once it can be used. Absent: a connection to the port says so. */
  readonly readyPath?: string;
  /** The image that holds the code, pinned: `registry/name@sha256:…`; `code` is then the image's digest. */
  readonly image?: string;
  /** How asynchronous invocations are tried again. Absent: as `limits` says. */
  readonly retry?: RetrySettings;
  /** Where the outcomes of asynchronous invocations go. */
  readonly destinations?: Destinations;
  /** Absent: its code may ask nothing of the platform, and gets no credential. */
  readonly allow?: readonly Allowance[];
  /** The dialect it was deployed with. */
  readonly dialect: string;
  readonly description: string;
  /** Free-form settings of the dialect and the user. */
  readonly annotations: Readonly<Record<string, string>>;
}

/** Whether instances of it have something of the platform itself, and so run where that is. */
export function isNearPlatform({ allow, dialect }: Pick<FunctionSpec, "allow" | "dialect">): boolean {
  return allow !== undefined || dialect !== NATIVE_DIALECT;
}

/** What functions are deployed with by the platform's own API. */
const NATIVE_DIALECT = "native";

/** An immutable numbered snapshot of spec and code; the thing that runs. */
export interface Version {
  readonly namespace: string;
  readonly package: string;
  readonly name: string;
  /** Counts from 1 within the function; never used twice. */
  readonly number: number;
  readonly spec: FunctionSpec;
  /** Digest over spec and code: equal digests mean that a deploy changes nothing. */
  readonly specDigest: Digest;
  readonly createdAtMs: number;
}

/** A named, movable pointer to one Version, or to two by weight. */
export interface Alias {
  readonly name: string;
  readonly version: number;
  /** Share of invocations, 0 to 1, that goes to another version. */
  readonly additional?: { readonly version: number; readonly weight: number };
  readonly updatedAtMs: number;
}

/** A named, mutable entry: what is live, what was, and the aliases. */
export interface FunctionRecord {
  readonly namespace: string;
  readonly package: string;
  readonly name: string;
  /** Distinguishes a function from a later one of the same name. */
  readonly id: string;
  /** The version that unqualified calls reach. */
  readonly liveVersion: number;
  /** The version that was live before; what `rollback` returns to. */
  readonly previousVersion: number | null;
  /** Number of the newest version ever made. */
  readonly newestVersion: number;
  /** Most Slots over all versions, in place of what their specs say; null: no bound of its own. Absent: as the specs say. */
  readonly reservedConcurrency?: number | null;
  readonly aliases: readonly Alias[];
  readonly createdAtMs: number;
  readonly updatedAtMs: number;
}

const NAME_PATTERN = /^[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?$/;

/** Whether text can name a function, package, namespace, alias or version: letters, digits, and `.`, `_`, `-` inside. */
export function isName(text: string): boolean {
  return text.length <= limits.nameLengthMax && NAME_PATTERN.test(text);
}

/**
 * Parses `name`, `package/name` or `namespace/package/name`, each with an optional `:qualifier`.
 * @throws KoineError `invalid-name`
 */
export function parseFunctionRef(text: string, namespace: string = DEFAULT_NAMESPACE): FunctionRef {
  const colon = text.indexOf(":");
  const address = colon < 0 ? text : text.slice(0, colon);
  const qualifier = colon < 0 ? undefined : text.slice(colon + 1);
  const parts = address.split("/");
  const name = parts.at(-1) ?? "";
  const packageName = parts.length >= 2 ? (parts.at(-2) ?? "") : DEFAULT_PACKAGE;
  const space = parts.length === 3 ? (parts[0] ?? "") : namespace;
  const named = [space, name, ...(parts.length >= 2 && packageName !== "" ? [packageName] : [])];
  if (parts.length > 3 || !named.every(isName) || (qualifier !== undefined && !isName(qualifier))) {
    throw new KoineError("invalid-name", { name: text });
  }
  return { namespace: space, package: packageName, name, ...(qualifier === undefined ? {} : { qualifier }) };
}

/** `name`, `package/name`; with a namespace other than the default in front; with `:qualifier` if there is one. */
export function formatFunctionRef(ref: FunctionRef): string {
  const inPackage = ref.package === DEFAULT_PACKAGE ? ref.name : `${ref.package}/${ref.name}`;
  const inNamespace = ref.namespace === DEFAULT_NAMESPACE ? inPackage : `${ref.namespace}/${ref.package}/${ref.name}`;
  return ref.qualifier === undefined ? inNamespace : `${inNamespace}:${ref.qualifier}`;
}

/** A map key that no two functions share. */
export function functionKey(ref: Pick<FunctionRef, "namespace" | "package" | "name">): string {
  return `${ref.namespace}/${ref.package}/${ref.name}`;
}

/** A map key that no two versions share, even of functions that were deleted and made anew. */
export function versionKey(
  version: Pick<Version, "namespace" | "package" | "name" | "number" | "createdAtMs">,
): string {
  return `${functionKey(version)}:${version.number}@${version.createdAtMs}`;
}
