import { KoineError } from "../core/errors.ts";
import type { FunctionSpec } from "../core/function.ts";
import { limits } from "../core/limits.ts";
import type { SandboxEnd } from "../sandbox/sandbox.ts";

/** What the end of an instance means for an invocation that was running on it. */
export function endError(end: SandboxEnd, spec: FunctionSpec): KoineError {
  switch (end.kind) {
    case "exited":
      return new KoineError("function-exited", { detail: `exit code ${end.exitCode}` });
    case "killed":
      return new KoineError("function-exited", { detail: `ended by ${end.signal}` });
    case "out-of-memory":
      return new KoineError("out-of-memory", { memory: `${Math.round(spec.memoryBytesMax / 1024 / 1024)} MB` });
    case "too-many-processes":
      return new KoineError("too-many-processes", { limit: limits.sandboxPidsMax });
    case "stopped":
      return new KoineError("function-exited", { detail: "its instance was stopped" });
    default:
      return end satisfies never;
  }
}

/**
 * What the end of a process means for the version that was loading in it.
 * @param lastWords what it wrote before: a function that was never deployed has no logs to look into
 */
export function loadError(end: SandboxEnd, spec: FunctionSpec, lastWords: string): KoineError {
  const failed = (how: string): KoineError => {
    const detail = `the process ${how} while loading${lastWords === "" ? "" : `; it wrote: ${lastWords}`}`;
    return new KoineError("handler-load-failed", { handler: spec.handler, detail });
  };
  switch (end.kind) {
    case "exited":
      return failed(`exited with code ${end.exitCode}`);
    case "killed":
      return failed(`was ended by ${end.signal}`);
    case "stopped":
      return failed("ended");
    default:
      return endError(end, spec);
  }
}
