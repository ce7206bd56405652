import type { IncomingMessage } from "node:http";
import { pipeline } from "node:stream/promises";
import { Transform } from "node:stream";
import type { ActivationView, InvokeAccepted } from "../core/api.ts";
import { invocationHeaders } from "../core/api.ts";
import type { FunctionRef } from "../core/function.ts";
import { callPath, functionPath, namespacePath } from "./address.ts";
import { readBody, withQuery } from "./client.ts";
import type { ClientRequest } from "./client.ts";
import type { Session } from "./command.ts";
import { CliFailure, platformFailure } from "./failure.ts";
import type { InvocationBody } from "./invocation-body.ts";
import { readActivationLogs, renderLog } from "./logs.ts";
import { formatDuration } from "./quantity.ts";

/** One invocation as the command line describes it. */
export interface InvokeRequest {
  readonly ref: FunctionRef;
  /** Null: an event, handed to the handler as such; else an HTTP request to the function. */
  readonly http: { readonly method: string; readonly path: string } | null;
  readonly headers: Readonly<Record<string, string | string[]>>;
  readonly body: InvocationBody;
  readonly async: boolean;
  /** Absent: as long as the function may take. */
  readonly timeoutMs?: number;
  /** Whether an HTTP status of 400 or more that the function itself answered counts as its failure. */
  readonly failOnStatus: boolean;
}

/** Attempts to read the logs of a failed call, which are stored a moment after its answer, and the wait between them. */
const LOG_ATTEMPTS = 4;
const LOG_WAIT_MS = 100;

/**
 * Calls a function: its answer to stdout, what is known of the run to stderr; when it fails, what it wrote as well.
 * @throws CliFailure with the exit code of the failure
 */
export async function invokeFunction(session: Session, request: InvokeRequest): Promise<void> {
  const startMs = session.io.clock.monotonicMs();
  const response = await session.client.send(clientRequest(session, request));
  const status = response.statusCode ?? 0;
  const id = header(response, invocationHeaders.requestId) ?? "";
  // An event's answer is 200; what else comes is the platform's. Over HTTP every status may be the function's own.
  const isPlatforms = request.http === null ? status >= 400 : header(response, invocationHeaders.error) !== undefined;
  if (isPlatforms) {
    const failure = await session.client.failure(response);
    noteRun(session, response, session.io.clock.monotonicMs() - startMs);
    await noteLogs(session, request.ref, failure.requestId ?? id);
    throw failure;
  }
  if (request.async && status === 202) return await accepted(session, response);
  try {
    await answer(session, response, startMs);
  } catch (thrown) {
    if (session.signal.aborted || id === "") throw thrown;
    await noteLogs(session, request.ref, id);
    throw (await storedFailure(session, request.ref, id)) ?? cut(thrown);
  }
  if (request.http !== null && request.failOnStatus && status >= 400) {
    await noteLogs(session, request.ref, id);
    const message = `The function answered ${status} ${response.statusMessage ?? ""}`.trimEnd();
    throw new CliFailure("function-answered-error", message, "Its answer and logs say why.");
  }
}

function clientRequest(session: Session, request: InvokeRequest): ClientRequest {
  const { ref, http, body, timeoutMs } = request;
  const headers = {
    ...(body.contentType === undefined ? {} : { "content-type": body.contentType }),
    ...(http !== null && request.async ? { prefer: "respond-async" } : {}),
    ...request.headers,
  };
  const event = { qualifier: ref.qualifier, mode: request.async ? "async" : "sync" };
  return {
    method: http === null ? "POST" : http.method,
    path: http === null ? withQuery(functionPath(session, ref, "/invoke"), event) : callPath(ref) + http.path,
    headers,
    ...(http !== null && body.contentType === undefined && isEmpty(body) ? {} : { body: body.body }),
    ...(timeoutMs === undefined ? {} : { timeoutMs }),
  };
}

async function answer(session: Session, response: IncomingMessage, startMs: number): Promise<void> {
  const { io, output, signal } = session;
  if (output.json) {
    const bytes = await readBody(response);
    const durationMs = io.clock.monotonicMs() - startMs;
    output.value({
      activationId: header(response, invocationHeaders.requestId) ?? null,
      status: response.statusCode,
      durationMs,
      start: header(response, invocationHeaders.start) ?? null,
      version: Number(header(response, invocationHeaders.version) ?? Number.NaN),
      headers: response.headers,
      body: bodyValue(bytes, header(response, "content-type")),
    });
    return;
  }
  let last = 0x0a;
  const watch = new Transform({
    transform(chunk: Buffer, _, done) {
      last = chunk.at(-1) ?? last;
      done(null, chunk);
    },
  });
  await pipeline(response, watch, io.stdout, { end: false, signal });
  if (last !== 0x0a && io.isTerminal.stdout) io.stdout.write("\n");
  noteRun(session, response, io.clock.monotonicMs() - startMs);
}

async function accepted(session: Session, response: IncomingMessage): Promise<void> {
  const view = (await session.client.readJson(response)) as InvokeAccepted;
  session.output.show(view, () => view.activationId);
  session.output.note(`accepted; 'koine runs get ${view.activationId}' shows how it went, --result its answer`);
}

function noteRun(session: Session, response: IncomingMessage, durationMs: number): void {
  const { output } = session;
  const status = response.statusCode ?? 0;
  const start = header(response, invocationHeaders.start);
  const version = header(response, invocationHeaders.version);
  const facts = [
    output.paintNote(status < 400 ? "green" : "red", `${status} ${response.statusMessage ?? ""}`.trimEnd()),
    formatDuration(durationMs),
    ...(start === undefined ? [] : [start]),
    ...(version === undefined ? [] : [`version ${version}`]),
    `id ${header(response, invocationHeaders.requestId) ?? "-"}`,
  ];
  output.note(facts.join("  "));
}

/** Shows what a failed call wrote; not being able to is no reason to hide the failure itself. */
async function noteLogs(session: Session, ref: FunctionRef, id: string): Promise<void> {
  if (id === "") return;
  const { output, io } = session;
  const here = sessionIn(session, ref);
  for (let attempt = 1; attempt <= LOG_ATTEMPTS; attempt++) {
    const logs = await readActivationLogs(here, id).catch(() => []);
    if (logs.length > 0) {
      output.note(output.paintNote("dim", "logs of this call:"));
      const look = { paint: output.paintNote, isTerminal: io.isTerminal.stderr, withVersion: false };
      for (const log of logs) output.note(`  ${renderLog(log, look)}`);
      return;
    }
    if (attempt < LOG_ATTEMPTS) await io.sleep(LOG_WAIT_MS, session.signal);
  }
}

/** Why an answer broke off, as the platform recorded it. */
async function storedFailure(session: Session, ref: FunctionRef, id: string): Promise<CliFailure | undefined> {
  const path = namespacePath(session, `/activations/${encodeURIComponent(id)}`, ref.namespace);
  const view = await session.client.json<ActivationView>("GET", path).catch(() => undefined);
  return view?.error == null ? undefined : platformFailure({ ...view.error, requestId: id });
}

function sessionIn(session: Session, ref: FunctionRef): Session {
  return { ...session, settings: { ...session.settings, namespace: ref.namespace } };
}

function cut(thrown: unknown): CliFailure {
  if (thrown instanceof CliFailure) return thrown;
  const reason = thrown instanceof Error ? thrown.message : String(thrown);
  return new CliFailure("unexpected-answer", `The answer broke off: ${reason}`, "The function's logs may say why.");
}

function bodyValue(bytes: Buffer, type: string | undefined): unknown {
  const text = bytes.toString("utf8");
  if (type?.includes("json") === true) {
    try {
      return JSON.parse(text);
    } catch {
      return text;
    }
  }
  return Buffer.from(text).equals(bytes) ? text : { base64: bytes.toString("base64") };
}

function isEmpty(body: InvocationBody): boolean {
  return Buffer.isBuffer(body.body) && body.body.byteLength === 0;
}

function header(response: IncomingMessage, name: string): string | undefined {
  const value = response.headers[name];
  return typeof value === "string" ? value : undefined;
}
