import { existsSync } from "node:fs";
import { mkdir, readFile, rename, writeFile } from "node:fs/promises";
import { hostname, release } from "node:os";
import { dirname, join } from "node:path";
import { type InsideNetworks, openInsideNetworks } from "../inside-network.ts";
import { insideAddresses } from "../network/plan.ts";
import { EngineApi } from "./engine-api.ts";
import { holdProgram } from "./hold-program.ts";

/** An engine that answers, and what it can do for this platform. */
export interface Engine {
  readonly api: EngineApi;
  readonly facts: EngineFacts;
  /** The hold program's file; null where the engine does not see this machine's files, or has another processor. */
  readonly holdFile: string | null;
  /** Names the platform as the resolver; null where the engine does not see this machine's files. */
  readonly resolversFile: string | null;
  /** null where this process cannot enter the networks of its containers. */
  readonly networks: InsideNetworks | null;
}

export interface EngineFacts {
  /** `Docker 20.10.24`, for people. */
  readonly name: string;
  readonly isPodman: boolean;
  readonly architecture: string;
  /** Whether its containers are processes of this machine, and its files this machine's. */
  readonly isLocal: boolean;
  readonly limitsMemory: boolean;
  readonly limitsPids: boolean;
  readonly limitsCpu: boolean;
  /** Such as `seccomp`, `apparmor`, `rootless`, `userns`. */
  readonly security: readonly string[];
  /** Whether the kernel has IPv6 at all. */
  readonly hasIPv6: boolean;
  /** Whether it has an init process to put before an image's program. */
  readonly hasInit: boolean;
}

interface Info {
  readonly Name?: string;
  readonly KernelVersion?: string;
  readonly Architecture?: string;
  readonly ServerVersion?: string;
  readonly MemoryLimit?: boolean;
  readonly PidsLimit?: boolean;
  readonly CpuCfsQuota?: boolean;
  readonly SecurityOptions?: readonly string[] | null;
  readonly InitBinary?: string;
}

/** @throws KoineError `container-engine-unavailable` */
export async function openEngine(socketPath: string, directory: string): Promise<Engine> {
  const api = await EngineApi.connect(socketPath, AbortSignal.timeout(ANSWER_MS_MAX));
  const [info, version] = await Promise.all([api.json("GET", "/info"), api.json("GET", "/version")]);
  const facts = factsOf(info as Info, version as Version);
  return {
    api,
    facts,
    holdFile: facts.isLocal ? await writeHoldProgram(directory, facts.architecture) : null,
    resolversFile: facts.isLocal ? await writeResolvers(directory) : null,
    networks: facts.isLocal && (await isMachineRoot()) ? openInsideNetworks() : null,
  };
}

const ANSWER_MS_MAX = 10_000;

interface Version {
  readonly Components?: readonly { readonly Name?: string }[];
}

function factsOf(info: Info, version: Version): EngineFacts {
  const isPodman = version.Components?.some(({ Name: name }) => name?.startsWith("Podman") === true) === true;
  const security = (info.SecurityOptions ?? []).map((option) => /name=([^,]+)/.exec(option)?.[1] ?? option);
  return {
    name: `${isPodman ? "Podman" : "Docker"} ${info.ServerVersion ?? ""}`.trim(),
    isPodman,
    architecture: info.Architecture ?? "",
    isLocal: info.Name === hostname() && info.KernelVersion === release(),
    limitsMemory: info.MemoryLimit === true,
    limitsPids: info.PidsLimit === true,
    limitsCpu: info.CpuCfsQuota === true,
    security,
    hasIPv6: existsSync("/proc/sys/net/ipv6"),
    hasInit: isPodman || (info.InitBinary ?? "") !== "",
  };
}

/** The engine mounts it, and it runs as whatever user an image has. */
async function writeHoldProgram(directory: string, architecture: string): Promise<string | null> {
  const program = holdProgram(architecture);
  if (program === null) return null;
  return await writeOnce(join(directory, `hold-${architecture}`), program, 0o755);
}

async function writeResolvers(directory: string): Promise<string> {
  const text = `nameserver ${insideAddresses.platform4}\n`;
  return await writeOnce(join(directory, "resolv.conf"), Buffer.from(text), 0o644);
}

/** A file that is mounted is never written to, only replaced. */
async function writeOnce(path: string, content: Buffer, mode: number): Promise<string> {
  await mkdir(dirname(path), { recursive: true });
  const written = await readFile(path).catch(() => null);
  if (written?.equals(content) === true) return path;
  const next = `${path}.${process.pid}.new`;
  await writeFile(next, content, { mode });
  await rename(next, path);
  return path;
}

/** Whether this process is root of the machine, and not only of a user namespace, which has no say over an engine's containers. */
async function isMachineRoot(): Promise<boolean> {
  if (process.getuid?.() !== 0) return false;
  const map = await readFile("/proc/self/uid_map", "utf8").catch(() => "");
  return /^\s*0\s+0\s+4294967295\s*$/.test(map);
}
