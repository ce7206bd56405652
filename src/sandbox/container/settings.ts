import { KoineError } from "../../core/errors.ts";
import { holdPath } from "./hold-program.ts";
import type { SandboxRequest } from "../sandbox.ts";

/** What an image says of itself, as far as a container of it depends on it. */
export interface ImageFacts {
  /** The digest of its configuration, which is its name in the engine. */
  readonly id: string;
  readonly architecture: string;
  readonly os: string;
  readonly environment: readonly string[];
  readonly entrypoint: readonly string[];
  readonly arguments: readonly string[];
  /** Empty: root's. */
  readonly user: string;
  readonly stopSignal: string;
  /** Paths that it declares as volumes. */
  readonly volumes: readonly string[];
  /** Ports that it declares, such as `8080/tcp`. */
  readonly ports: readonly string[];
}

/** How a container is told apart from others, and what the engine can do with it. */
export interface ContainerPlan {
  readonly request: SandboxRequest;
  readonly image: ImageFacts;
  /** The engine's name for it. */
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  /** The file of the hold program on this machine; null: the image's program starts at once. */
  readonly holdFile: string | null;
  /** Whether the kernel has IPv6 at all. */
  readonly hasIPv6: boolean;
  /** Whether the engine is asked for an init process, so that the image's program is not process 1. */
  readonly withInit: boolean;
  /** What names the platform as the resolver, for `egress`; null: the engine's own choice. */
  readonly resolversFile: string | null;
  /** Whether ports that the image declares are published on the machine's loopback interface, for lack of another way to reach them. */
  readonly publish: boolean;
}

const DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/** Processes of the engine's own in a container: its init. */
const INIT_PIDS = 1;
/** Folders that programs expect to write to beside /tmp, and what each may hold. */
const RUN_BYTES_MAX = 16 * 1024 * 1024;
const IPV6_ON = { "net.ipv6.conf.all.disable_ipv6": "0", "net.ipv6.conf.lo.disable_ipv6": "0" } as const;

/**
 * The body of `POST /containers/create`: everything that isolates and limits a function of an image.
 * @throws KoineError `sandbox-failed`, `image-unusable`, `network-unavailable`
 */
export function containerSettings(plan: ContainerPlan): Readonly<Record<string, unknown>> {
  const { request, image, holdFile } = plan;
  checkText(request);
  const command = commandOf(plan);
  return {
    Image: image.id,
    Entrypoint: holdFile === null ? command : [holdPath, ...heldArguments(command, plan)],
    Cmd: [],
    Env: Object.entries({ TMPDIR: "/tmp", ...request.environment }).map(([name, value]) => `${name}=${value}`),
    Labels: plan.labels,
    ...(request.cwd === undefined ? {} : { WorkingDir: request.cwd }),
    Healthcheck: { Test: ["NONE"] },
    AttachStdin: holdFile !== null,
    AttachStdout: true,
    AttachStderr: true,
    OpenStdin: holdFile !== null,
    StdinOnce: holdFile !== null,
    Tty: false,
    HostConfig: hostConfig(plan, image),
  };
}

function hostConfig(plan: ContainerPlan, image: ImageFacts): Readonly<Record<string, unknown>> {
  const { request, holdFile } = plan;
  const { limits } = request;
  const size = `size=${limits.tmpBytesMax}`;
  const taken = new Set(request.mounts.map(({ target }) => target));
  return {
    NetworkMode: networkMode(request, plan.publish),
    PublishAllPorts: plan.publish,
    // Engines switch it off where they give no network; the platform's ways out have both families.
    ...(request.network === "egress" && plan.hasIPv6 ? { Sysctls: IPV6_ON } : {}),
    ReadonlyRootfs: true,
    CapDrop: ["ALL"],
    SecurityOpt: ["no-new-privileges"],
    Privileged: false,
    Memory: limits.memoryBytesMax,
    // The same as memory: nothing of it is swapped.
    MemorySwap: limits.memoryBytesMax,
    PidsLimit: limits.pidsMax + (plan.withInit ? INIT_PIDS : 0),
    ...(limits.cpuCores === null ? {} : { NanoCpus: Math.round(limits.cpuCores * 1e9) }),
    Ulimits: [
      { Name: "nofile", Soft: limits.openFilesMax, Hard: limits.openFilesMax },
      { Name: "fsize", Soft: limits.fileBytesMax, Hard: limits.fileBytesMax },
      { Name: "core", Soft: 0, Hard: 0 },
    ],
    Tmpfs: {
      ...Object.fromEntries(
        // A volume that nobody gave would be a folder of the engine's without any limit.
        image.volumes
          .filter((path) => !taken.has(path))
          .map((path) => [path, `rw,nosuid,nodev,exec,${size},mode=1777${ownerOf(image)}`]),
      ),
      "/run": `rw,nosuid,nodev,noexec,size=${RUN_BYTES_MAX},mode=1777`,
      "/tmp": `rw,nosuid,nodev,exec,${size},mode=1777`,
    },
    Mounts: [
      ...request.mounts.map(({ source, target, writable }) => ({
        Type: "bind",
        Source: source,
        Target: target,
        ReadOnly: writable !== true,
      })),
      ...[
        { source: holdFile, target: holdPath },
        { source: request.network === "egress" ? plan.resolversFile : null, target: "/etc/resolv.conf" },
      ].flatMap(({ source, target }) =>
        source === null ? [] : [{ Type: "bind", Source: source, Target: target, ReadOnly: true }],
      ),
    ],
    // Output goes to the platform, which bounds and keeps it; the engine would keep it for ever.
    LogConfig: { Type: "none" },
    ...(plan.withInit ? { Init: true } : {}),
    RestartPolicy: { Name: "no" },
    AutoRemove: false,
  };
}

/** A volume belongs to the image's user, where the image says his number: engines give the folder the mode that it has in the image. */
function ownerOf({ user }: ImageFacts): string {
  const [, uid, gid] = /^(\d+)(?::(\d+))?$/.exec(user) ?? [];
  return uid === undefined ? "" : `,uid=${uid},gid=${gid ?? uid}`;
}

/** @throws KoineError `network-unavailable` for a mode that cannot be had with this engine */
function networkMode({ network }: SandboxRequest, publish: boolean): string {
  switch (network) {
    case "none":
    case "egress":
      // The ways out of `egress` are made by the platform, in the namespace that the engine makes.
      if (!publish) return "none";
      throw new KoineError("network-unavailable", {
        mode: network,
        detail:
          "the engine is not on this machine, or the platform is not root, and cannot enter the networks of containers",
        remedy: "Run the platform as root beside its engine, or deploy with --network host.",
      });
    case "host":
      return publish ? "bridge" : "host";
    default:
      return network satisfies never;
  }
}

/** @throws KoineError `image-unusable` when neither the request nor the image says what to run */
function commandOf({ request, image }: ContainerPlan): readonly string[] {
  if (request.idle === true) return [];
  const command = request.command.length > 0 ? request.command : [...image.entrypoint, ...image.arguments];
  if (command.length > 0) return command;
  throw new KoineError("image-unusable", {
    image: request.image ?? "",
    detail: "it says neither ENTRYPOINT nor CMD, and no command was given",
  });
}

/** What the hold program is told: where the command may be found, in the order of PATH, and the command. */
function heldArguments(command: readonly string[], { request, image }: ContainerPlan): readonly string[] {
  const [program] = command;
  if (program === undefined) return [];
  return [...candidatesOf(program, request.environment["PATH"] ?? pathOf(image)), "", ...command];
}

export function candidatesOf(program: string, searchPath: string): readonly string[] {
  if (program.includes("/")) return [program];
  return searchPath.split(":").map((folder) => `${folder === "" ? "." : folder}/${program}`);
}

function pathOf(image: ImageFacts): string {
  const variable = image.environment.find((pair) => pair.startsWith("PATH="));
  return variable?.slice("PATH=".length) ?? DEFAULT_PATH;
}

function checkText({ command, environment, cwd, mounts }: SandboxRequest): void {
  const texts = [
    ...command,
    ...Object.entries(environment).flat(),
    ...mounts.flatMap(({ source, target }) => [source, target]),
    cwd ?? "",
  ];
  if (texts.some((text) => text.includes("\0")))
    throw new KoineError("sandbox-failed", { detail: "a variable or argument contains a zero byte" });
}
