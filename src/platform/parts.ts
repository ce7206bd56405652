import type { Clock } from "../core/clock.ts";
import type { Version } from "../core/function.ts";
import type { Limits } from "../core/limits.ts";
import type { Logger, Supervise, Telemetry } from "../core/telemetry.ts";
import type { EngineParts } from "../engine/parts.ts";
import type { Engine } from "../engine/engine.ts";
import type { Runtime } from "../runtimes/runtime.ts";
import type { Images } from "../sandbox/images.ts";
import type { Store } from "../store/store.ts";
import type { Catalogue } from "./catalogue.ts";
import type { CodeCaches } from "./code-caches.ts";
import type { Journal } from "./journal.ts";
import type { CodePackages } from "./packages.ts";
import type { Reachable } from "./reachable.ts";
import type { Secrets } from "./secrets.ts";
import type { ModelsOf } from "./spec.ts";
import type { TriggersParts } from "./triggers/triggers.ts";

/** What the use cases need of an engine, or of several that are one to them. */
export type PlatformEngine = Pick<
  Engine,
  | "invoke"
  | "warm"
  | "retire"
  | "forget"
  | "limit"
  | "provision"
  | "provisioned"
  | "useRuntimes"
  | "spareRuntimeOf"
  | "checkNetwork"
  | "counts"
  | "codeInUse"
  | "spares"
  | "memoryBytes"
> & {
  /** Ends an invocation of a namespace by its id; false: there is none. */
  cancel(id: string, namespace: string): boolean | Promise<boolean>;
};

/** What the use cases work with. */
export interface PlatformParts {
  readonly clock: Clock;
  readonly limits: Limits;
  readonly store: Store;
  readonly catalogue: Catalogue;
  readonly packages: CodePackages;
  readonly codeCaches: CodeCaches;
  /** The images of functions on this node. */
  readonly images: Images;
  readonly secrets: Secrets;
  readonly journal: Journal;
  readonly engine: PlatformEngine;
  readonly runtimes: ReadonlyMap<string, Runtime>;
  readonly models: ModelsOf;
  /** Names of the protocols that programs of the user's may speak. */
  readonly protocols: ReadonlySet<string>;
  readonly telemetry: Telemetry;
  /** Where deliveries may go. */
  readonly reachable: Reachable;
  readonly logger: Logger;
  readonly supervise: Supervise;
  readonly triggers: Pick<TriggersParts, "kinds" | "telemetry" | "node" | "alone" | "random">;
  /** Gathers what an instance of a version needs on this node, secrets included, and keeps it at hand. */
  prepareVersion: EngineParts["prepareVersion"];
  /** Brings a version's code, with its dependencies, to this node. */
  prepareCode(
    version: Version,
    progress: { onPhase?(message: string): void; onOutput?(line: string): void; readonly signal: AbortSignal },
  ): Promise<string>;
}
