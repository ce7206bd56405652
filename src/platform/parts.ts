import type { Clock } from "../core/clock.ts";
import type { Version } from "../core/function.ts";
import type { Limits } from "../core/limits.ts";
import type { Logger, Supervise } from "../core/telemetry.ts";
import type { EngineParts } from "../engine/parts.ts";
import type { Engine } from "../engine/engine.ts";
import type { Runtime } from "../runtimes/runtime.ts";
import type { Store } from "../store/store.ts";
import type { Catalogue } from "./catalogue.ts";
import type { CodeCaches } from "./code-caches.ts";
import type { Journal } from "./journal.ts";
import type { CodePackages } from "./packages.ts";
import type { Secrets } from "./secrets.ts";
import type { ModelsOf } from "./spec.ts";

/** What the use cases work with. */
export interface PlatformParts {
  readonly clock: Clock;
  readonly limits: Limits;
  readonly store: Store;
  readonly catalogue: Catalogue;
  readonly packages: CodePackages;
  readonly codeCaches: CodeCaches;
  readonly secrets: Secrets;
  readonly journal: Journal;
  readonly engine: Engine;
  readonly runtimes: ReadonlyMap<string, Runtime>;
  readonly models: ModelsOf;
  readonly logger: Logger;
  readonly supervise: Supervise;
  /** Gathers what an instance of a version needs on this node, secrets included, and keeps it at hand. */
  prepareVersion: EngineParts["prepareVersion"];
  /** Brings a version's code, with its dependencies, to this node. */
  prepareCode(
    version: Version,
    progress: { onPhase?(message: string): void; onOutput?(line: string): void; readonly signal: AbortSignal },
  ): Promise<string>;
}
