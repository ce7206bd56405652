import { createServer } from "node:net";
import { posix } from "node:path";
import { KoineError } from "../core/errors.ts";
import type { FunctionSpec, NetworkMode } from "../core/function.ts";
import { grantNetwork, type NetworkAccess } from "../core/network.ts";
import type { Protocol, ProgramNeeds, Specialisation } from "../protocols/protocol.ts";
import { insidePaths, type Runtime } from "../runtimes/runtime.ts";
import type { NetworkFinding, SandboxDriver } from "../sandbox/sandbox.ts";
import type { EngineParts } from "./parts.ts";

/** The protocol of our bootstraps. */
export const OWN_PROTOCOL = "frames";

/** How instances of one version are made on this node. */
export type Recipe =
  | {
      readonly kind: "bootstrap";
      /** Whose bootstrap is launched; spares of it can be used. */
      readonly runtime: Runtime;
      /** Whose files are put beside it: the runtime of a program that the bootstrap runs. */
      readonly beside: Runtime | null;
      readonly protocol: Protocol;
      readonly adapters: Specialisation["adapters"];
      /** What the bootstrap runs for each invocation, instead of a handler. */
      readonly command: readonly string[] | null;
    }
  | {
      readonly kind: "program";
      readonly runtime: Runtime;
      readonly protocol: Protocol;
      readonly needs: ProgramNeeds;
      readonly driver: SandboxDriver;
      readonly command: readonly string[];
    };

type RecipeParts = Pick<EngineParts, "driver" | "imageDriver" | "protocols" | "runtimes" | "agent" | "adaptersOf">;

/** @throws KoineError `unknown-runtime`, `unknown-protocol`, `not-supported` */
export function recipeOf(parts: RecipeParts, spec: FunctionSpec): Recipe {
  const runtime = parts.runtimes.get(spec.runtime);
  if (runtime === undefined) {
    throw new KoineError("unknown-runtime", { runtime: spec.runtime, known: [...parts.runtimes.keys()].join(", ") });
  }
  const name = spec.protocol ?? OWN_PROTOCOL;
  const protocol = parts.protocols.get(name);
  if (protocol === undefined) {
    const known = [...parts.protocols.keys()].filter((other) => other !== OWN_PROTOCOL).join(", ");
    throw new KoineError("unknown-protocol", { protocol: name, known });
  }
  const needs = protocol.program;
  if (needs === undefined) {
    const adapters = parts.adaptersOf(runtime.language);
    return { kind: "bootstrap", runtime, beside: null, protocol, adapters, command: null };
  }
  const command = spec.command ?? (spec.image === undefined ? (runtime.program ?? []) : []);
  if (needs.ability === "execute" && spec.image === undefined) return agentRecipe(parts, runtime, command);
  return { kind: "program", runtime, protocol, needs, driver: driverOf(parts, spec), command };
}

/** Name of the runtime whose spares instances of a version can use; null: none, or it cannot run here. */
export function spareRuntimeOf(parts: RecipeParts, spec: FunctionSpec): string | null {
  try {
    const recipe = recipeOf(parts, spec);
    return recipe.kind === "bootstrap" ? recipe.runtime.name : null;
  } catch {
    return null;
  }
}

/** A bootstrap of ours runs a program per invocation, where the driver cannot: it has spares, and speaks frames. */
function agentRecipe(parts: RecipeParts, runtime: Runtime, command: readonly string[]): Recipe {
  const { agent } = parts;
  const protocol = parts.protocols.get(OWN_PROTOCOL);
  const carrier = agent === null || runtime.language === agent.language ? runtime : parts.runtimes.get(agent.runtime);
  if (agent === null || protocol === undefined || carrier === undefined) {
    throw new KoineError("not-supported", {
      what: "Running a program per call",
      remedy: "Use an image, or another protocol.",
    });
  }
  const beside = carrier === runtime ? null : runtime;
  return { kind: "bootstrap", runtime: carrier, beside, protocol, adapters: [agent.adapter], command };
}

export function driverOf(parts: RecipeParts, spec: FunctionSpec): SandboxDriver {
  if (spec.image === undefined) return parts.driver;
  if (parts.imageDriver !== null) return parts.imageDriver;
  throw new KoineError("not-supported", {
    what: "Running an image",
    remedy: "Start a container engine on this machine; 'koine doctor' says what was looked for.",
  });
}

/**
 * How much of the network instances of a version get.
 * @throws KoineError `network-not-allowed`, `network-unavailable`
 */
export function networkOf(
  parts: Pick<EngineParts, "network">,
  spec: FunctionSpec,
  driver: SandboxDriver,
): NetworkAccess {
  if (spec.network !== undefined) requireNetwork(driver, spec.network);
  const access = grantNetwork(spec, parts.network);
  requireNetwork(driver, access.mode);
  return access;
}

/** @throws KoineError `network-unavailable` where the driver cannot give the mode on this machine */
export function requireNetwork(driver: SandboxDriver, mode: NetworkMode): void {
  const shared: NetworkFinding = {
    had: mode === "host",
    detail: `sandboxes of the driver '${driver.name}' share the machine's network`,
    remedy: "Start koine with isolation ('koine doctor' says what is missing), or say --network host.",
  };
  const finding = driver.sharesNetwork === true ? shared : driver.networks?.[mode];
  if (finding === undefined || finding.had) return;
  throw new KoineError("network-unavailable", { mode, detail: finding.detail, remedy: finding.remedy });
}

/**
 * The port on which program and platform meet. In a network of its own a program may have the one it likes; in the machine's, every
 * instance needs another.
 * @throws KoineError `handler-load-failed` when a port that the spec insists on is taken
 */
export async function portFor(
  spec: FunctionSpec,
  needs: ProgramNeeds,
  { isShared }: { readonly isShared: boolean },
): Promise<number> {
  if (!isShared) return spec.port ?? needs.port;
  try {
    return await freePort(spec.port ?? 0);
  } catch (thrown) {
    const detail = `port ${spec.port} of this machine is taken, whose network the function shares: have it listen on $PORT, and leave --port out`;
    throw new KoineError("handler-load-failed", { handler: spec.handler, detail }, { cause: thrown });
  }
}

/** A port of the machine's loopback interface that nobody listens at; 0: any. */
export function freePort(port: number): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", reject);
    server.listen(port, "127.0.0.1", () => {
      const address = server.address();
      server.close(() => resolve(address === null || typeof address === "string" ? port : address.port));
    });
  });
}

/**
 * A command as it is launched: `$NAME` and `${NAME}` become values of its environment (`$$` is a dollar sign, and names that are not there
 * stay), relative programs are those of the package, and bare names are looked up inside.
 */
export function launchCommand(
  command: readonly string[],
  environment: Readonly<Record<string, string>>,
  { looksUp }: { readonly looksUp: boolean },
): readonly string[] {
  const words = command.map((word) =>
    word.replaceAll(/\$(?:\$|\{(\w+)\}|(\w+))/g, (text, braced?: string, bare?: string) => {
      if (text === "$$") return "$";
      return environment[braced ?? bare ?? ""] ?? text;
    }),
  );
  const [program, ...rest] = words;
  if (program === undefined) return [];
  if (program.startsWith("/")) return words;
  if (program.includes("/")) return [posix.join(insidePaths.code, program), ...rest];
  return looksUp ? words : ["/usr/bin/env", program, ...rest];
}
