import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { promisify } from "node:util";
import { type Machine, readMachine } from "./machine.ts";

/** Whether a driver can work on this machine. */
export type Finding =
  | { readonly works: true; readonly detail: string }
  | { readonly works: false; readonly reason: string; readonly remedy: string };

export interface Findings {
  readonly process: Finding;
  readonly none: Finding;
}

/** Which sandbox drivers work here and why not; takes some 10 ms. `openProcessDriver` still is the last word. */
export async function detectSandbox(): Promise<Findings> {
  return {
    process: await detectProcess(),
    none: { works: true, detail: "plain processes without any isolation" },
  };
}

async function detectProcess(): Promise<Finding> {
  if (process.platform !== "linux") {
    return {
      works: false,
      reason: `${process.platform} has no namespaces`,
      remedy: "Run koine on Linux, or in a Linux virtual machine.",
    };
  }
  const machine = await readMachine(null);
  if (machine === null) {
    return {
      works: false,
      reason: "bubblewrap is not installed",
      remedy: "Install it: apt install bubblewrap, dnf install bubblewrap, apk add bubblewrap or pacman -S bubblewrap.",
    };
  }
  const said = await tryNamespaces(machine);
  if (said === null) return { works: true, detail: `bubblewrap ${machine.bubblewrapVersion}` };
  return { works: false, reason: said, remedy: await namespaceRemedy() };
}

/** null when all went well, else what bubblewrap said. */
async function tryNamespaces(machine: Machine): Promise<string | null> {
  const args = [
    "--unshare-user",
    "--unshare-pid",
    "--unshare-net",
    "--ro-bind",
    "/",
    "/",
    "--proc",
    "/proc",
    "--dev",
    "/dev",
    "--",
    "/bin/sh",
    "-c",
    "exit 0",
  ];
  return await promisify(execFile)(machine.bubblewrap, args, { env: {}, timeout: 5_000 }).then(
    () => null,
    (thrown: unknown) => {
      const said = thrown instanceof Error && "stderr" in thrown ? String(thrown.stderr).trim() : "";
      return said || "bubblewrap failed";
    },
  );
}

/** The switches by which systems forbid namespaces, and how to turn each. */
async function namespaceRemedy(): Promise<string> {
  if ((await setting("kernel/apparmor_restrict_unprivileged_userns")) === "1") {
    return (
      "AppArmor refuses user namespaces to bubblewrap. Give /usr/bin/bwrap a profile with 'userns,' " +
      "(or, for the whole machine: sysctl kernel.apparmor_restrict_unprivileged_userns=0)."
    );
  }
  if ((await setting("kernel/unprivileged_userns_clone")) === "0")
    return "Allow user namespaces: sysctl kernel.unprivileged_userns_clone=1.";
  if ((await setting("user/max_user_namespaces")) === "0")
    return "Allow user namespaces: sysctl user.max_user_namespaces=10000.";
  return "Namespaces are refused here. In a container: run it with --privileged, or with --cap-add SYS_ADMIN, --security-opt seccomp=unconfined and an unmasked /proc.";
}

async function setting(name: string): Promise<string | null> {
  return await readFile(`/proc/sys/${name}`, "utf8").then(
    (content) => content.trim(),
    () => null,
  );
}
