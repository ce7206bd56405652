import { Agent as HttpAgent, request as httpRequest } from "node:http";
import type { IncomingMessage, OutgoingHttpHeaders } from "node:http";
import { Agent as HttpsAgent, request as httpsRequest } from "node:https";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import type { ErrorBody, Page } from "../core/api.ts";
import { invocationHeaders } from "../core/api.ts";
import { limits } from "../core/limits.ts";
import { CliFailure, platformFailure } from "./failure.ts";

export interface ClientOptions {
  readonly url: URL;
  readonly token: string | null;
  /** For the User-Agent. */
  readonly version: string;
  /** Ends every request when it aborts. */
  readonly signal: AbortSignal;
}

export interface ClientRequest {
  readonly method: string;
  /** Begins with `/`; may carry a query. */
  readonly path: string;
  readonly headers?: OutgoingHttpHeaders;
  readonly body?: Buffer | Readable;
  /** How long the answer may take, head and body, in milliseconds; absent: for ever. */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
}

export type Query = Readonly<Record<string, string | number | undefined>>;

/** Time for an answer of the management API that involves no user code, in milliseconds. */
const ANSWER_MS_MAX = 30_000;
/** Largest body that is read as a whole: management answers and errors. */
const BODY_BYTES_MAX = 64 * 1024 * 1024;

/** Speaks the native HTTP API of one platform, over connections that are kept until `close`. */
export class Client {
  readonly #options: ClientOptions;
  readonly #agent: HttpAgent;
  readonly #request: typeof httpRequest;

  constructor(options: ClientOptions) {
    const secure = options.url.protocol === "https:";
    this.#options = options;
    this.#agent = secure ? new HttpsAgent({ keepAlive: true }) : new HttpAgent({ keepAlive: true });
    this.#request = secure ? httpsRequest : httpRequest;
  }

  /** Address of a path on the platform. */
  address(path: string): string {
    return this.#options.url.href.replace(/\/$/, "") + path;
  }

  /**
   * Sends and answers whatever status comes.
   * @throws CliFailure `platform-unreachable` or `no-answer-in-time`
   */
  async send(request: ClientRequest): Promise<IncomingMessage> {
    const timeout = request.timeoutMs === undefined ? [] : [AbortSignal.timeout(request.timeoutMs)];
    const signal = AbortSignal.any([
      this.#options.signal,
      ...(request.signal === undefined ? [] : [request.signal]),
      ...timeout,
    ]);
    try {
      return await this.#exchange(request, signal);
    } catch (thrown) {
      throw timeout[0]?.aborted === true ? this.#late(request.timeoutMs ?? 0) : this.#unreachable(thrown, signal);
    }
  }

  /**
   * Calls the management API and answers its JSON; undefined for an empty answer.
   * @throws CliFailure with the platform's error
   */
  async json<Answer>(method: string, path: string, body?: unknown): Promise<Answer> {
    const response = await this.send({
      method,
      path,
      timeoutMs: ANSWER_MS_MAX,
      headers: { accept: "application/json", ...(body === undefined ? {} : { "content-type": "application/json" }) },
      ...(body === undefined ? {} : { body: Buffer.from(JSON.stringify(body)) }),
    });
    if ((response.statusCode ?? 0) >= 400) throw await this.failure(response);
    return (await this.readJson(response)) as Answer;
  }

  /** The items of a listing, through all its pages or until there are `most`. */
  async items<Item>(path: string, query: Query = {}, most = Number.POSITIVE_INFINITY): Promise<Item[]> {
    const items: Item[] = [];
    let after: string | undefined;
    do {
      const limit = Math.min(limits.pageSizeMax, most - items.length);
      const page = await this.json<Page<Item>>("GET", withQuery(path, { ...query, limit, after }));
      items.push(...page.items);
      after = page.next ?? undefined;
    } while (after !== undefined && items.length < most);
    return items.slice(0, most);
  }

  /** The JSON of an answer; undefined when it is empty. */
  async readJson(response: IncomingMessage): Promise<unknown> {
    const text = await this.#text(response);
    if (text === "") return undefined;
    try {
      return JSON.parse(text);
    } catch {
      throw this.#unexpected(response);
    }
  }

  /** The failure that an error answer of the platform means. */
  async failure(response: IncomingMessage): Promise<CliFailure> {
    let body: unknown;
    try {
      body = JSON.parse(await this.#text(response));
    } catch (thrown) {
      return thrown instanceof CliFailure ? thrown : this.#unexpected(response);
    }
    if (!isErrorBody(body)) return this.#unexpected(response);
    const header = response.headers[invocationHeaders.requestId];
    const requestId = body.error.requestId ?? (typeof header === "string" ? header : "");
    return platformFailure({ ...body.error, requestId }, response.statusCode);
  }

  close(): void {
    this.#agent.destroy();
  }

  async #exchange(request: ClientRequest, signal: AbortSignal): Promise<IncomingMessage> {
    const { token, version } = this.#options;
    const body = request.body;
    const headers: OutgoingHttpHeaders = {
      "user-agent": `koine-cli/${version}`,
      ...(token === null ? {} : { authorization: `Bearer ${token}` }),
      ...(Buffer.isBuffer(body) ? { "content-length": body.byteLength } : {}),
      // Node does so by itself only for the methods that usually have a body.
      ...(body instanceof Readable ? { "transfer-encoding": "chunked" } : {}),
      ...request.headers,
    };
    return await new Promise<IncomingMessage>((resolve, reject) => {
      const outgoing = this.#request(
        this.address(request.path),
        { agent: this.#agent, method: request.method, headers, signal },
        resolve,
      );
      outgoing.on("error", reject);
      // An answer may come before all of the body is sent (too large, not allowed): it counts, not the broken upload.
      if (body instanceof Readable) pipeline(body, outgoing).catch(reject);
      else outgoing.end(body);
    });
  }

  async #text(response: IncomingMessage): Promise<string> {
    try {
      return (await readBody(response)).toString("utf8");
    } catch (thrown) {
      throw this.#unreachable(thrown, this.#options.signal);
    }
  }

  #unreachable(thrown: unknown, signal: AbortSignal): unknown {
    if (signal.aborted || thrown instanceof CliFailure) return thrown;
    const code = thrown instanceof Error && "code" in thrown ? String(thrown.code) : String(thrown);
    return new CliFailure(
      "platform-unreachable",
      `No platform answers at ${this.#options.url.href.replace(/\/$/, "")} (${code})`,
      "Start one with 'koine up', or say where it is with --url, KOINE_URL or 'koine context use'.",
    );
  }

  #late(timeoutMs: number): CliFailure {
    const message = `No answer within ${timeoutMs} ms`;
    return new CliFailure("no-answer-in-time", message, "Look at 'koine status', or allow more time.");
  }

  #unexpected(response: IncomingMessage): CliFailure {
    return new CliFailure(
      "unexpected-answer",
      `${this.address("")} answered ${response.statusCode} in a form that is not Koine's`,
      "Check the address: is it a koine platform, of this version?",
    );
  }
}

/** The whole body; @throws CliFailure when it is absurdly large. */
export async function readBody(response: AsyncIterable<Buffer>): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of response) {
    bytes += chunk.byteLength;
    if (bytes > BODY_BYTES_MAX) throw new CliFailure("unexpected-answer", "The answer is too large", "Ask for less.");
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

export function withQuery(path: string, query: Query): string {
  const set = Object.entries(query).flatMap(([name, value]) => (value === undefined ? [] : [[name, String(value)]]));
  return set.length === 0 ? path : `${path}?${new URLSearchParams(set)}`;
}

function isErrorBody(body: unknown): body is ErrorBody {
  if (typeof body !== "object" || body === null || !("error" in body)) return false;
  const error = body.error;
  if (typeof error !== "object" || error === null || !("code" in error) || !("message" in error)) return false;
  return typeof error.code === "string" && typeof error.message === "string";
}
