import { z } from "zod";
import { KoineError } from "../core/errors.ts";
import { objectEventsOf, sampleObjectEvent } from "./connection/object-notifications.ts";
import {
  type RouteDecision,
  type RouteHost,
  routeKind,
  type RouteKind,
  type TriggerRequest,
  type TriggerRoute,
} from "./trigger.ts";
import { type Admission, authSchema, openAdmission } from "./webhook/admission.ts";
import { checkPath, routeFields } from "./webhook/route.ts";

const { path, host } = routeFields;
const schema = z.strictObject({ path, host, auth: authSchema }).superRefine(checkPath);

type Settings = z.output<typeof schema>;

/** Notifications that an S3-compatible store sends by HTTP, as MinIO does. */
export function createBucketWebhookKind(): RouteKind {
  return routeKind({
    name: "bucket-webhook",
    summary: "notifications that an S3-compatible store sends by HTTP, as MinIO does",
    settings: schema,
    abilities: { ordering: true, replay: false },
    open: (settings, routeHost) => new BucketWebhook(settings, routeHost),
    sample: () => sampleObjectEvent("bucket"),
  });
}

class BucketWebhook implements TriggerRoute {
  readonly host?: string;
  /** Stores ask with HEAD or GET whether somebody is there. */
  readonly methods = ["POST", "GET", "HEAD"];
  readonly path: string;
  readonly #admit: Admission;

  constructor(settings: Settings, routeHost: RouteHost) {
    if (settings.host !== undefined) this.host = settings.host;
    this.path = settings.path;
    this.#admit = openAdmission(settings.auth, routeHost);
  }

  async receive(request: TriggerRequest): Promise<RouteDecision> {
    await this.#admit(request);
    // A store that looks whether somebody is there sends nothing.
    if (request.method !== "POST" || request.body.length === 0)
      return { kind: "answer", answer: { status: 200, headers: [], body: "" } };
    const events = objectEventsOf(parsed(request.body));
    if (events === null)
      throw new KoineError("invalid-event", { detail: "the request holds no notification of a bucket" });
    return { kind: "accept", events };
  }
}

function parsed(body: Buffer): unknown {
  try {
    return JSON.parse(body.toString("utf8")) as unknown;
  } catch {
    return null;
  }
}
