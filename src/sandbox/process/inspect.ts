import { chmod, mkdtemp, rm, writeFile } from "node:fs/promises";
import { readlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { type IsolationFact, isAttachable, type SandboxDriver, type SandboxLimits } from "../sandbox.ts";
import type { Equipment } from "./equipment.ts";
import { isMachineRoot } from "./identity.ts";

const MIB = 1024 * 1024;
const PROBE_MS_MAX = 10_000;
const TARGET = "/koine/probe";

const probeLimits: SandboxLimits = {
  memoryBytesMax: 64 * MIB,
  pidsMax: 16,
  cpuCores: 1,
  tmpBytesMax: MIB,
  openFilesMax: 64,
  fileBytesMax: 4 * MIB,
};

/** Prints one `name=value` per line; every value is seen from inside. */
const PROBE = `
for name in user mnt pid ipc uts cgroup net; do echo "namespace-$name=$(readlink /proc/self/ns/$name)"; done
while read -r name value rest; do echo "status-\${name%:}=$value"; done < /proc/self/status
echo "open-files=$(ulimit -n)"
echo "home=$([ -e /home ] || [ -e /root ] || [ -e /sys ] && echo seen)"
head -c 2097152 /dev/zero > /tmp/two 2>/dev/null && echo "tmp=whole"
echo "file-blocks=$(ulimit -f)"
echo "attach=wanted" >&3
read -r go <&3
echo "attached=$(cat ${TARGET}/file 2>/dev/null)"
(echo x > ${TARGET}/other) 2>/dev/null && echo "attached-writable=yes"
( i=0; while [ $i -lt 40 ]; do sleep 1 & i=$((i+1)); done ) 2>/dev/null || echo "forks=refused"
`;

interface Seen {
  readonly inside: ReadonlyMap<string, string>;
  readonly attachable: boolean;
  readonly memoryMeasured: boolean;
}

/** Runs a sandbox that looks around in itself, and compares with this process. */
export async function inspectDriver(driver: SandboxDriver, equipment: Equipment): Promise<readonly IsolationFact[]> {
  const seen = await probe(driver);
  return [
    ...namespaceFacts(seen),
    ...privilegeFacts(seen, equipment),
    ...limitFacts(seen, equipment),
    ...fileFacts(seen, equipment),
    ...networkFacts(equipment),
  ];
}

async function probe(driver: SandboxDriver): Promise<Seen> {
  const folder = await mkdtemp(join(tmpdir(), "koine-probe-"));
  try {
    await writeFile(join(folder, "file"), "attached");
    await chmod(folder, 0o755);
    const sandbox = await driver.create(
      {
        id: `probe-${process.pid}`,
        command: ["/bin/sh", "-c", PROBE],
        environment: {},
        mounts: [],
        limits: probeLimits,
        network: "none",
        attachable: true,
      },
      AbortSignal.timeout(PROBE_MS_MAX),
    );
    const printed = text(sandbox.stdout);
    sandbox.stderr.resume();
    const asked = sandbox.channel[Symbol.asyncIterator]();
    await asked.next();
    const attachable = isAttachable(sandbox);
    if (attachable) await sandbox.attach([{ source: folder, target: TARGET }], probeLimits);
    const memoryMeasured = (sandbox.memory()?.peakBytes ?? 0) > 0;
    sandbox.channel.end("\n");
    await sandbox.ended;
    const inside = new Map<string, string>();
    for (const line of (await printed).split("\n")) {
      const at = line.indexOf("=");
      if (at > 0) inside.set(line.slice(0, at), line.slice(at + 1));
    }
    return { inside, attachable, memoryMeasured };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

const remedies = {
  cgroup:
    "Run koine as root, or as a systemd unit with Delegate=yes (for one try: systemd-run --user --scope -p Delegate=yes koine up).",
  mounts:
    "Start koine with bin/koine, which gives it a mount namespace of its own; in a container allow CAP_SYS_ADMIN.",
  bubblewrap: "Install bubblewrap 0.7 or newer.",
} as const;

function fact(
  ability: string,
  holds: boolean,
  detail: string,
  remedy = "This is not expected; please report it.",
): IsolationFact {
  return { ability, holds, detail, remedy: holds ? "" : remedy };
}

const namespaces = { user: "user", mnt: "mount", pid: "pid", ipc: "ipc", uts: "uts", cgroup: "cgroup", net: "network" };

function namespaceFacts({ inside }: Seen): IsolationFact[] {
  return Object.entries(namespaces).map(([name, word]) => {
    const own = inside.get(`namespace-${name}`);
    const isNew = own !== undefined && own !== "" && own !== readlinkSync(`/proc/self/ns/${name}`);
    const detail = name === "net" ? "for sandboxes that ask for no network" : "bubblewrap";
    return fact(`${word} namespace`, isNew, isNew ? detail : "the platform's own");
  });
}

function privilegeFacts({ inside }: Seen, equipment: Equipment): IsolationFact[] {
  const none = inside.get("status-CapEff") === "0".repeat(16) && inside.get("status-CapBnd") === "0".repeat(16);
  const filtered = inside.get("status-Seccomp") === "2";
  const isRoot = equipment.identities === null && isMachineRoot();
  return [
    fact("no capabilities", none, none ? "all dropped" : `effective ${inside.get("status-CapEff") ?? "unknown"}`),
    fact("no new privileges", inside.get("status-NoNewPrivs") === "1", "PR_SET_NO_NEW_PRIVS"),
    fact(
      "system call filter",
      filtered,
      filtered ? "a list of refused calls" : `none for the architecture ${process.arch}`,
      "Run on x86_64 or arm64.",
    ),
    fact(
      "unprivileged user",
      !isRoot,
      equipment.identities === null
        ? isRoot
          ? "the kernel sees root, without capabilities"
          : "the platform's own user"
        : "a kernel user of its own for each sandbox",
      `${remedies.mounts} setpriv (util-linux) is needed too.`,
    ),
  ];
}

function limitFacts({ inside, memoryMeasured }: Seen, { cgroups }: Equipment): IsolationFact[] {
  const memory = cgroups.describe("memory");
  const pids = cgroups.describe("pids");
  const cpu = cgroups.describe("cpu");
  const freezer = cgroups.describe("freezer");
  const refused = inside.get("forks") === "refused";
  return [
    fact(
      "memory limit",
      memoryMeasured,
      memory ?? "looked at every 100 ms; fast growth can exceed it for a moment",
      remedies.cgroup,
    ),
    fact(
      "pids limit",
      refused,
      refused ? (pids ?? "RLIMIT_NPROC within the user namespace") : "forks were not refused",
      remedies.cgroup,
    ),
    fact("cpu limit", cpu !== null, cpu ?? "no cgroup to set it in", remedies.cgroup),
    fact("freezing", true, freezer ?? "SIGSTOP to every process"),
    fact("open files limit", inside.get("open-files") === String(probeLimits.openFilesMax), "RLIMIT_NOFILE"),
    fact("file size limit", inside.get("file-blocks") === String(probeLimits.fileBytesMax / 512), "RLIMIT_FSIZE"),
  ];
}

/** Whether each mode can be had; that of the machine always can. */
function networkFacts({ ownNetworks: { own, egress } }: Equipment): IsolationFact[] {
  const found = own.had ? egress : own;
  return [
    fact("network none", true, own.had ? "a namespace of the platform's" : "a namespace of bubblewrap's"),
    fact(
      "network egress",
      found.had,
      found.had ? "out by the platform's relay, filtered by address" : found.detail,
      found.had ? "" : found.remedy,
    ),
  ];
}

function fileFacts({ inside, attachable }: Seen, { machine, staging, descriptorsKept }: Equipment): IsolationFact[] {
  const attached = attachable && inside.get("attached") === "attached" && !inside.has("attached-writable");
  const own = inside.get("home") === "";
  return [
    fact("root of its own", own, own ? "/usr read-only; no home folders, no /sys" : "folders of the machine are seen"),
    fact(
      "private /tmp with a limit",
      !inside.has("tmp"),
      machine.limitsTmp ? "tmpfs with a size" : `tmpfs without a size: bubblewrap ${machine.bubblewrapVersion}`,
      remedies.bubblewrap,
    ),
    fact(
      "late attachment of code",
      attached,
      attached ? `read-only, by ${staging?.mounting.how ?? "mount"}` : "sandboxes cannot be booted ahead of their code",
      remedies.mounts,
    ),
    fact("no foreign file descriptors", descriptorsKept, "close_range", "Run on Linux 5.11 or newer and Node 26."),
  ];
}
