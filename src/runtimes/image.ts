import type { Runtime } from "./runtime.ts";

/** Launches what an image holds, which brings everything itself. Such functions name the protocol that their program speaks. */
export function createImageRuntime(): Runtime {
  return {
    name: "image",
    language: "image",
    async prepare(signal) {
      signal.throwIfAborted();
      return { command: [], environment: {}, mounts: [], overheadBytes: 0, version: "", build: null };
    },
  };
}
