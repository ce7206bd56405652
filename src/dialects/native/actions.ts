import type { z } from "zod";
import type { DeployProgress, DeployResult } from "../../core/api.ts";
import { KoineError, toKoineError } from "../../core/errors.ts";
import type { DeployOptions } from "../../platform/deploy.ts";
import type { Platform } from "../../platform/platform.ts";
import { AnswerHead } from "../dialect.ts";
import { refOf } from "./address.ts";
import type { RouteAnswer, RouteInput } from "./router.ts";
import * as schemas from "./schemas.ts";
import { functionView, logView, versionView } from "./views.ts";

type DeployInput = RouteInput<unknown, z.output<typeof schemas.deployRequest>>;

/** Deploys; a client that accepts NDJSON sees the progress line by line. */
export async function deployAction(
  platform: Platform,
  { request, parameters, body, signal }: DeployInput,
): Promise<RouteAnswer> {
  const ref = refOf(parameters);
  const { check = true, live = true, ...spec } = body;
  const ndjson = request.headers.get("accept")?.includes("application/x-ndjson") === true;
  const { response, id } = request;
  const write = (progress: DeployProgress): void => {
    if (!response.begun) response.begin(new AnswerHead(200, ["Content-Type", "application/x-ndjson"]));
    response.write(`${JSON.stringify(progress)}\n`);
  };
  const onProgress: DeployOptions["onProgress"] = ndjson ? (phase, message) => write({ phase, message }) : () => {};
  try {
    const deployed = await platform.deploy(ref, { ...spec, dialect: "native" }, { check, live, signal, onProgress });
    const { record } = deployed;
    const result: DeployResult = {
      change: deployed.change,
      function: functionView(platform, record),
      version: versionView(record, deployed.version),
    };
    if (!ndjson) return { status: result.change === "created" ? 201 : 200, body: result };
    write({ phase: "done", result });
  } catch (thrown) {
    const error = toKoineError(thrown);
    if (!response.begun) throw error;
    write({ phase: "failed", error: { ...error.report(), requestId: id } });
  }
  response.end();
  return null;
}

type LogsInput = RouteInput<z.output<typeof schemas.logQuery>, unknown>;

const HEARTBEAT_MS = 15_000;

export async function logsAction(
  platform: Platform,
  { request, parameters, query, signal, flowing }: LogsInput,
): Promise<RouteAnswer> {
  const ref = refOf(parameters);
  platform.parts.catalogue.record(ref);
  const sinceMs = schemas.timeMs(query.since);
  const beforeMs = schemas.timeMs(query.before);
  const lastEventId = Number(request.headers.get("last-event-id") ?? Number.NaN);
  const wanted = {
    namespace: ref.namespace,
    package: ref.package,
    name: ref.name,
    ...(query.version === undefined ? {} : { version: query.version }),
    ...(query.activation === undefined ? {} : { activationId: query.activation }),
    ...(sinceMs === undefined ? {} : { sinceMs }),
    ...(beforeMs === undefined ? {} : { beforeMs }),
    ...(Number.isInteger(lastEventId) ? { afterSequence: lastEventId } : {}),
    limit: query.limit,
  };
  if (query.follow === "false")
    return { status: 200, body: { items: (await platform.logs(wanted)).map(logView), next: null } };
  const { response } = request;
  response.begin(new AnswerHead(200, ["Content-Type", "text/event-stream", "Cache-Control", "no-store"]));
  response.write(": lines follow as they come\n\n");
  const heartbeat = setInterval(() => response.write(": \n\n"), HEARTBEAT_MS);
  try {
    for await (const lines of platform.followLogs(wanted, signal)) {
      const text = lines
        .map((line) => `event: log\nid: ${line.sequence}\ndata: ${JSON.stringify(logView(line))}\n\n`)
        .join("");
      if (!response.write(text)) await flowing();
    }
  } finally {
    clearInterval(heartbeat);
    response.end();
  }
  return null;
}

export async function resultAction(
  platform: Platform,
  { request, parameters }: RouteInput<unknown, unknown>,
): Promise<RouteAnswer> {
  const id = parameters["id"] ?? "";
  const activation = await platform.activation(parameters["ns"] ?? "", id);
  const result = await platform.parts.store.log.getResult(id);
  if (result === null) {
    throw new KoineError("not-acceptable-state", {
      detail: `Activation '${id}' is ${activation.state} and has no stored answer`,
    });
  }
  const type = contentTypeOf(result.headers);
  const head = new AnswerHead(result.status, ["Content-Type", type]);
  request.response.send(head, Buffer.from(result.body.buffer, result.body.byteOffset, result.body.byteLength));
  return null;
}

function contentTypeOf(headers: readonly string[]): string {
  const at = headers.findIndex((name, index) => index % 2 === 0 && name.toLowerCase() === "content-type");
  return at < 0 ? "application/octet-stream" : (headers[at + 1] ?? "application/octet-stream");
}
