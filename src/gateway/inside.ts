import { createHash, timingSafeEqual } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { Duplex } from "node:stream";
import { KoineError, toKoineError } from "../core/errors.ts";
import type { Allowance } from "../core/function.ts";
import type { Caller, Right } from "../core/invocation.ts";
import type { Limits } from "../core/limits.ts";
import { systemClock } from "../core/clock.ts";
import type { Supervise } from "../core/telemetry.ts";
import { Timeouts } from "../core/timeouts.ts";
import type { Dialect, GatewayRequest } from "../dialects/dialect.ts";
import { respondError, respondJson } from "../dialects/respond.ts";
import { NodeExchange } from "./node-exchange.ts";

/** What the code of one instance may ask of the platform, from inside its sandbox, while the instance lives. */
export interface InsideGrant {
  /** Of this instance alone. */
  readonly token: string;
  /** `function:hello`. */
  readonly subject: string;
  readonly namespace: string;
  readonly allow: ReadonlySet<Allowance>;
  /** Values of the secrets that its function names, as they are now. @throws KoineError `secret-not-found` */
  secret(name: string): Promise<string>;
  /** The API of the function's dialect: takes requests that say by themselves who sends them. Null: there is none. */
  readonly dialect: ((request: GatewayRequest) => boolean) | null;
  /** Set when the instance has ended: then nothing is answered any more. */
  revoked: boolean;
}

const RIGHTS: ReadonlySet<Right> = new Set(["invoke", "read", "write"]);
const SECRET = /^\/secrets\/([A-Za-z_][A-Za-z0-9_]*)$/;

/** The platform's API as functions see it: on a loopback port of their own sandbox, with their own token, and no further than they are allowed. */
export class InsideGateway {
  readonly #server: Server;
  readonly #slow: Timeouts;
  readonly #grants = new WeakMap<Duplex, InsideGrant>();
  readonly #parts: InsideParts;

  constructor(parts: InsideParts) {
    this.#parts = parts;
    const { limits } = parts;
    this.#slow = new Timeouts(systemClock, limits.requestSlownessMsMax);
    this.#server = createServer({ maxHeaderSize: limits.headerBytesMax, keepAliveTimeout: limits.keepAliveMsMax });
    this.#server.on("request", (incoming, response) => this.#handle(incoming, response));
    this.#server.on("clientError", (_, socket) => socket.destroy());
  }

  /** Answers what comes on a connection from inside a sandbox. */
  serve(connection: Duplex, grant: InsideGrant): void {
    this.#grants.set(connection, grant);
    this.#server.emit("connection", connection);
  }

  close(): void {
    this.#slow.close();
    this.#server.closeAllConnections();
  }

  #handle(incoming: IncomingMessage, response: ServerResponse): void {
    const unwantedBytesMax = this.#parts.limits.requestBodyBytesMax;
    const request = new NodeExchange(incoming, response, { slow: this.#slow, unwantedBytesMax });
    try {
      const grant = this.#grants.get(incoming.socket);
      if (grant === undefined || grant.revoked) throw new KoineError("unauthorized");
      if (grant.dialect?.(request) === true) return;
      if (!holds(request.headers.get("authorization"), grant.token)) throw new KoineError("unauthorized");
      const secret = SECRET.exec(request.path)?.[1];
      if (secret !== undefined && request.method === "GET") {
        requireAllowance(grant, "secrets");
        this.#answerSecret(request, grant, secret);
        return;
      }
      requireAllowance(grant, allowanceFor(request.method, request.path, grant.namespace));
      request.caller = callerOf(grant);
      for (const dialect of this.#parts.dialects) if (dialect.handle(request)) return;
      throw new KoineError("not-found", { path: request.path });
    } catch (thrown) {
      respondError(request, toKoineError(thrown));
    }
  }

  #answerSecret(request: NodeExchange, grant: InsideGrant, name: string): void {
    const answered = grant.secret(name).then(
      (value) => respondJson(request, { status: 200, body: { name, value } }),
      (thrown: unknown) => respondError(request, toKoineError(thrown)),
    );
    this.#parts.supervise("answer a function's question for a secret", answered);
  }
}

export interface InsideParts {
  readonly dialects: readonly Pick<Dialect, "handle">[];
  readonly limits: Limits;
  readonly supervise: Supervise;
}

/** What a request needs to be allowed; null: nothing allows it. */
export function allowanceFor(method: string, path: string, namespace: string): Allowance | null {
  const own = `/v1/namespaces/${namespace}/`;
  if (path.startsWith("/fn/") || (path.startsWith("/ns/") && path.includes("/fn/"))) return "invoke";
  if (!path.startsWith(own)) return null;
  const [kind, name, action, ...more] = path.slice(own.length).split("/");
  if (more.length > 0 || kind === undefined) return null;
  if (kind === "functions" && action === "invoke" && method === "POST") return "invoke";
  if (kind === "activations" && name !== undefined && method === "GET" && (action === undefined || action === "result"))
    return "invoke";
  if (kind === "topics" && name !== undefined && action === undefined && method === "POST") return "publish";
  if (kind === "triggers" && action === "events" && method === "POST") return "publish";
  if (kind === "triggers" && action !== "test" && action !== "events") return "schedule";
  return null;
}

function callerOf({ subject, namespace }: InsideGrant): Caller {
  return { subject, namespace, rights: RIGHTS, byToken: true, triggerKinds: SCHEDULES };
}

const SCHEDULES: ReadonlySet<string> = new Set(["schedule"]);

function requireAllowance(grant: InsideGrant, needed: Allowance | null): void {
  if (needed !== null && grant.allow.has(needed)) return;
  const how = needed === null ? "this is not for functions" : `deploy it with --allow ${needed}`;
  throw new KoineError("forbidden", { detail: `'${grant.subject}' may not do this: ${how}` });
}

function holds(authorization: string | undefined, token: string): boolean {
  const given = /^bearer\s+(\S+)$/i.exec(authorization ?? "")?.[1];
  return given !== undefined && timingSafeEqual(digest(given), digest(token));
}

function digest(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}
