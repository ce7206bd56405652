import type { KoineError } from "../../core/errors.ts";
import type { IsolationFact } from "../sandbox.ts";
import type { EngineFacts } from "./engine.ts";

/** What an engine isolates on this machine, for `koine doctor`. */
export function inspectEngine(facts: EngineFacts, canEnterNetworks: boolean): readonly IsolationFact[] {
  const limit = (ability: string, holds: boolean, controller: string): IsolationFact => ({
    ability: `container ${ability}`,
    holds,
    detail: holds ? `by ${facts.name}` : `${facts.name} has no control group for it`,
    remedy: holds
      ? ""
      : `Give the engine the cgroup controller '${controller}'; a rootless engine needs it delegated by systemd.`,
  });
  const filtered = facts.security.includes("seccomp");
  const mapped = facts.security.includes("userns") || facts.security.includes("rootless");
  return [
    { ability: "container engine", holds: true, detail: facts.name, remedy: "" },
    limit("memory limit", facts.limitsMemory, "memory"),
    limit("pids limit", facts.limitsPids, "pids"),
    limit("cpu limit", facts.limitsCpu, "cpu"),
    {
      ability: "container system call filter",
      holds: filtered,
      detail: filtered ? "the engine's own seccomp profile" : `${facts.name} filters no system calls`,
      remedy: filtered ? "" : "Use an engine that was built with seccomp.",
    },
    {
      ability: "container user namespace",
      holds: mapped,
      detail: mapped
        ? "root inside is an ordinary user outside"
        : "root inside has no capabilities, but root's number outside",
      remedy: mapped ? "" : "Start the engine with --userns-remap=default, or use a rootless one.",
    },
    {
      ability: "container network none",
      holds: canEnterNetworks,
      detail: canEnterNetworks
        ? "programs are reached in their own network namespace"
        : facts.isLocal
          ? "the platform is not root, and cannot enter the networks of containers"
          : "the engine runs elsewhere; ports are published on the loopback interface",
      remedy: canEnterNetworks
        ? ""
        : "Run the platform as root beside its engine; until then deploy images with --network host.",
    },
    {
      ability: "containers ahead of calls",
      holds: facts.isLocal,
      detail: facts.isLocal
        ? "the next one is started before it is called"
        : "the engine does not see this machine's files",
      remedy: facts.isLocal ? "" : "Run the platform beside its engine.",
    },
  ];
}

/** The same where no engine answers. */
export function noEngine(error: KoineError): readonly IsolationFact[] {
  return [{ ability: "container engine", holds: false, detail: error.message, remedy: error.hint }];
}
