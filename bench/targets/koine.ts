import { buffer } from "node:stream/consumers";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { ZipFile } from "yazl";
import type { CodeView, PlatformStatus } from "../../src/core/api.ts";
import { type RunningPlatform, startPlatform } from "../../test/system/platform.ts";
import { type Address, Connection, requestBytes, type RequestOptions } from "../load/connection.ts";
import { helloJs, type Source } from "./functions.ts";
import type { Server } from "./server.ts";

/** What is measured with: everything on, as it is shipped. */
export interface KoineOptions {
  /** Functions that are deployed and not called; 1,000 unless said otherwise. */
  readonly routes?: number;
  /** Most spare sandboxes per runtime; as shipped when absent. */
  readonly sparesMax?: number;
  /** Processes that serve; 1 when absent. */
  readonly engines?: number;
  /** Further environment of the platform. */
  readonly environment?: Readonly<Record<string, string>>;
}

/** Fields of a deploy request. */
export type SpecFields = Readonly<Record<string, unknown>>;

const TOKEN = "benchmark-token-of-no-secrecy";
const ROUTES = 1_000;
const DEPLOYS_AT_A_TIME = 32;
const SETTLED_MS_MAX = 60_000;
const STILL_MS = 200;
const LOOK_EVERY_MS = 25;

/** A platform of its own with authentication, a thousand routes and everything else it ships with. */
export async function startKoine(options: KoineOptions = {}): Promise<Koine> {
  const scratch = await mkdtemp(join(tmpdir(), "koine-bench-"));
  const tokenFile = join(scratch, "tokens");
  await writeFile(tokenFile, `${TOKEN} bench\n`, { mode: 0o600 });
  const { sparesMax, engines = 1, environment = {}, routes = ROUTES } = options;
  const spares = sparesMax === undefined ? {} : { KOINE_SPARES_MAX: String(sparesMax) };
  const platform = await startPlatform({
    args: ["--token-file", tokenFile, "--engines", String(engines)],
    env: { ...spares, ...environment },
  });
  const koine = new Koine(platform, scratch);
  try {
    await koine.deployMany("route", routes);
  } catch (thrown) {
    await koine[Symbol.asyncDispose]();
    throw thrown;
  }
  return koine;
}

/** For how long the number of spares must stand still before a burst: many may still be booting. */
export const BEFORE_BURST_MS = 1_000;

export class Koine implements Server {
  readonly name = "Koine";
  readonly address: Address;
  readonly pid: number;
  readonly #platform: RunningPlatform;
  readonly #scratch: string;

  constructor(platform: RunningPlatform, scratch: string) {
    this.#platform = platform;
    this.#scratch = scratch;
    this.pid = platform.pid;
    this.address = { host: "127.0.0.1", port: Number(new URL(platform.url).port) };
  }

  /** The bytes of a call of a function, with the token. */
  request(path: string, options: Omit<RequestOptions, "path"> = {}): Buffer {
    const headers = { Authorization: `Bearer ${TOKEN}`, ...options.headers };
    return requestBytes(this.address, { ...options, path: `/fn/${path}`, headers });
  }

  /** Uploads and deploys; the handler is first loaded when it is first called. */
  async deploy(name: string, source: Source, spec: SpecFields = {}): Promise<void> {
    await this.put(name, { ...spec, code: await this.upload(source) });
  }

  async upload(source: Source): Promise<string> {
    const zip = new ZipFile();
    for (const [path, content] of Object.entries(source)) zip.addBuffer(Buffer.from(content), path);
    zip.end();
    const body = new Uint8Array(await buffer(zip.outputStream));
    const answer = await this.#manage("POST", "/v1/code", { body, type: "application/zip" });
    return (JSON.parse(answer) as CodeView).digest;
  }

  async put(name: string, spec: SpecFields): Promise<void> {
    const body = JSON.stringify({ check: false, ...spec });
    await this.#manage("PUT", `/v1/namespaces/default/functions/${name}`, { body, type: "application/json" });
  }

  /** Deploys functions `prefix-0`, `prefix-1`, … of one code; from number `from` on. */
  async deployMany(prefix: string, count: number, { from = 0 }: { readonly from?: number } = {}): Promise<void> {
    if (count === 0) return;
    const code = await this.upload(helloJs);
    let next = from;
    const deployNext = async (): Promise<void> => {
      while (next < from + count) await this.put(`${prefix}-${next++}`, { code });
    };
    await Promise.all(Array.from({ length: DEPLOYS_AT_A_TIME }, deployNext));
  }

  async remove(name: string): Promise<void> {
    await this.#manage("DELETE", `/v1/namespaces/default/functions/${name}`);
  }

  async status(): Promise<PlatformStatus> {
    return JSON.parse(await this.#manage("GET", "/v1/status")) as PlatformStatus;
  }

  /** Waits until nothing starts, nothing is queued and as many spares wait as want to: their number has stood still for so long. */
  async settled(stillMs: number = STILL_MS): Promise<PlatformStatus> {
    const deadlineMs = performance.now() + SETTLED_MS_MAX;
    let same = 0;
    let before = "";
    for (;;) {
      const status = await this.status();
      const { spares, instances, queue } = status;
      const now = JSON.stringify(spares);
      const calm = instances.starting === 0 && instances.busy === 0 && queue.waiting + queue.leased === 0;
      same = calm && now === before ? same + 1 : 0;
      before = now;
      if (same * LOOK_EVERY_MS >= stillMs) return status;
      if (performance.now() > deadlineMs) throw new Error(`the platform did not settle: ${JSON.stringify(status)}`);
      await sleep(LOOK_EVERY_MS);
    }
  }

  /** A call of the management API with a JSON body. */
  async api(method: string, path: string, body?: unknown): Promise<void> {
    const content = body === undefined ? undefined : { body: JSON.stringify(body), type: "application/json" };
    await this.#manage(method, path, content);
  }

  /** A form that the operator's token makes a call of, unsigned. */
  async form(body: string): Promise<string> {
    return await this.#manage("POST", "/", { body, type: "application/x-www-form-urlencoded" });
  }

  async metrics(): Promise<string> {
    return await this.#manage("GET", "/metrics");
  }

  connect(): Promise<Connection> {
    return Connection.open(this.address);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#platform.stop();
    await rm(this.#scratch, { recursive: true, force: true });
  }

  async #manage(
    method: string,
    path: string,
    content?: { readonly body: string | Uint8Array<ArrayBuffer>; readonly type: string },
  ): Promise<string> {
    const headers = {
      authorization: `Bearer ${TOKEN}`,
      ...(content === undefined ? {} : { "content-type": content.type }),
    };
    const url = `http://${this.address.host}:${this.address.port}${path}`;
    const answer = await fetch(url, { method, headers, ...(content === undefined ? {} : { body: content.body }) });
    const text = await answer.text();
    if (!answer.ok) throw new Error(`${method} ${path} answered ${answer.status}: ${text}`);
    return text;
  }
}

/** Spare sandboxes of all runtimes that wait. */
export function sparesOf({ spares }: PlatformStatus): number {
  return Object.values(spares).reduce((sum, count) => sum + count, 0);
}
