import { z } from "zod";
import { eventsOf } from "../core/cloud-events.ts";
import {
  type RouteDecision,
  type RouteHost,
  routeKind,
  type RouteKind,
  type TriggerRequest,
  type TriggerRoute,
} from "./trigger.ts";
import { type Admission, authSchema, openAdmission } from "./webhook/admission.ts";
import { checkPath, corsHeaders, preflight, routeFields } from "./webhook/route.ts";

const schema = z.strictObject({ ...routeFields, auth: authSchema }).superRefine(checkPath);

type Settings = z.output<typeof schema>;

/** CloudEvents that others send by HTTP, in binary, structured or batch mode. */
export function createCloudEventsKind(): RouteKind {
  return routeKind({
    name: "cloudevents",
    summary: "CloudEvents that others send by HTTP, in binary, structured or batch mode",
    settings: schema,
    open: (settings, host) => new CloudEvents(settings, host),
    sample: ({ path }) => ({
      specversion: "1.0",
      id: "sample",
      source: path,
      type: "com.example.something.happened",
      datacontenttype: "application/json",
      data: { hello: "world" },
    }),
  });
}

class CloudEvents implements TriggerRoute {
  readonly host?: string;
  readonly methods = ["POST"];
  readonly path: string;
  readonly #settings: Settings;
  readonly #admit: Admission;

  constructor(settings: Settings, host: RouteHost) {
    if (settings.host !== undefined) this.host = settings.host;
    this.path = settings.path;
    this.#settings = settings;
    this.#admit = openAdmission(settings.auth, host);
  }

  async receive(request: TriggerRequest): Promise<RouteDecision> {
    const asked = preflight(request, this.#settings.cors, this.methods) ?? handshake(request);
    if (asked !== null) return asked;
    await this.#admit(request);
    return { kind: "accept", events: eventsOf(request), headers: corsHeaders(request, this.#settings.cors) };
  }
}

/** The question of a sender whether it may deliver here (HTTP 1.1 Web Hooks for Event Delivery, section 4). */
function handshake(request: TriggerRequest): RouteDecision | null {
  if (request.method !== "OPTIONS") return null;
  const origin = request.header("webhook-request-origin");
  const headers =
    origin === undefined
      ? ["Allow", "POST"]
      : ["Allow", "POST", "WebHook-Allowed-Origin", origin, "WebHook-Allowed-Rate", "*"];
  return { kind: "answer", answer: { status: 200, headers, body: "" } };
}
