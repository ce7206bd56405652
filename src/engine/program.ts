import type { Version } from "../core/function.ts";
import type { Program, Specialisation } from "../protocols/protocol.ts";
import { insidePaths } from "../runtimes/runtime.ts";
import type { Mount } from "../sandbox/sandbox.ts";
import type { ProgramLaunch } from "./boot.ts";
import type { EngineParts, PreparedVersion } from "./parts.ts";
import { launchCommand, networkOf, portFor, type Recipe } from "./recipe.ts";

/** Everything that is known of a program before it runs. */
export interface PlannedProgram {
  readonly program: Program;
  readonly launch: ProgramLaunch;
  readonly mounts: readonly Mount[];
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
    readonly signal: AbortSignal;
  },
): Promise<PlannedProgram> {
  const { spec } = version;
  const { needs, driver, protocol } = recipe;
  const isImage = spec.image !== undefined;
  const network = networkOf(parts, spec, driver);
  const isShared = driver.sharesNetwork === true || network.mode === "host";
  const port = await portFor(spec, needs, { isShared });
  const { codeFolder } = context.prepared;
  const base = { port, readyPath: spec.readyPath ?? null, codeFolder: isImage ? null : codeFolder };
  const described = { ...context.specialisation, program: { ...base, command: recipe.command } };
  const runtimeLaunch = isImage ? null : await recipe.runtime.prepare(context.signal);
  const environment = {
    ...runtimeLaunch?.environment,
    ...context.prepared.environment,
    ...needs.environment(described),
  };
  const command = launchCommand(recipe.command, environment, { looksUp: isImage });
  return {
    program: { ...base, command },
    mounts: isImage ? [] : [{ source: codeFolder, target: insidePaths.code }],
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
