import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { type IncomingHttpHeaders, request } from "node:http";
import { connect } from "node:net";
import { crc32 } from "node:zlib";
import type { ActivationView, DeployResult, ErrorBody, FunctionView, LogView } from "../../src/core/api.ts";

/** Where to send requests: a platform, or anything that has an address and maybe a token. */
export interface Target {
  readonly url: string;
  readonly token?: string;
}

export interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly text: string;
  /** Whether the body came to its end. */
  readonly complete: boolean;
}

export interface RequestOptions {
  readonly method?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string | Buffer;
  /** Sent without a length, piece by piece. */
  readonly pieces?: Iterable<Buffer>;
  readonly signal?: AbortSignal;
}

const REQUEST_MS_MAX = 60_000;

/**
 * One HTTP request over a connection of its own, exactly as written: no redirects, no normalised path, any Host.
 * An answer may come before the body was sent.
 */
export function send(target: Target, path: string, options: RequestOptions = {}): Promise<Answer> {
  const { hostname, port } = new URL(target.url);
  const { method = "GET", body, pieces, signal = AbortSignal.timeout(REQUEST_MS_MAX) } = options;
  const token = target.token === undefined ? {} : { authorization: `Bearer ${target.token}` };
  const headers = { ...token, ...options.headers };
  return new Promise((resolve, reject) => {
    const outgoing = request({ hostname, port, method, path, headers, signal, agent: false }, (incoming) => {
      let text = "";
      incoming.setEncoding("utf8").on("data", (part: string) => (text += part));
      incoming.on("error", () => {});
      incoming.on("close", () => {
        const { statusCode = 0, headers: received, complete } = incoming;
        resolve({ status: statusCode, headers: received, text, complete });
        outgoing.destroy();
      });
    });
    // Once an answer is there, that the platform took no more of the body is no error.
    outgoing.on("error", reject);
    if (pieces === undefined) outgoing.end(body);
    else {
      for (const piece of pieces) outgoing.write(piece);
      outgoing.end();
    }
  });
}

/** A management call with a JSON body. */
export function manage(target: Target, method: string, path: string, body?: unknown): Promise<Answer> {
  const json = { "content-type": "application/json" };
  return send(target, path, { method, ...(body === undefined ? {} : { headers: json, body: JSON.stringify(body) }) });
}

/** Sends these very bytes and answers everything that comes back until the platform ends the connection. */
export async function sendBytes(target: Target, bytes: string | Buffer): Promise<string> {
  const { hostname, port } = new URL(target.url);
  const socket = connect({ host: hostname, port: Number(port), signal: AbortSignal.timeout(REQUEST_MS_MAX) });
  let received = "";
  socket.setEncoding("utf8").on("data", (text: string) => (received += text));
  socket.write(bytes);
  await new Promise<void>((resolve) => socket.on("error", () => {}).on("close", () => resolve()));
  return received;
}

/** The error of an answer, which must have the platform's shape and the given code. */
export function errorOf(answer: Answer, code?: ErrorBody["error"]["code"]): ErrorBody["error"] {
  const { error } = JSON.parse(answer.text) as ErrorBody;
  const { message, hint, fault } = error;
  for (const text of [message, hint]) assert.equal(typeof text, "string", answer.text);
  assert.ok(message.length > 0 && ["caller", "function", "platform"].includes(fault), answer.text);
  assert.equal(error.requestId, answer.headers["x-request-id"]);
  assert.equal(error.code, answer.headers["x-koine-error"]);
  if (code !== undefined) assert.equal(error.code, code, answer.text);
  return error;
}

/** A source for `index.mjs`, or files by their paths. */
export type Source = string | Readonly<Record<string, string>>;

export interface DeployOptions {
  readonly namespace?: string;
  /** Further fields of the deploy request. */
  readonly spec?: Readonly<Record<string, unknown>>;
}

/** Uploads and deploys; an answer that is no success is no error here. */
export async function tryDeploy(
  target: Target,
  name: string,
  source: Source,
  options: DeployOptions = {},
): Promise<Answer> {
  const files = typeof source === "string" ? { "index.mjs": source } : source;
  const entries = Object.entries(files).map(([path, content]) => ({ path, content }));
  const uploaded = await upload(target, zip(entries));
  assert.equal(uploaded.status, 201, uploaded.text);
  const { digest } = JSON.parse(uploaded.text) as { digest: string };
  const path = `/v1/namespaces/${options.namespace ?? "default"}/functions/${name}`;
  return await manage(target, "PUT", path, { code: digest, ...options.spec });
}

/** Uploads and deploys. @throws AssertionError with the platform's answer */
export async function deploy(
  target: Target,
  name: string,
  source: Source,
  options: DeployOptions = {},
): Promise<DeployResult> {
  const answer = await tryDeploy(target, name, source, options);
  assert.ok(answer.status === 200 || answer.status === 201, answer.text);
  return JSON.parse(answer.text) as DeployResult;
}

export function upload(target: Target, archive: Buffer): Promise<Answer> {
  return send(target, "/v1/code", { method: "POST", headers: { "content-type": "application/zip" }, body: archive });
}

/** A call of a function over HTTP. */
export function call(target: Target, path: string, options: RequestOptions = {}): Promise<Answer> {
  return send(target, `/fn/${path}`, options);
}

export async function read<Shape>(target: Target, path: string): Promise<Shape> {
  const answer = await send(target, path);
  assert.equal(answer.status, 200, answer.text);
  return JSON.parse(answer.text) as Shape;
}

export async function showFunction(target: Target, name: string): Promise<FunctionView> {
  return await read<FunctionView>(target, `/v1/namespaces/default/functions/${name}`);
}

export async function activationOf(target: Target, id: string, namespace = "default"): Promise<ActivationView> {
  return await read<ActivationView>(target, `/v1/namespaces/${namespace}/activations/${id}`);
}

export async function logsOf(target: Target, id: string): Promise<readonly LogView[]> {
  return (await read<{ items: LogView[] }>(target, `/v1/namespaces/default/activations/${id}/logs`)).items;
}

/** Asks again and again until the answer is not null. @throws Error after the time, which is a bound and no expectation */
export async function eventually<Value>(
  what: string,
  ask: () => Promise<Value | null> | Value | null,
  withinMs = 60_000,
): Promise<Value> {
  const deadlineMs = Date.now() + withinMs;
  for (;;) {
    const value = await ask();
    if (value !== null) return value;
    if (Date.now() > deadlineMs) throw new Error(`${what} did not happen within ${withinMs} ms`);
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
}

/** The id that a response and its activation share. */
export function idOf(answer: Answer): string {
  return String(answer.headers["x-request-id"]);
}

/** Processes of the whole machine whose command has this argument. */
export function commandsWith(argument: string): number {
  let count = 0;
  for (const pid of readdirSync("/proc").filter((name) => /^[0-9]+$/.test(name))) {
    try {
      if (readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0").includes(argument)) count++;
    } catch {
      // It has just ended.
    }
  }
  return count;
}

/** A file of an archive. */
export interface Entry {
  readonly path: string;
  readonly content: string | Buffer;
  /** Type and permissions as of stat(2). */
  readonly mode?: number;
}

/** An archive written byte by byte, uncompressed, so that it can hold what no packer would write. */
export function zip(entries: readonly Entry[]): Buffer {
  const locals: Buffer[] = [];
  const directory: Buffer[] = [];
  let offset = 0;
  for (const { path, content, mode = 0o100644 } of entries) {
    const name = Buffer.from(path);
    const bytes = typeof content === "string" ? Buffer.from(content) : content;
    const shared = Buffer.alloc(26);
    shared.writeUInt16LE(20, 0);
    shared.writeUInt16LE(0x800, 2);
    shared.writeUInt16LE(0x21, 8);
    shared.writeUInt32LE(crc32(bytes), 10);
    shared.writeUInt32LE(bytes.length, 14);
    shared.writeUInt32LE(bytes.length, 18);
    shared.writeUInt16LE(name.length, 22);
    const local = Buffer.concat([Buffer.from("PK\x03\x04"), shared, name, bytes]);
    const place = Buffer.alloc(14);
    place.writeUInt32LE((mode << 16) >>> 0, 6);
    place.writeUInt32LE(offset, 10);
    // Made on Unix: else the mode means nothing.
    directory.push(Buffer.from("PK\x01\x02"), Buffer.from([20, 3]), shared, place, name);
    locals.push(local);
    offset += local.length;
  }
  const records = Buffer.concat(directory);
  const end = Buffer.alloc(18);
  end.writeUInt16LE(entries.length, 4);
  end.writeUInt16LE(entries.length, 6);
  end.writeUInt32LE(records.length, 8);
  end.writeUInt32LE(offset, 12);
  return Buffer.concat([...locals, records, Buffer.from("PK\x05\x06"), end]);
}
