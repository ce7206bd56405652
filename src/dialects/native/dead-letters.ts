import type { DeadLetterDetailView, DeadLetterView, Page } from "../../core/api.ts";
import type { DeadLetterChoice, DeadLetterDetail } from "../../platform/async-work.ts";
import type { Platform } from "../../platform/platform.ts";
import { functionOfLane } from "../../platform/queued-payload.ts";
import type { DeadLetterHead } from "../../store/store.ts";
import { refWithin } from "./address.ts";
import { route, type Parameters, type Route } from "./router.ts";
import * as schemas from "./schemas.ts";
import { attemptView, rfc3339 } from "./views.ts";

const LETTERS = "/v1/namespaces/{ns}/dead-letters";

/** The operations on dead letters. */
export function deadLetterRoutes(platform: Platform): readonly Route[] {
  const { work } = platform;
  return [
    route(
      `GET ${LETTERS}`,
      {
        right: "read",
        summary: "Asynchronous work that ran out of attempts, by id: the oldest accepted first.",
        answers: "Page<DeadLetterView>",
        query: schemas.deadLetterQuery,
      },
      async ({ parameters, query }) => {
        const { after, limit } = query;
        const choice = { ...choiceOf(parameters, query), ...(after === undefined ? {} : { after }) };
        const found = await work.deadLetters(namespaceOf(parameters), { ...choice, limit: limit + 1 });
        const items = found.slice(0, limit).map(deadLetterView);
        const body: Page<DeadLetterView> = { items, next: found.length > limit ? (items.at(-1)?.id ?? null) : null };
        return { status: 200, body };
      },
    ),
    route(
      `GET ${LETTERS}/{id}`,
      { right: "read", summary: "One dead letter with its event and attempts.", answers: "DeadLetterDetailView" },
      async ({ parameters }) => {
        const letter = await work.deadLetter(namespaceOf(parameters), parameters["id"] ?? "");
        return { status: 200, body: deadLetterDetailView(letter) };
      },
    ),
    route(
      `POST ${LETTERS}/replay`,
      {
        right: "invoke",
        summary: "Runs dead letters again; repeat it until `more` is false.",
        answers: "DeadLettersReplayed",
        body: schemas.deadLetterReplay,
      },
      async ({ parameters, body }) => {
        const { limit, perSecond } = body;
        const namespace = namespaceOf(parameters);
        const choice = choiceOf(parameters, body);
        const activationIds = await work.replay(namespace, choice, { limit, perSecond });
        platform.onEnqueued();
        const more = (await work.deadLetters(namespace, { ...choice, limit: 1 })).length > 0;
        return { status: 200, body: { replayed: activationIds.length, activationIds, more } };
      },
    ),
    route(
      `POST ${LETTERS}/purge`,
      {
        right: "write",
        summary: "Removes dead letters for good; repeat it until `more` is false.",
        answers: "DeadLettersPurged",
        body: schemas.deadLetterPurge,
      },
      async ({ parameters, body }) => {
        const namespace = namespaceOf(parameters);
        const choice = choiceOf(parameters, body);
        const purged = await work.purge(namespace, choice, body.limit);
        const more = (await work.deadLetters(namespace, { ...choice, limit: 1 })).length > 0;
        return { status: 200, body: { purged, more } };
      },
    ),
    route(
      `POST ${LETTERS}/{id}/replay`,
      { right: "invoke", summary: "Runs one dead letter again, under its id.", answers: "InvokeAccepted" },
      async ({ parameters }) => {
        const namespace = namespaceOf(parameters);
        const id = parameters["id"] ?? "";
        await work.deadLetter(namespace, id);
        await work.replayRun(id);
        platform.onEnqueued();
        return { status: 202, body: { activationId: id } };
      },
    ),
    route(
      `DELETE ${LETTERS}/{id}`,
      { right: "write", summary: "Removes one dead letter for good.", answers: "Nothing." },
      async ({ parameters }) => {
        await work.purgeOne(namespaceOf(parameters), parameters["id"] ?? "");
        return { status: 204 };
      },
    ),
  ];
}

function namespaceOf(parameters: Parameters): string {
  return parameters["ns"] ?? "";
}

interface Choice {
  readonly function?: string | undefined;
  readonly code?: string | undefined;
  readonly since?: string | undefined;
  readonly before?: string | undefined;
}

function choiceOf(parameters: Parameters, { function: name, code, since, before }: Choice): DeadLetterChoice {
  const sinceMs = schemas.timeMs(since);
  const beforeMs = schemas.timeMs(before);
  return {
    ...(name === undefined ? {} : { ref: refWithin(namespaceOf(parameters), name) }),
    ...(code === undefined ? {} : { code }),
    ...(sinceMs === undefined ? {} : { sinceMs }),
    ...(beforeMs === undefined ? {} : { beforeMs }),
  };
}

function deadLetterView(letter: DeadLetterHead): DeadLetterView {
  const { id, lane, enqueuedAtMs, attempts, reason, code, atMs } = letter;
  const { key, deliveries } = functionOfLane(lane);
  const [namespace = "", packageName = "", name = ""] = key.split("/");
  return {
    id,
    namespace,
    package: packageName,
    name,
    kind: deliveries ? "delivery" : "invocation",
    attempts,
    reason,
    code,
    acceptedAt: rfc3339(enqueuedAtMs),
    diedAt: rfc3339(atMs),
  };
}

function deadLetterDetailView(letter: DeadLetterDetail): DeadLetterDetailView {
  const { head, body, history } = letter;
  const text = body.toString("utf8");
  const isText = Buffer.from(text).equals(body);
  const event = {
    ...(head.kind === "delivery"
      ? { destination: head.destination, activationId: head.activationId, contentType: "application/cloudevents+json" }
      : head.call.kind === "event"
        ? { contentType: head.call.contentType }
        : { method: head.call.method, url: head.call.url, contentType: typeOf(head.call.headers) }),
    ...(isText ? { body: text } : { bodyBase64: body.toString("base64") }),
  };
  return { ...deadLetterView(letter), event, history: history.map(attemptView) };
}

function typeOf(headers: readonly string[]): string {
  const at = headers.findIndex((name, index) => index % 2 === 0 && name.toLowerCase() === "content-type");
  return at < 0 ? "application/octet-stream" : (headers[at + 1] ?? "");
}
