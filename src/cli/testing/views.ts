import type { ActivationView, FunctionView, LogView, VersionView } from "../../core/api.ts";

const digest = `sha256:${"ab".repeat(32)}`;

export const functionView: FunctionView = {
  namespace: "default",
  package: "",
  name: "hello",
  liveVersion: 2,
  previousVersion: 1,
  newestVersion: 2,
  createdAt: "2030-01-29T12:00:00.000Z",
  updatedAt: "2030-01-31T11:57:00.000Z",
  path: "/fn/hello",
  spec: {
    code: digest,
    runtime: "nodejs26.x",
    handler: "index.mjs",
    handlerModel: "auto",
    environment: { GREETING: "hi" },
    secrets: ["API_KEY"],
    memoryBytesMax: 256 * 1024 * 1024,
    timeoutMs: 30_000,
    instanceConcurrency: 1,
    reservedConcurrency: null,
    idleTimeoutMs: null,
    access: "token",
    dialect: "native",
    description: "",
    annotations: {},
  },
  aliases: [
    { name: "prod", version: 1, additional: { version: 2, weight: 0.1 }, updatedAt: "2030-01-31T11:00:00.000Z" },
  ],
  instances: { starting: 0, idle: 2, busy: 1, frozen: 0 },
};

export const versionView: VersionView = {
  number: 2,
  live: true,
  aliases: ["prod"],
  createdAt: "2030-01-31T11:57:00.000Z",
  specDigest: digest,
  spec: functionView.spec,
};

export const activationView: ActivationView = {
  id: "01920c3e-0000-7000-8000-00000000abcd",
  namespace: "default",
  package: "",
  name: "hello",
  version: 2,
  mode: "sync",
  attempt: 1,
  state: "succeeded",
  startedAt: "2030-01-31T11:59:15.000Z",
  durationMs: 12.345,
  queuedMs: 30,
  startMs: 28,
  cold: true,
  memoryBytes: 40 * 1024 * 1024,
  status: 200,
  error: null,
  instanceId: "01920c3e-0000-7000-8000-000000000001",
};

export function logView(sequence: number, line: string, stream: LogView["stream"] = "stdout"): LogView {
  return {
    sequence,
    time: "2030-01-31T11:59:15.250Z",
    function: "hello",
    version: 2,
    activationId: activationView.id,
    instanceId: activationView.instanceId,
    stream,
    line,
  };
}
