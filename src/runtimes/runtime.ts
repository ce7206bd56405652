import type { Mount } from "../sandbox/sandbox.ts";

/** `nodejs` | `python` | …: what a bootstrap is written in. */
export type Language = string;

/** The recipe that launches a handler in one language; not a process. */
export interface Runtime {
  /** `nodejs26.x` */
  readonly name: string;
  readonly language: Language;
  /** What is launched for functions that bring a program and do not say which. */
  readonly program?: readonly string[];
  /**
   * Makes the runtime usable on this machine (finds an interpreter, fetches one when first used) and says how to launch it.
   * Repeated calls answer the same launch.
   * @throws KoineError `runtime-unavailable`
   */
  prepare(signal: AbortSignal): Promise<RuntimeLaunch>;
}

export interface RuntimeLaunch {
  /** Absolute paths inside the sandbox, then arguments; ends with the bootstrap. */
  readonly command: readonly string[];
  readonly environment: Readonly<Record<string, string>>;
  /** The interpreter and the bootstrap; code comes on top. */
  readonly mounts: readonly Mount[];
  /** Memory that the runtime itself takes before any code, in bytes: the floor below a function's limit. */
  readonly overheadBytes: number;
  /** The interpreter's own version: `26.10.0`. */
  readonly version: string;
  /** Installs a package's dependencies; null where the language has none. */
  readonly build: BuildRecipe | null;
}

/** How dependencies of a package are installed, in a build sandbox that sees the package writable at `/code`. */
export interface BuildRecipe {
  /** The files whose content decides the result, the first that exists counts: `package-lock.json`. */
  readonly lockFiles: readonly string[];
  /** A folder whose presence says that dependencies are there already: `node_modules`. */
  readonly installed: string;
  /** Commands by lock file, with their mounts and environment. */
  command(lockFile: string): {
    readonly command: readonly string[];
    readonly environment: Readonly<Record<string, string>>;
    readonly mounts: readonly Mount[];
  };
}

/** Where things are inside every sandbox. */
export const insidePaths = {
  /** The function's code package, read-only. */
  code: "/code",
  /** Our bootstraps: `/koine/bootstrap/<language>`. */
  bootstrap: "/koine/bootstrap",
  /** Handler adapters of the dialects: `/koine/handlers/<dialect>/<language>/<model>.*`. */
  handlers: "/koine/handlers",
  /** Compiled code of the package, read-only. */
  codeCache: "/koine/cache",
  /** The interpreter, where it is ours. */
  runtime: "/koine/runtime",
} as const;
