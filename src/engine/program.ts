import type { Version } from "../core/function.ts";
import type { Program, Specialisation } from "../protocols/protocol.ts";
import { insidePaths } from "../runtimes/runtime.ts";
import type { Mount } from "../sandbox/sandbox.ts";
import type { ProgramLaunch } from "./boot.ts";
import type { EngineParts, InsideOpening, PreparedVersion } from "./parts.ts";
import { freePort, launchCommand, networkOf, portFor, type Recipe } from "./recipe.ts";

/** Where the platform is reached inside a network of its own. */
const INSIDE_PORT = 9_009;

/** Everything that is known of a program before it runs. */
export interface PlannedProgram {
  readonly program: Program;
  readonly launch: ProgramLaunch;
  readonly mounts: readonly Mount[];
  /** Where it was told that the platform listens; null: nowhere. */
  readonly insidePort: number | null;
}

/**
 * What is launched for a version that brings its own program.
 * @throws KoineError `handler-load-failed`, `runtime-unavailable`
 */
export async function planProgram(
  parts: EngineParts,
  version: Version,
  recipe: Extract<Recipe, { readonly kind: "program" }>,
  context: {
    readonly prepared: PreparedVersion;
    readonly specialisation: Specialisation;
    readonly opening: InsideOpening | null;
    readonly signal: AbortSignal;
  },
): Promise<PlannedProgram> {
  const { spec } = version;
  const { needs, driver, protocol } = recipe;
  const isImage = spec.image !== undefined;
  const network = networkOf(parts, spec, driver);
  const isShared = driver.sharesNetwork === true || network.mode === "host";
  const port = await portFor(spec, needs, { isShared });
  const { codeFolder, mounts = [] } = context.prepared;
  const { opening } = context;
  const insidePort = (opening?.serve ?? null) === null ? null : isShared ? await freePort(0) : INSIDE_PORT;
  const base = { port, readyPath: spec.readyPath ?? null, codeFolder: isImage ? null : codeFolder };
  const described = { ...context.specialisation, program: { ...base, command: recipe.command } };
  const runtimeLaunch = isImage ? null : await recipe.runtime.prepare(context.signal);
  const environment = {
    ...runtimeLaunch?.environment,
    ...context.prepared.environment,
    ...needs.environment(described),
    ...opening?.environment(insidePort),
  };
  const command = launchCommand(recipe.command, environment, { looksUp: isImage });
  return {
    program: { ...base, command },
    mounts: isImage ? [] : [{ source: codeFolder, target: insidePaths.code }, ...mounts],
    insidePort,
    launch: {
      driver,
      protocol,
      command: needs.ability === "execute" ? [] : command,
      environment,
      network,
      held: needs.ability === "listen",
      idle: needs.ability === "execute",
      ...(isImage ? {} : { cwd: insidePaths.code }),
      ...(spec.image === undefined ? {} : { image: spec.image }),
    },
  };
}
