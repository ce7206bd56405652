import type { FunctionRef, Version } from "../core/function.ts";
import type { Invocation, InvocationFigures, Outcome, ResponseHead } from "../core/invocation.ts";
import type { ShareAnswer, ShareRequest } from "../engine/allowance.ts";
import type { InstanceCounts } from "../engine/engine.ts";
import type { CatalogueChange } from "../platform/catalogue.ts";

/** The first engine's process has the store and everything else there is one of; it starts the others and tells them what to do. */
export type ToSecondary<Opening = unknown> =
  /** Called first; answers when everything that an engine needs is open. */
  | { readonly to: "open"; readonly opening: Opening }
  /** Called; answered when calls from now on see the changes. */
  | { readonly to: "change"; readonly changes: readonly CatalogueChange[] }
  /** Called; answered when calls from now on run with the new value. */
  | { readonly to: "forget-secret"; readonly namespace: string; readonly name: string }
  | { readonly to: "retire"; readonly version: Version }
  | { readonly to: "forget"; readonly ref: FunctionRef }
  | { readonly to: "use-runtimes"; readonly names: readonly string[] }
  | { readonly to: "share"; readonly answer: ShareAnswer }
  /** Called; answers when it accepts connections. */
  | { readonly to: "listen"; readonly port: number; readonly host: string }
  | { readonly to: "be-ready"; readonly ready: boolean }
  /** Called, with the body; answers `Ran` and the answer's body. */
  | { readonly to: "run"; readonly invocation: Omit<Invocation, "body">; readonly version: VersionName }
  /** Called; answers whether there was such an invocation. */
  | { readonly to: "cancel"; readonly id: string; readonly namespace: string }
  /** Called; answers `EngineReport`. */
  | { readonly to: "report" }
  /** Called; answers its metrics as text. */
  | { readonly to: "metrics" }
  /** Called; answered when nothing runs any more. */
  | { readonly to: "drain" }
  /** Called; answered when everything is handed over: then the process ends. */
  | { readonly to: "close" };

export type ToPrimary =
  /** Called; answers `Prepared`. */
  | { readonly to: "prepare"; readonly version: VersionName }
  | { readonly to: "share"; readonly request: ShareRequest }
  /** Activations and log lines; the bytes are the activations'. */
  | { readonly to: "records"; readonly count: number; readonly shapes: string; readonly lines: string | null };

/** Says which version is meant; a function that was deleted and made anew has another time. */
export interface VersionName {
  readonly namespace: string;
  readonly package: string;
  readonly name: string;
  readonly number: number;
  readonly createdAtMs: number;
}

export interface Prepared {
  readonly codeFolder: string;
  readonly environment: Readonly<Record<string, string>>;
  readonly codeCacheFolder: string | null;
}

export interface Ran {
  readonly outcome: Outcome;
  readonly figures: InvocationFigures;
  readonly head: ResponseHead | null;
}

/** What an engine does now. */
export interface EngineReport {
  readonly counts: InstanceCounts;
  readonly countsByFunction: Readonly<Record<string, InstanceCounts>>;
  readonly spares: Readonly<Record<string, number>>;
  readonly memoryBytes: number;
  readonly inFlight: number;
  readonly connections: number;
  readonly codeInUse: readonly string[];
}

export function versionName(version: Version): VersionName {
  const { namespace, name, number, createdAtMs } = version;
  return { namespace, package: version.package, name, number, createdAtMs };
}
