import { z } from "zod";
import type { Page, PublishView, TopicView, TriggerKindView, TriggerTestView, TriggerView } from "../../core/api.ts";
import { eventsOf, fromStructured, isCloudEvent, toStructured } from "../../core/cloud-events.ts";
import type { RetryPolicy } from "../../core/enqueue.ts";
import { type ErrorReport, KoineError } from "../../core/errors.ts";
import type { CloudEvent } from "../../core/event.ts";
import { limits } from "../../core/limits.ts";
import type { Caller } from "../../core/invocation.ts";
import type { Platform } from "../../platform/platform.ts";
import { scopedAddress } from "../../platform/triggers/host.ts";
import { stateOf, targetText, type Topic, type Triggers } from "../../platform/triggers/triggers.ts";
import { wholeOf } from "../request-body.ts";
import type { GatewayRequest } from "../dialect.ts";
import { refWithin } from "./address.ts";
import { route, type Route } from "./router.ts";
import * as schemas from "./schemas.ts";
import { rfc3339 } from "./views.ts";

const TRIGGER = "/v1/namespaces/{ns}/triggers/{name}";
const TOPIC = "/v1/namespaces/{ns}/topics/{name}";

const ms = z.int().min(0);

const triggerFields = {
  kind: z.string().max(64),
  function: z.string().max(256).meta({ description: "NAME or PACKAGE/NAME, with an optional :VERSION or :ALIAS." }),
  settings: z
    .record(z.string(), z.unknown())
    .optional()
    .meta({ description: "As the kind describes them; see /v1/trigger-kinds." }),
  filter: z
    .record(z.string(), z.unknown())
    .nullable()
    .optional()
    .meta({ description: "A pattern on the CloudEvent; see docs/triggers.md." }),
  batch: z.strictObject({ size: z.int().optional(), windowMs: ms.optional() }).nullable().optional(),
  ordering: z.enum(["none", "key", "all"]).optional(),
  retry: z
    .strictObject({
      attemptsMax: z.int().min(1).max(limits.asyncAttemptsMax).optional(),
      ageMsMax: ms.max(limits.asyncAgeMsMax).optional(),
      delaysMs: z.array(ms).min(1).max(100).optional(),
    })
    .optional(),
  priority: z.enum(["high", "normal", "low"]).optional(),
  paused: z.boolean().optional(),
  description: z.string().max(1_024).optional(),
} as const;

const triggerRequest = z.strictObject(triggerFields);
const newTriggerRequest = z.strictObject({ name: z.string().max(limits.nameLengthMax), ...triggerFields });
const testRequest = z.strictObject({
  event: z.record(z.string(), z.unknown()).optional(),
  deliver: z.boolean().default(false),
});
const topicRequest = z.strictObject({ description: z.string().max(1_024).optional() });

/** The operations on triggers and topics. */
export function triggerRoutes(platform: Platform): readonly Route[] {
  return [
    ...kindRoutes(platform.triggers),
    ...storedRoutes(platform),
    ...actionRoutes(platform),
    ...topicRoutes(platform),
  ];
}

function kindRoutes(triggers: Triggers): readonly Route[] {
  return [
    route(
      "GET /v1/trigger-kinds",
      {
        right: "read",
        summary: "The kinds of triggers and their settings.",
        answers: "Page<TriggerKindView>",
        query: schemas.pageQuery,
      },
      async () => {
        const items = [...triggers.kinds.values()].map(({ name, summary, abilities, settings }): TriggerKindView => {
          const { $schema: _, ...schema } = z.toJSONSchema(settings, { io: "input", unrepresentable: "any" });
          return { name, summary, abilities, settings: schema };
        });
        return { status: 200, body: { items, next: null } };
      },
    ),
  ];
}

function storedRoutes(platform: Platform): readonly Route[] {
  const { triggers } = platform;
  const save = async (
    namespace: string,
    name: string,
    {
      body,
      caller,
      create,
    }: { readonly body: z.output<typeof triggerRequest>; readonly caller: Caller | null; readonly create: boolean },
  ) => {
    const { function: target, retry, ...rest } = body;
    checkHost(rest.settings, caller);
    checkKind(rest.kind, caller);
    const before = triggers.find(namespace, name);
    if (before !== null) checkKind(before.trigger.kind, caller);
    const request = {
      ...rest,
      target: refWithin(namespace, target),
      create,
      // What is absent is left out by the parser, never undefined.
      ...(retry === undefined ? {} : { retry: retry as Partial<RetryPolicy> }),
    };
    const { hosted, created } = await triggers.put(namespace, name, request);
    return { status: created ? 201 : 200, body: triggerView(triggers, hosted.trigger.namespace, hosted.trigger.name) };
  };
  return [
    route(
      "GET /v1/namespaces/{ns}/triggers",
      { right: "read", summary: "Lists triggers by name.", answers: "Page<TriggerView>", query: schemas.pageQuery },
      async ({ parameters, query }) => {
        const { ns = "" } = parameters;
        const all = triggers.list(ns).filter(({ trigger }) => query.after === undefined || trigger.name > query.after);
        const items = all.slice(0, query.limit).map(({ trigger }) => triggerView(triggers, ns, trigger.name));
        const body: Page<TriggerView> = { items, next: all.length > query.limit ? (items.at(-1)?.name ?? null) : null };
        return { status: 200, body };
      },
    ),
    route(
      "POST /v1/namespaces/{ns}/triggers",
      { right: "write", summary: "Makes a trigger.", answers: "TriggerView", body: newTriggerRequest },
      async ({ request, parameters, body }) => {
        const { name, ...rest } = body;
        return await save(parameters["ns"] ?? "", name, { body: rest, caller: request.caller, create: true });
      },
    ),
    route(
      `PUT ${TRIGGER}`,
      { right: "write", summary: "Makes or replaces a trigger.", answers: "TriggerView", body: triggerRequest },
      async ({ request, parameters, body }) =>
        await save(parameters["ns"] ?? "", parameters["name"] ?? "", { body, caller: request.caller, create: false }),
    ),
    route(
      `GET ${TRIGGER}`,
      { right: "read", summary: "Shows a trigger.", answers: "TriggerView" },
      async ({ parameters }) => {
        return { status: 200, body: triggerView(triggers, parameters["ns"] ?? "", parameters["name"] ?? "") };
      },
    ),
    route(
      `DELETE ${TRIGGER}`,
      { right: "write", summary: "Deletes a trigger; what it has delivered stays.", answers: "Nothing." },
      async ({ request, parameters }) => {
        checkKind(triggers.get(parameters["ns"] ?? "", parameters["name"] ?? "").trigger.kind, request.caller);
        await triggers.delete(parameters["ns"] ?? "", parameters["name"] ?? "");
        return { status: 204 };
      },
    ),
  ];
}

function actionRoutes({ triggers }: Platform): readonly Route[] {
  const pausing = (action: "pause" | "resume", summary: string): Route =>
    route(
      `POST ${TRIGGER}/${action}`,
      { right: "write", summary, answers: "TriggerView" },
      async ({ request, parameters }) => {
        const { ns = "", name = "" } = parameters;
        checkKind(triggers.get(ns, name).trigger.kind, request.caller);
        await triggers.setPaused(ns, name, action === "pause");
        return { status: 200, body: triggerView(triggers, ns, name) };
      },
    );
  return [
    pausing("pause", "Stops a trigger until it is resumed."),
    pausing("resume", "Lets a paused trigger go on where it was."),
    route(
      `POST ${TRIGGER}/test`,
      {
        right: "write",
        summary: "Looks whether the source can be reached and what becomes of an event.",
        answers: "TriggerTestView",
        body: testRequest,
      },
      async ({ parameters, body, signal }) => {
        const event = body.event === undefined ? undefined : fromStructured(body.event);
        const result = await triggers.test(parameters["ns"] ?? "", parameters["name"] ?? "", {
          event,
          deliver: body.deliver,
          signal,
        });
        const view: TriggerTestView = { ...result, event: toStructured(result.event) };
        return { status: 200, body: view };
      },
    ),
    route(
      `POST ${TRIGGER}/events`,
      {
        right: "invoke",
        summary: "Hands CloudEvents to a trigger as if they came from its source.",
        answers: "PublishView",
      },
      async ({ request, parameters }) => {
        const hosted = triggers.get(parameters["ns"] ?? "", parameters["name"] ?? "");
        const accepted = await triggers.accept(hosted, await sentEvents(request, null));
        const body: PublishView = {
          subscriptions: accepted.length === 0 ? 0 : 1,
          activationIds: accepted.map(({ activationId }) => activationId),
        };
        return { status: 202, body };
      },
    ),
  ];
}

function topicRoutes({ triggers }: Platform): readonly Route[] {
  const { topics } = triggers;
  const view = (topic: Topic): TopicView => ({
    namespace: topic.namespace,
    name: topic.name,
    description: topic.description,
    createdAt: rfc3339(topic.createdAtMs),
    subscriptions: topics.subscriptionsOf(topic).map(({ trigger }) => trigger.name),
  });
  return [
    route(
      "GET /v1/namespaces/{ns}/topics",
      { right: "read", summary: "Lists topics by name.", answers: "Page<TopicView>", query: schemas.pageQuery },
      async ({ parameters, query }) => {
        const all = await topics.list(parameters["ns"] ?? "");
        const rest = all.filter(({ name }) => query.after === undefined || name > query.after);
        const items = rest.slice(0, query.limit).map(view);
        return { status: 200, body: { items, next: rest.length > query.limit ? (items.at(-1)?.name ?? null) : null } };
      },
    ),
    route(
      `PUT ${TOPIC}`,
      { right: "write", summary: "Makes a topic.", answers: "TopicView", body: topicRequest },
      async ({ parameters, body }) => {
        const { topic, created } = await topics.put(
          parameters["ns"] ?? "",
          parameters["name"] ?? "",
          body.description ?? "",
        );
        return { status: created ? 201 : 200, body: view(topic) };
      },
    ),
    route(
      `DELETE ${TOPIC}`,
      { right: "write", summary: "Deletes a topic that nothing subscribes to.", answers: "Nothing." },
      async ({ parameters }) => {
        await topics.delete(parameters["ns"] ?? "", parameters["name"] ?? "");
        return { status: 204 };
      },
    ),
    route(
      `POST ${TOPIC}`,
      {
        right: "invoke",
        summary:
          "Publishes CloudEvents in binary, structured or batch mode, or any body as the data of one; durable when it answers.",
        answers: "PublishView",
      },
      async ({ request, parameters }) => {
        const { ns = "", name = "" } = parameters;
        const published: PublishView = await topics.publish(ns, name, await sentEvents(request, `/topics/${name}`));
        return { status: 202, body: published };
      },
    ),
  ];
}

/** The events of a request; with a source also a body that is no event becomes the data of one. */
async function sentEvents(request: GatewayRequest, source: string | null): Promise<readonly CloudEvent[]> {
  const body = await wholeOf(request.body, limits.asyncBodyBytesMax, "the events");
  const message = { header: (name: string) => request.headers.get(name), rawHeaders: request.headers.raw, body };
  if (source === null || isCloudEvent(message)) return eventsOf(message);
  const contentType = request.headers.get("content-type") ?? "application/json";
  return eventsOf({
    ...message,
    rawHeaders: [
      "ce-specversion",
      "1.0",
      "ce-id",
      request.id,
      "ce-source",
      source,
      "ce-type",
      "koine.topic.message",
      "ce-time",
      rfc3339(request.receivedAtMs),
    ],
    header: (name) => (name === "content-type" ? contentType : undefined),
  });
}

/** A whole host is a matter of all namespaces: its requests could be meant for somebody else. */
function checkHost(settings: Readonly<Record<string, unknown>> | undefined, caller: Caller | null): void {
  if (settings?.["host"] === undefined || caller === null || caller.namespace === null) return;
  throw new KoineError("forbidden", { detail: `'${caller.subject}' is bound to a namespace and may not claim a host` });
}

/** Functions may keep schedules, and nothing else of triggers. */
function checkKind(kind: string, caller: Caller | null): void {
  if (caller?.triggerKinds === undefined || caller.triggerKinds.has(kind)) return;
  const detail = `'${caller.subject}' may change triggers of kind ${[...caller.triggerKinds].join(", ")} only`;
  throw new KoineError("forbidden", { detail });
}

function triggerView(triggers: Triggers, namespace: string, name: string): TriggerView {
  const hosted = triggers.get(namespace, name);
  const { trigger, routeError } = hosted;
  const status = triggers.host.status(hosted);
  const error = status?.error ?? null;
  return {
    namespace,
    name,
    kind: trigger.kind,
    function: targetText(trigger),
    settings: trigger.settings,
    filter: trigger.filter,
    batch: trigger.batch,
    ordering: trigger.ordering,
    retry: trigger.retry,
    priority: trigger.priority,
    description: trigger.description,
    createdAt: rfc3339(trigger.createdAtMs),
    updatedAt: rfc3339(trigger.updatedAtMs),
    state: stateOf(hosted),
    detail: status?.detail ?? "",
    error: errorView(error, routeError, trigger.updatedAtMs),
    node: triggers.host.nodeOf(hosted),
    lag: status?.lag ?? null,
    lastEventAt:
      status?.lastEventAtMs === undefined || status.lastEventAtMs === null ? null : rfc3339(status.lastEventAtMs),
    events: hosted.counts.all(),
    route: routeText(hosted),
  };
}

function errorView(
  error: (ErrorReport & { readonly atMs: number }) | null,
  routeError: KoineError | null,
  openedAtMs: number,
): TriggerView["error"] {
  if (error !== null) {
    const { atMs, ...report } = error;
    return { ...report, at: rfc3339(atMs) };
  }
  return routeError === null ? null : { ...routeError.report(), at: rfc3339(openedAtMs) };
}

function routeText(hosted: Parameters<typeof scopedAddress>[0]): string | null {
  if (hosted.route === null) return null;
  const { host = "", methods, path } = scopedAddress(hosted);
  return `${methods.join("|") || "ANY"} ${host}${path}`;
}
