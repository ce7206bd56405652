import { randomUUID } from "node:crypto";
import { z } from "zod";
import type { Supervise } from "../../../core/telemetry.ts";
import type { GatewayRequest } from "../../dialect.ts";
import { wholeOf } from "../../request-body.ts";
import { respondJson } from "../../respond.ts";

export interface ExtensionParts {
  readonly functionName: string;
  readonly functionVersion: string;
  readonly handler: string;
  readonly accountId: string;
  readonly invokedFunctionArn: string;
  readonly timeoutMs: number;
  readonly supervise: Supervise;
  nowMs(): number;
  /** Tells in the log what an extension reports of itself. */
  line(text: string): void;
}

interface Extension {
  readonly name: string;
  readonly events: ReadonlySet<string>;
  /** Events that it has not asked for yet. */
  readonly waiting: object[];
  asking: GatewayRequest | null;
}

const BASE = "/2020-01-01/extension/";
const TELEMETRY = /^\/(?:2020-08-15\/logs|2022-07-01\/telemetry)\/?$/;
const EXTENSIONS_MAX = 10;
const EVENTS_WAITING_MAX = 100;
const BODY_BYTES_MAX = 64 * 1024;
/** How long extensions may take to end after they were told to. */
const SHUTDOWN_MS = 1_500;

const registration = z.object({ events: z.array(z.enum(["INVOKE", "SHUTDOWN"])).default([]) });

/** The Extensions API, for the extensions of one instance. */
export class Extensions {
  readonly #parts: ExtensionParts;
  readonly #byId = new Map<string, Extension>();
  /** Events from before the first extension was there. */
  readonly #early: object[] = [];

  constructor(parts: ExtensionParts) {
    this.#parts = parts;
  }

  /** Answers false for requests that are not of this API. */
  handle(request: GatewayRequest): boolean {
    const { path, method } = request;
    if (TELEMETRY.test(path) && method === "PUT") {
      // As where functions run on a developer's machine: extensions know it and go on without.
      const errorMessage = "Telemetry is not delivered to extensions on this platform";
      respondJson(request, { status: 202, body: { errorType: "Telemetry.NotSupported", errorMessage } });
      return true;
    }
    if (!path.startsWith(BASE)) return false;
    const served = this.#serve(request, `${method} ${path.slice(BASE.length)}`).catch(() => request.response.abort());
    this.#parts.supervise("answer an extension", served);
    return true;
  }

  invoked(requestId: string, timeMs: number): void {
    const { invokedFunctionArn, timeoutMs } = this.#parts;
    const deadlineMs = timeMs + timeoutMs;
    this.#tell("INVOKE", {
      eventType: "INVOKE",
      deadlineMs,
      requestId,
      invokedFunctionArn,
      tracing: tracingOf(requestId),
    });
  }

  stopping(): void {
    const deadlineMs = this.#parts.nowMs() + SHUTDOWN_MS;
    this.#tell("SHUTDOWN", { eventType: "SHUTDOWN", shutdownReason: "spindown", deadlineMs });
  }

  #tell(kind: string, event: object): void {
    if (this.#byId.size === 0 && kind === "INVOKE") keep(this.#early, event);
    for (const extension of this.#byId.values()) {
      if (!extension.events.has(kind)) continue;
      keep(extension.waiting, event);
      give(extension);
    }
  }

  async #serve(request: GatewayRequest, what: string): Promise<void> {
    const body = await wholeOf(request.body, BODY_BYTES_MAX, "a call of an extension");
    if (what === "POST register") {
      this.#register(request, body);
      return;
    }
    const id = request.headers.get("lambda-extension-identifier");
    const extension = this.#byId.get(id ?? "");
    if (extension === undefined) {
      refuse(request, 403, id === undefined ? "MissingExtensionIdentifier" : "UnknownExtensionIdentifier");
      return;
    }
    switch (what) {
      case "GET event/next":
        extension.asking = request;
        request.response.listener = {
          flowed: () => {},
          left: () => {
            if (extension.asking === request) extension.asking = null;
          },
        };
        give(extension);
        return;
      case "POST init/error":
      case "POST exit/error": {
        const type = request.headers.get("lambda-extension-function-error-type") ?? "Extension.Unknown";
        const when = what === "POST init/error" ? "InitError" : "ExitError";
        this.#parts.line(`EXTENSION Name: ${extension.name} State: ${when} Error Type: ${type}`);
        respondJson(request, { status: 202, body: { status: "OK" } });
        return;
      }
      default:
        refuse(request, 404, "NotFound");
    }
  }

  #register(request: GatewayRequest, body: Buffer): void {
    const { functionName, functionVersion, handler, accountId } = this.#parts;
    const name = request.headers.get("lambda-extension-name");
    if (name === undefined || this.#byId.size >= EXTENSIONS_MAX) {
      refuse(
        request,
        name === undefined ? 400 : 403,
        name === undefined ? "InvalidExtensionName" : "TooManyExtensions",
      );
      return;
    }
    const parsed = registration.safeParse(jsonOf(body));
    if (!parsed.success) {
      refuse(request, 400, "InvalidEventType");
      return;
    }
    const id = randomUUID();
    const events = new Set<string>(parsed.data.events);
    const extension: Extension = { name, events, waiting: [], asking: null };
    if (events.has("INVOKE")) extension.waiting.push(...this.#early.splice(0));
    this.#byId.set(id, extension);
    this.#parts.line(`EXTENSION Name: ${name} State: Registered Events: [${[...events].join(", ")}]`);
    const wantsAccount = request.headers.get("lambda-extension-accept-feature")?.includes("accountId") === true;
    respondJson(request, {
      status: 200,
      headers: ["Lambda-Extension-Identifier", id],
      body: { functionName, functionVersion, handler, ...(wantsAccount ? { accountId } : {}) },
    });
  }
}

function keep(events: object[], event: object): void {
  if (events.length >= EVENTS_WAITING_MAX) events.shift();
  events.push(event);
}

function give(extension: Extension): void {
  const { asking } = extension;
  if (asking === null) return;
  const event = extension.waiting.shift();
  if (event === undefined) return;
  extension.asking = null;
  respondJson(asking, { status: 200, headers: ["Lambda-Extension-Event-Identifier", randomUUID()], body: event });
}

function refuse(request: GatewayRequest, status: number, type: string): void {
  respondJson(request, { status, body: { errorType: `Extension.${type}`, errorMessage: type } });
}

function jsonOf(body: Buffer): unknown {
  try {
    return JSON.parse(body.toString("utf8"));
  } catch {
    return null;
  }
}

function tracingOf(requestId: string): { readonly type: string; readonly value: string } {
  const digits = requestId.replaceAll("-", "").padEnd(32, "0");
  const root = `1-${digits.slice(0, 8)}-${digits.slice(8, 32)}`;
  return { type: "X-Amzn-Trace-Id", value: `Root=${root};Parent=${digits.slice(-16)};Sampled=0` };
}
