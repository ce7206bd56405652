import { Agent, type IncomingMessage, request as httpRequest } from "node:http";
import type { Duplex, Readable } from "node:stream";
import { KoineError } from "../../core/errors.ts";

/** What the engine answered when it refused; `status` is its HTTP status. */
export class EngineRefusal extends Error {
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.name = "EngineRefusal";
    this.status = status;
  }
}

export interface Query {
  readonly [name: string]: string | number | boolean | undefined;
}

interface CallOptions {
  readonly query?: Query;
  /** Sent as JSON. */
  readonly body?: unknown;
  /** Sent as it is, with its content type; a stream or bytes. */
  readonly content?: { readonly type: string; readonly source: Readable | Buffer };
  readonly headers?: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal | undefined;
}

type Method = "GET" | "POST" | "PUT" | "HEAD" | "DELETE";

/** The newest version of the API that this client was written for. */
const API_VERSION = "1.47";
/** An answer that is no stream; the largest are inspections of images with many layers. */
const ANSWER_BYTES_MAX = 16 * 1024 * 1024;
const IDLE_CONNECTIONS_MAX = 4;

/**
 * The Docker Engine API over a Unix socket, as far as Koine uses it: calls with JSON, streamed answers, and connections that the engine
 * turns into a byte stream. Podman's compatible socket speaks it too.
 */
export class EngineApi {
  readonly socketPath: string;
  readonly #agent = new Agent({ keepAlive: true, maxFreeSockets: IDLE_CONNECTIONS_MAX });
  readonly #version: string;

  private constructor(socketPath: string, version: string) {
    this.socketPath = socketPath;
    this.#version = version;
  }

  /** Asks the engine which versions of the API it speaks. @throws KoineError `container-engine-unavailable` */
  static async connect(socketPath: string, signal?: AbortSignal): Promise<EngineApi> {
    const unversioned = new EngineApi(socketPath, "");
    try {
      const answer = (await unversioned.json("GET", "/version", { signal })) as { ApiVersion?: string };
      const theirs = answer.ApiVersion ?? API_VERSION;
      return new EngineApi(socketPath, `/v${older(theirs, API_VERSION)}`);
    } catch (thrown) {
      throw thrown instanceof EngineRefusal ? unavailable(socketPath, thrown) : thrown;
    } finally {
      unversioned.close();
    }
  }

  /** @throws EngineRefusal, KoineError `container-engine-unavailable` */
  async json(method: Method, path: string, options: CallOptions = {}): Promise<unknown> {
    const response = await this.stream(method, path, options);
    const text = (await wholeOf(response)).toString("utf8");
    return text === "" ? null : JSON.parse(text);
  }

  /** An answer that is read as it comes. @throws EngineRefusal, KoineError `container-engine-unavailable` */
  async stream(method: Method, path: string, options: CallOptions = {}): Promise<IncomingMessage> {
    const { body, content, signal } = options;
    const bytes = body === undefined ? null : Buffer.from(JSON.stringify(body));
    const response = await new Promise<IncomingMessage>((resolve, reject) => {
      const request = httpRequest({
        agent: this.#agent,
        socketPath: this.socketPath,
        method,
        path: this.#path(path, options.query),
        headers: {
          host: "engine",
          ...(bytes === null ? {} : { "content-type": "application/json", "content-length": bytes.length }),
          ...(content === undefined ? {} : { "content-type": content.type }),
          ...options.headers,
        },
        ...(signal === undefined ? {} : { signal }),
      });
      request.on("response", resolve);
      request.on("error", (error) => reject(this.#failed(error, signal)));
      if (content === undefined) request.end(bytes ?? undefined);
      else if (Buffer.isBuffer(content.source)) request.end(content.source);
      else {
        content.source.on("error", (error) => request.destroy(error));
        content.source.pipe(request);
      }
    });
    const status = response.statusCode ?? 0;
    if (status < 400) return response;
    throw new EngineRefusal(status, messageOf(await wholeOf(response)) || `status ${status}`);
  }

  /** A connection that the engine makes a two-way byte stream of. @throws EngineRefusal, KoineError `container-engine-unavailable` */
  async hijack(path: string, options: Pick<CallOptions, "query" | "body" | "signal"> = {}): Promise<Duplex> {
    const bytes = Buffer.from(options.body === undefined ? "" : JSON.stringify(options.body));
    return await new Promise<Duplex>((resolve, reject) => {
      const request = httpRequest({
        // It never comes back to be used again.
        agent: false,
        socketPath: this.socketPath,
        method: "POST",
        path: this.#path(path, options.query),
        headers: {
          host: "engine",
          connection: "Upgrade",
          upgrade: "tcp",
          "content-type": "application/json",
          "content-length": bytes.length,
        },
        ...(options.signal === undefined ? {} : { signal: options.signal }),
      });
      request.on("upgrade", (_, socket, head) => {
        socket.on("error", () => {});
        if (head.length > 0) socket.unshift(head);
        resolve(socket);
      });
      request.on("response", (response) => {
        wholeOf(response).then(
          (body) => reject(new EngineRefusal(response.statusCode ?? 0, messageOf(body) || "no stream was opened")),
          reject,
        );
      });
      request.on("error", (error) => reject(this.#failed(error, options.signal)));
      request.end(bytes);
    });
  }

  close(): void {
    this.#agent.destroy();
  }

  #path(path: string, query: Query = {}): string {
    const given = Object.entries(query).flatMap(([name, value]) =>
      value === undefined ? [] : [`${name}=${encodeURIComponent(String(value))}`],
    );
    return this.#version + path + (given.length === 0 ? "" : `?${given.join("&")}`);
  }

  #failed(error: Error, signal: AbortSignal | undefined): Error {
    return signal?.aborted === true ? error : unavailable(this.socketPath, error);
  }
}

/** The engine's own words of a refusal: JSON with a message, or text. */
function messageOf(body: Buffer): string {
  const text = body.toString("utf8").trim();
  try {
    const parsed: unknown = JSON.parse(text);
    if (typeof parsed !== "object" || parsed === null) return text;
    if ("message" in parsed && typeof parsed.message === "string") return parsed.message;
    if ("cause" in parsed && typeof parsed.cause === "string") return parsed.cause;
    return text;
  } catch {
    return text;
  }
}

async function wholeOf(response: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > ANSWER_BYTES_MAX) throw new Error("the engine's answer is too large");
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

function older(a: string, b: string): string {
  const [majorA = 0, minorA = 0] = a.split(".").map(Number);
  const [majorB = 0, minorB = 0] = b.split(".").map(Number);
  return majorA < majorB || (majorA === majorB && minorA < minorB) ? a : b;
}

/** Why nobody answers at the socket, and what to do. */
function unavailable(socketPath: string, thrown: Error): KoineError {
  const code = "code" in thrown ? thrown.code : undefined;
  const [detail, remedy] =
    code === "ENOENT"
      ? [
          `there is no socket at ${socketPath}`,
          "Install and start Docker or Podman, or say where it listens: koine up --container-engine unix:///PATH.",
        ]
      : code === "EACCES" || code === "EPERM"
        ? [
            `the platform's user may not use the socket ${socketPath}`,
            "Run the platform as a member of the socket's group (usually 'docker'), or use a rootless engine of its own.",
          ]
        : code === "ECONNREFUSED"
          ? [
              `nobody answers at ${socketPath}`,
              "Start the engine: systemctl start docker, or systemctl start podman.socket.",
            ]
          : [`${socketPath}: ${thrown.message}`, "Look into the engine's log."];
  return new KoineError("container-engine-unavailable", { detail, remedy }, { cause: thrown });
}
