import assert from "node:assert/strict";
import { test } from "node:test";
import type { FunctionSpec, Version } from "../../../core/function.ts";
import type { Activation } from "../../../core/invocation.ts";
import { InvocationReports } from "./reports.ts";
import { type LambdaSettings, loggingOf } from "./settings.ts";

const MIB = 1024 * 1024;
const spec = { memoryBytesMax: 256 * MIB, timeoutMs: 3_000 } as Partial<FunctionSpec> as FunctionSpec;
const version = { name: "f", spec } as Partial<Version> as Version;
const base: Activation = {
  id: "id-1",
  namespace: "default",
  package: "",
  name: "f",
  version: 1,
  mode: "sync",
  attempt: 1,
  state: "succeeded",
  startedAtMs: 0,
  durationMs: 12.3456,
  queuedMs: 0,
  startMs: 0,
  cold: false,
  memoryBytes: 40.2 * MIB,
  status: 200,
  error: null,
  instanceId: "i",
};

function linesOf(logging: Readonly<Record<string, string>>, activation: Activation): string[] {
  const lines: string[] = [];
  const settings: LambdaSettings = {
    version: "7",
    region: "us-east-1",
    runtime: "nodejs22.x",
    role: "",
    layers: [],
    logging: loggingOf({ LoggingConfig: logging }),
  };
  const reports = new InvocationReports({ version, settings, line: ({ line }) => lines.push(line), nowMs: () => 0 });
  reports.starting();
  reports.started(activation.id, 0);
  reports.finished(activation);
  return lines;
}

test("the time of a cold start is told and billed with its first call", () => {
  const [init, start, end, report] = linesOf({}, { ...base, cold: true, startMs: 30.111 });
  assert.match(init ?? "", /^INIT_START Runtime Version: nodejs:22\t/);
  assert.equal(start, "START RequestId: id-1 Version: 7");
  assert.equal(end, "END RequestId: id-1");
  assert.equal(
    report,
    "REPORT RequestId: id-1\tDuration: 12.35 ms\tBilled Duration: 43 ms\tMemory Size: 256 MB\tMax Memory Used: 41 MB\tInit Duration: 30.11 ms\t",
  );
});

test("in JSON there are only the lines that reach the level", () => {
  const lines = linesOf({ LogFormat: "JSON" }, base).map((line) => JSON.parse(line) as Record<string, unknown>);
  assert.deepEqual(
    lines.map((line) => line["type"]),
    ["platform.initStart", "platform.start", "platform.report"],
  );
  assert.deepEqual(lines[2]?.["record"], {
    requestId: "id-1",
    metrics: { durationMs: 12.346, billedDurationMs: 13, memorySizeMB: 256, maxMemoryUsedMB: 41 },
    status: "success",
  });
  const quiet = { LogFormat: "JSON", SystemLogLevel: "WARN" };
  assert.deepEqual(linesOf(quiet, base), []);
  assert.equal(linesOf(quiet, { ...base, state: "timedOut" }).length, 1);
});
