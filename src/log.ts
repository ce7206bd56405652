import type { Writable } from "node:stream";
import type { Clock } from "./core/clock.ts";
import type { Logger, LogLevel, Supervise } from "./core/telemetry.ts";

/** The platform's own log on a stream: JSON lines for machines, short lines for people. */
export function createLogger(
  stream: Writable,
  options: { readonly format: "text" | "json"; readonly clock: Clock },
): Logger {
  const { format, clock } = options;
  return {
    log(level: LogLevel, message: string, fields = {}) {
      if (level === "debug" && format === "text") return;
      const time = new Date(clock.nowMs()).toISOString();
      if (format === "json") {
        stream.write(`${JSON.stringify({ time, level, message, ...fields })}\n`);
        return;
      }
      const details = Object.entries(fields).map(
        ([name, value]) => ` ${name}=${typeof value === "string" ? value : JSON.stringify(value)}`,
      );
      stream.write(`  ${time.slice(11, 19)} ${level} ${message}${details.join("")}\n`);
    },
  };
}

/** A promise that nobody awaits and that fails is a defect or a broken machine: it is logged, never swallowed. */
export function createSupervisor(logger: Logger): Supervise {
  return (what, promise) => {
    promise.catch((thrown: unknown) => {
      const error = thrown instanceof Error ? (thrown.stack ?? thrown.message) : String(thrown);
      logger.log("error", `failed to ${what}`, { error });
    });
  };
}
