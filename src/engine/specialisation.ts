import type { Version } from "../core/function.ts";
import type { Program, Specialisation } from "../protocols/protocol.ts";
import { insidePaths } from "../runtimes/runtime.ts";
import { isPathMapped, type Sandbox } from "../sandbox/sandbox.ts";
import type { PreparedVersion } from "./parts.ts";
import { launchCommand, type Recipe } from "./recipe.ts";

/** What an instance is told, with paths as they are inside of a file system of its own. */
export function specialisationOf(
  version: Version,
  context: { readonly prepared: PreparedVersion; readonly recipe: Recipe; readonly isCheck: boolean },
): Specialisation {
  const { spec } = version;
  const { prepared, recipe, isCheck } = context;
  const isCached = prepared.codeCacheFolder !== null;
  const command = recipe.kind === "bootstrap" ? recipe.command : null;
  const [adapter] = recipe.kind === "bootstrap" ? recipe.adapters : [];
  return {
    codePath: insidePaths.code,
    handler: spec.handler,
    handlerModel: command === null ? spec.handlerModel : (adapter?.model ?? ""),
    environment: prepared.environment,
    function: {
      namespace: version.namespace,
      package: version.package,
      name: version.name,
      version: version.number,
    },
    memoryBytesMax: spec.memoryBytesMax,
    timeoutMs: spec.timeoutMs,
    instanceConcurrency: spec.instanceConcurrency,
    adapters: recipe.kind === "bootstrap" ? recipe.adapters : [],
    ...(command === null ? {} : { program: agentProgram(command, prepared) }),
    ...(recipe.kind === "bootstrap" && (isCached || isCheck)
      ? { codeCache: { path: isCached ? insidePaths.codeCache : null } }
      : {}),
  };
}

function agentProgram(command: readonly string[], { environment, codeFolder }: PreparedVersion): Program {
  const launched = launchCommand(command, environment, { looksUp: true });
  return { command: launched, port: 0, readyPath: null, codeFolder };
}

/** The same for a sandbox that has no file system of its own. */
export function seenFrom(sandbox: Sandbox, specialisation: Specialisation, program: Program | null): Specialisation {
  const described = program === null ? specialisation : { ...specialisation, program };
  if (!isPathMapped(sandbox)) return described;
  const inside = (path: string): string => sandbox.toOutside(path);
  const { codePath, adapters, codeCache } = described;
  return {
    ...described,
    codePath: inside(codePath),
    adapters: adapters.map((adapter) => ({ ...adapter, path: inside(adapter.path) })),
    ...(codeCache === undefined
      ? {}
      : { codeCache: { path: codeCache.path === null ? null : inside(codeCache.path) } }),
    ...(described.program === undefined
      ? {}
      : { program: { ...described.program, command: described.program.command.map(inside) } }),
  };
}
