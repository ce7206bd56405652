import type { Runtime } from "./runtime.ts";

/** What is launched of a package that says nothing else. */
const DEFAULT_PROGRAM = ["./bootstrap"];

/**
 * Launches what the package or the image brings, with nothing beside it but the system's own programs: static binaries, shell scripts,
 * whatever the machine has in /usr. Such functions name the protocol that their program speaks.
 */
export function createCustomRuntime(): Runtime {
  return {
    name: "custom",
    language: "custom",
    program: DEFAULT_PROGRAM,
    async prepare(signal) {
      signal.throwIfAborted();
      return { command: [], environment: {}, mounts: [], overheadBytes: 0, version: "", build: null };
    },
  };
}
