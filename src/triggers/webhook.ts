import { z } from "zod";
import { dataOf } from "../core/cloud-events.ts";
import type { CloudEvent } from "../core/event.ts";
import { newId } from "../core/ids.ts";
import {
  type RouteDecision,
  type RouteHost,
  routeKind,
  type RouteKind,
  type TriggerRequest,
  type TriggerRoute,
} from "./trigger.ts";
import { type Admitted, type Admission, authSchema, openAdmission } from "./webhook/admission.ts";
import { checkPath, corsHeaders, preflight, routeFields } from "./webhook/route.ts";

const METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] as const;

const schema = z
  .strictObject({
    ...routeFields,
    methods: z.array(z.enum(METHODS)).default(["POST"]).meta({ description: "Empty: every method." }),
    auth: authSchema,
    answer: z
      .enum(["async", "sync"])
      .default("async")
      .meta({ description: "async: 202 once the event is on disk. sync: the function answers the request." }),
    type: z
      .string()
      .min(1)
      .max(256)
      .optional()
      .meta({ description: "Type of the event, instead of what is made of the request." }),
  })
  .superRefine(checkPath);

type Settings = z.output<typeof schema>;

/** HTTP requests of other services, as they send them: paths with parameters, signatures of GitHub, Stripe, Slack and others. */
export function createWebhookKind(): RouteKind {
  return routeKind({
    name: "webhook",
    summary: "HTTP requests of other services: GitHub, Stripe, Slack, anything that can sign or identify itself",
    settings: schema,
    open: (settings, host) => new Webhook(settings, host),
    sample: (settings) => ({
      specversion: "1.0",
      id: "sample",
      source: settings.path,
      type: settings.type ?? "koine.webhook.received",
      subject: settings.path,
      datacontenttype: "application/json",
      data: { method: "POST", path: settings.path, query: {}, headers: {}, parameters: {}, body: {} },
    }),
  });
}

class Webhook implements TriggerRoute {
  readonly host?: string;
  readonly methods: readonly string[];
  readonly path: string;
  readonly #settings: Settings;
  readonly #source: string;
  readonly #admit: Admission;

  constructor(settings: Settings, host: RouteHost) {
    if (settings.host !== undefined) this.host = settings.host;
    this.methods = settings.methods;
    this.path = settings.path;
    this.#settings = settings;
    this.#source = `/triggers/${host.trigger.namespace}/${host.trigger.name}`;
    this.#admit = openAdmission(settings.auth, host);
  }

  async receive(request: TriggerRequest): Promise<RouteDecision> {
    const { cors, methods, answer } = this.#settings;
    const asked = preflight(request, cors, methods);
    if (asked !== null) return asked;
    if (request.method === "OPTIONS" && methods.length > 0 && !methods.includes("OPTIONS"))
      return { kind: "answer", answer: { status: 405, headers: ["Allow", methods.join(", ")], body: "" } };
    const admitted = await this.#admit(request);
    const event = this.#eventOf(request, admitted);
    const challenge = this.#challengeIn(event);
    if (challenge !== null)
      return { kind: "answer", answer: { status: 200, headers: ["Content-Type", "text/plain"], body: challenge } };
    const headers = corsHeaders(request, cors);
    return answer === "sync" ? { kind: "call", event, headers } : { kind: "accept", events: [event], headers };
  }

  /** Slack asks once whether the address is meant to get its events. */
  #challengeIn(event: CloudEvent): string | null {
    if (this.#settings.auth.kind !== "slack") return null;
    const data = fieldsOf(event.data);
    return data["type"] === "url_verification" && typeof data["challenge"] === "string" ? data["challenge"] : null;
  }

  #eventOf(request: TriggerRequest, admitted: Admitted): CloudEvent {
    const event = this.#known(request) ?? this.#general(request, admitted);
    const { type } = this.#settings;
    return type === undefined ? event : { ...event, type };
  }

  /** Events of services whose requests say what they are: the payload is the data, its id the event's. */
  #known(request: TriggerRequest): CloudEvent | null {
    const contentType = request.header("content-type");
    const time = new Date(request.receivedAtMs).toISOString();
    const common = { specversion: "1.0", time, subject: request.path, datacontenttype: "application/json" } as const;
    const { auth } = this.#settings;
    switch (auth.kind) {
      case "github": {
        const body =
          formField(contentType, request.body, "payload") ?? dataOf(contentType ?? "application/json", request.body);
        const data = fieldsOf(body);
        const repository = fieldsOf(data["repository"])["html_url"];
        const kind = request.header("x-github-event") ?? "unknown";
        const action = typeof data["action"] === "string" ? `.${data["action"]}` : "";
        const source = typeof repository === "string" ? repository : this.#source;
        return {
          ...common,
          id: request.header("x-github-delivery") ?? newId(),
          source,
          type: `com.github.${kind}${action}`,
          data: body,
        };
      }
      case "stripe": {
        const data = fieldsOf(dataOf("application/json", request.body));
        const created = typeof data["created"] === "number" ? new Date(data["created"] * 1_000).toISOString() : time;
        return {
          ...common,
          id: text(data["id"]) ?? newId(),
          source: this.#source,
          type: `com.stripe.${text(data["type"]) ?? "event"}`,
          time: created,
          data,
        };
      }
      case "slack": {
        const form = /^application\/x-www-form-urlencoded/i.test(contentType ?? "");
        const body: unknown = form
          ? (formField(contentType, request.body, "payload") ??
            Object.fromEntries(new URLSearchParams(request.body.toString("utf8"))))
          : dataOf(contentType ?? "application/json", request.body);
        const data = fieldsOf(body);
        const kind =
          text(fieldsOf(data["event"])["type"]) ??
          text(data["type"]) ??
          (data["command"] === undefined ? "event" : "command");
        return {
          ...common,
          id: text(data["event_id"]) ?? newId(),
          source: this.#source,
          type: `com.slack.${kind}`,
          data: body,
        };
      }
      case "none":
      case "hmac":
      case "key":
      case "jwt":
        return null;
      default:
        return auth satisfies never;
    }
  }

  #general(request: TriggerRequest, { claims }: Admitted): CloudEvent {
    const body = dataOf(request.header("content-type"), request.body);
    return {
      specversion: "1.0",
      // A sender that repeats a request with the same key means the same event.
      id: request.header("idempotency-key") ?? newId(),
      source: this.#source,
      type: "koine.webhook.received",
      subject: request.path,
      time: new Date(request.receivedAtMs).toISOString(),
      datacontenttype: "application/json",
      data: {
        method: request.method,
        path: request.path,
        query: Object.fromEntries(new URLSearchParams(request.query)),
        headers: headersOf(request, this.#settings),
        parameters: request.parameters,
        ...(body === undefined
          ? {}
          : Buffer.isBuffer(body)
            ? { body: body.toString("base64"), isBase64Encoded: true }
            : { body }),
        ...(claims === undefined ? {} : { claims }),
      },
    };
  }
}

/** Headers by lower-case name, without what proves who the sender is. */
function headersOf({ rawHeaders }: TriggerRequest, { auth }: Settings): Record<string, string> {
  const hidden = new Set(["authorization", "cookie", ...(auth.kind === "key" ? [auth.header.toLowerCase()] : [])]);
  const headers: Record<string, string> = {};
  for (let index = 0; index + 1 < rawHeaders.length; index += 2) {
    const name = (rawHeaders[index] ?? "").toLowerCase();
    const value = rawHeaders[index + 1] ?? "";
    if (!hidden.has(name)) headers[name] = Object.hasOwn(headers, name) ? `${headers[name]}, ${value}` : value;
  }
  return headers;
}

/** JSON in a field of a form, which is how some services send it; null when the body is no such form. */
function formField(contentType: string | undefined, body: Buffer, name: string): unknown {
  if (!/^application\/x-www-form-urlencoded/i.test(contentType ?? "")) return null;
  const value = new URLSearchParams(body.toString("utf8")).get(name);
  return value === null ? null : dataOf("application/json", Buffer.from(value));
}

function fieldsOf(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Buffer.isBuffer(value)
    ? (value as Readonly<Record<string, unknown>>)
    : {};
}

function text(value: unknown): string | null {
  return typeof value === "string" && value !== "" ? value : null;
}
