import type { Version } from "../../../core/function.ts";
import type { Activation, InvocationWatch, LogRecord } from "../../../core/invocation.ts";
import { LOG_LEVELS, type LambdaSettings, type LogLevel } from "./settings.ts";

export interface ReportParts {
  readonly version: Version;
  readonly settings: LambdaSettings;
  line(record: Pick<LogRecord, "activationId" | "line" | "timeMs">): void;
  nowMs(): number;
}

const MIB = 1024 * 1024;

/** The lines that frame what an instance writes: INIT_START, START, END and REPORT, as text or as JSON. */
export class InvocationReports implements InvocationWatch {
  readonly #parts: ReportParts;
  readonly #isJson: boolean;

  constructor(parts: ReportParts) {
    this.#parts = parts;
    this.#isJson = parts.settings.logging.format === "JSON";
  }

  starting(): void {
    const { settings, version } = this.#parts;
    const runtimeVersion = settings.runtime.replace(/^([a-z.]+?)(\d.*?)(\.x)?$/, "$1:$2") || "image";
    const runtimeVersionArn = `arn:aws:lambda:${settings.region}::runtime:${settings.runtime || "image"}`;
    this.#write(null, "INFO", this.#parts.nowMs(), {
      text: `INIT_START Runtime Version: ${runtimeVersion}\tRuntime Version ARN: ${runtimeVersionArn}`,
      type: "platform.initStart",
      record: {
        initializationType: "on-demand",
        phase: "init",
        runtimeVersion,
        runtimeVersionArn,
        functionName: version.name,
        functionVersion: settings.version,
      },
    });
  }

  started(requestId: string, timeMs: number): void {
    const { version } = this.#parts.settings;
    this.#write(requestId, "INFO", timeMs, {
      text: `START RequestId: ${requestId} Version: ${version}`,
      type: "platform.start",
      record: { requestId, version },
    });
  }

  finished(activation: Activation): void {
    const { id: requestId, durationMs, startMs, cold, memoryBytes } = activation;
    const { version, nowMs } = this.#parts;
    const timeMs = nowMs();
    const initMs = cold ? startMs : 0;
    const metrics = {
      durationMs: rounded(durationMs),
      billedDurationMs: Math.max(1, Math.ceil(durationMs + initMs)),
      memorySizeMB: Math.round(version.spec.memoryBytesMax / MIB),
      maxMemoryUsedMB: Math.ceil(memoryBytes / MIB),
      ...(cold ? { initDurationMs: rounded(initMs) } : {}),
    };
    const ended = endOf(activation);
    if (!this.#isJson) this.#write(requestId, "INFO", timeMs, { text: `END RequestId: ${requestId}` });
    const shown = [
      `REPORT RequestId: ${requestId}`,
      `Duration: ${metrics.durationMs.toFixed(2)} ms`,
      `Billed Duration: ${metrics.billedDurationMs} ms`,
      `Memory Size: ${metrics.memorySizeMB} MB`,
      `Max Memory Used: ${metrics.maxMemoryUsedMB} MB`,
      ...(cold ? [`Init Duration: ${initMs.toFixed(2)} ms`] : []),
      ...(ended.status === "success" ? [] : [`Status: ${ended.status}`]),
      ...(ended.errorType === undefined ? [] : [`Error Type: ${ended.errorType}`]),
    ];
    this.#write(requestId, ended.status === "success" ? "INFO" : "WARN", timeMs, {
      text: `${shown.join("\t")}\t`,
      type: "platform.report",
      record: { requestId, metrics, ...ended },
    });
    if (ended.status !== "timeout" || this.#isJson) return;
    const seconds = (version.spec.timeoutMs / 1_000).toFixed(2);
    const text = `${new Date(timeMs).toISOString()} ${requestId} Task timed out after ${seconds} seconds`;
    this.#write(requestId, "ERROR", timeMs, { text });
  }

  // oxlint-disable-next-line max-params -- whose line, how important, when, and what it says
  #write(
    activationId: string | null,
    level: LogLevel,
    timeMs: number,
    said: { readonly text: string; readonly type?: string; readonly record?: object },
  ): void {
    const { line, settings } = this.#parts;
    if (!this.#isJson) {
      line({ activationId, timeMs, line: said.text });
      return;
    }
    if (LOG_LEVELS.indexOf(level) < LOG_LEVELS.indexOf(settings.logging.systemLevel)) return;
    const { type, record } = said;
    line({ activationId, timeMs, line: JSON.stringify({ time: new Date(timeMs).toISOString(), type, record }) });
  }
}

function endOf({ state, error }: Activation): { readonly status: string; readonly errorType?: string } {
  if (state === "timedOut") return { status: "timeout" };
  switch (error?.code) {
    case "function-exited":
      return { status: "error", errorType: "Runtime.ExitError" };
    case "out-of-memory":
      return { status: "error", errorType: "Runtime.OutOfMemory" };
    default:
      // What a handler throws is an answer: the invocation itself went well.
      return { status: error?.fault === "platform" ? "failure" : "success" };
  }
}

function rounded(value: number): number {
  return Math.round(value * 1_000) / 1_000;
}
