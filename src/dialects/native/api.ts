import { Readable } from "node:stream";
import type { CodeView, EngineView, FunctionView, Page } from "../../core/api.ts";
import { KoineError } from "../../core/errors.ts";
import type { FunctionRef } from "../../core/function.ts";
import { isId } from "../../core/ids.ts";
import type { Platform } from "../../platform/platform.ts";
import type { Calls } from "./calls.ts";
import { deployAction, logsAction, resultAction } from "./actions.ts";
import { refOf, refWithin } from "./address.ts";
import { deadLetterRoutes } from "./dead-letters.ts";
import { AnswerHeads } from "../http-responder.ts";
import { piecesOf } from "../request-body.ts";
import { route, type Route, type RouteAnswer } from "./router.ts";
import * as schemas from "./schemas.ts";
import { triggerRoutes } from "./triggers.ts";
import {
  activationView,
  aliasView,
  functionView,
  logView,
  rfc3339,
  runView,
  secretView,
  versionView,
} from "./views.ts";

/** What the API tells about the platform as a whole; `compose.ts` knows it. */
export interface PlatformFacts {
  readonly version: string;
  readonly startedAtMs: number;
  readonly dataDirectory: string;
  readonly sandbox: string;
  readonly authentication: boolean;
  readonly memoryBudgetBytes: number;
  engines(): readonly EngineView[];
  doctor(): Promise<
    readonly { readonly ability: string; readonly holds: boolean; readonly detail: string; readonly remedy: string }[]
  >;
}

const FN = "/v1/namespaces/{ns}/functions/{fn}";

/** Every operation of the management API. */
export function apiRoutes(platform: Platform, calls: Calls, facts: PlatformFacts): readonly Route[] {
  return [
    ...platformRoutes(platform, facts),
    ...functionRoutes(platform, calls),
    ...versionRoutes(platform),
    ...historyRoutes(platform),
    ...deadLetterRoutes(platform),
    ...secretRoutes(platform),
    ...triggerRoutes(platform),
  ];
}

function platformRoutes(platform: Platform, facts: PlatformFacts): readonly Route[] {
  const { engine, catalogue, packages, store, runtimes, models, clock } = platform.parts;
  return [
    route(
      "GET /v1/status",
      {
        right: "read",
        acrossNamespaces: true,
        summary: "What the platform is and does now.",
        answers: "PlatformStatus",
      },
      async () => {
        const { waiting, leased, dead } = await store.queue.state(clock.nowMs());
        const { version, dataDirectory, sandbox, authentication } = facts;
        const body = {
          version,
          startedAt: rfc3339(facts.startedAtMs),
          dataDirectory,
          sandbox,
          authentication,
          functions: catalogue.size,
          instances: engine.counts(),
          spares: engine.spares(),
          memory: { usedBytes: engine.memoryBytes, budgetBytes: facts.memoryBudgetBytes },
          queue: { waiting, leased, dead },
          engines: facts.engines(),
        };
        return { status: 200, body };
      },
    ),
    route(
      "GET /v1/doctor",
      {
        right: "read",
        acrossNamespaces: true,
        summary: "What the machine offers for isolation.",
        answers: "DoctorReport",
      },
      async () => ({ status: 200, body: { sandbox: facts.sandbox, facts: await facts.doctor() } }),
    ),
    route("GET /v1/runtimes", { right: "read", summary: "The runtimes.", answers: "Page<RuntimeView>" }, async () => {
      const items = [...runtimes.values()].map(({ name, language }) => ({
        name,
        language,
        handlerModels: models(language),
        version: null,
      }));
      return { status: 200, body: { items, next: null } };
    }),
    route(
      "HEAD /v1/code/{digest}",
      { right: "write", summary: "Whether a code package is there.", answers: "Nothing." },
      async ({ parameters }) => ({ status: (await packages.has(parameters["digest"] ?? "")) ? 200 : 404 }),
    ),
    route(
      "POST /v1/code",
      { right: "write", summary: "Uploads a code package: a zip archive as the body.", answers: "CodeView" },
      async ({ request, signal }) => {
        const type = request.headers.get("content-type") ?? "application/zip";
        if (!/^application\/(?:zip|octet-stream|x-zip-compressed)\b/i.test(type)) {
          throw new KoineError("unsupported-media-type", { type, expected: "application/zip" });
        }
        const body: CodeView = await packages.receive(Readable.from(piecesOf(request.body)), signal);
        return { status: 201, body };
      },
    ),
  ];
}

function functionRoutes(platform: Platform, calls: Calls): readonly Route[] {
  const { catalogue } = platform.parts;
  return [
    route(
      "GET /v1/namespaces/{ns}/functions",
      { right: "read", summary: "Lists functions.", answers: "Page<FunctionView>", query: schemas.pageQuery },
      async ({ parameters, query }) => {
        const after = query.after === undefined ? {} : { after: query.after };
        const records = catalogue.list(parameters["ns"] ?? "", { ...after, limit: query.limit + 1 });
        const items = records.slice(0, query.limit).map((record) => functionView(platform, record));
        const last = records.length > query.limit ? items.at(-1) : undefined;
        const body: Page<FunctionView> = { items, next: last === undefined ? null : `${last.package}/${last.name}` };
        return { status: 200, body };
      },
    ),
    route(
      `PUT ${FN}`,
      {
        right: "write",
        summary: "Deploys a function: a new version of it.",
        answers: "DeployResult",
        body: schemas.deployRequest,
      },
      (input) => deployAction(platform, input),
    ),
    route(
      `GET ${FN}`,
      { right: "read", summary: "Shows a function.", answers: "FunctionView" },
      async ({ parameters }) => ({ status: 200, body: functionView(platform, catalogue.record(refOf(parameters))) }),
    ),
    route(
      `DELETE ${FN}`,
      { right: "write", summary: "Deletes a function with its versions and aliases.", answers: "Nothing." },
      async ({ parameters }) => {
        await platform.deleteFunction(refOf(parameters));
        return { status: 204 };
      },
    ),
    route(
      `POST ${FN}/invoke`,
      {
        right: "invoke",
        summary: "Hands the body to the handler as an event.",
        answers: "The result.",
        query: schemas.invokeQuery,
      },
      async ({ request, parameters, query }) => {
        const ref = { ...refOf(parameters), ...(query.qualifier === undefined ? {} : { qualifier: query.qualifier }) };
        const contentType = request.headers.get("content-type") ?? "application/json";
        const target = { ref, heads: new AnswerHeads() };
        calls.start(request, target, { call: { kind: "event", contentType }, later: query.mode === "async" });
        return null;
      },
    ),
  ];
}

function versionRoutes(platform: Platform): readonly Route[] {
  const { catalogue } = platform.parts;
  const show = (ref: FunctionRef): RouteAnswer => ({
    status: 200,
    body: functionView(platform, catalogue.record(ref)),
  });
  return [
    route(
      `GET ${FN}/versions`,
      { right: "read", summary: "Lists versions, newest first.", answers: "Page<VersionView>" },
      async ({ parameters }) => {
        const record = catalogue.record(refOf(parameters));
        return {
          status: 200,
          body: { items: catalogue.versions(record).map((version) => versionView(record, version)), next: null },
        };
      },
    ),
    route(
      `POST ${FN}/publish`,
      { right: "write", summary: "Makes a version live.", answers: "FunctionView", body: schemas.publishRequest },
      async ({ parameters, body }) => {
        await platform.publish(refOf(parameters), body.version);
        return show(refOf(parameters));
      },
    ),
    route(
      `POST ${FN}/rollback`,
      {
        right: "write",
        summary: "Returns to the version before.",
        answers: "FunctionView",
        body: schemas.rollbackRequest,
      },
      async ({ parameters, body }) => {
        await platform.rollback(refOf(parameters), body.version);
        return show(refOf(parameters));
      },
    ),
    route(
      `GET ${FN}/aliases`,
      { right: "read", summary: "Lists aliases.", answers: "Page<AliasView>" },
      async ({ parameters }) => {
        return { status: 200, body: { items: catalogue.record(refOf(parameters)).aliases.map(aliasView), next: null } };
      },
    ),
    route(
      `PUT ${FN}/aliases/{alias}`,
      { right: "write", summary: "Points an alias to a version.", answers: "AliasView", body: schemas.aliasRequest },
      async ({ parameters, body }) => {
        const { version, additional } = body;
        const target = additional === undefined ? { version } : { version, additional };
        const alias = await platform.putAlias(refOf(parameters), parameters["alias"] ?? "", target);
        return { status: 200, body: aliasView(alias) };
      },
    ),
    route(
      `DELETE ${FN}/aliases/{alias}`,
      { right: "write", summary: "Deletes an alias.", answers: "Nothing." },
      async ({ parameters }) => {
        await platform.deleteAlias(refOf(parameters), parameters["alias"] ?? "");
        return { status: 204 };
      },
    ),
  ];
}

function historyRoutes(platform: Platform): readonly Route[] {
  const ACTIVATION = "/v1/namespaces/{ns}/activations/{id}";
  return [
    route(
      `GET ${FN}/logs`,
      {
        right: "read",
        summary: "Log lines, stored or as they come.",
        answers: "Page<LogView>, or server-sent events",
        query: schemas.logQuery,
      },
      (input) => logsAction(platform, input),
    ),
    route(
      "GET /v1/namespaces/{ns}/activations",
      {
        right: "read",
        summary: "Invocations, newest first.",
        answers: "Page<ActivationView>",
        query: schemas.activationQuery,
      },
      async ({ parameters, query }) => {
        const ref = query.function === undefined ? null : refWithin(parameters["ns"] ?? "", query.function);
        const sinceMs = schemas.timeMs(query.since);
        const beforeMs = schemas.timeMs(query.before);
        const found = await platform.activations({
          namespace: parameters["ns"] ?? "",
          ...(ref === null ? {} : { package: ref.package, name: ref.name }),
          ...(query.state === undefined ? {} : { state: query.state }),
          ...(sinceMs === undefined ? {} : { sinceMs }),
          ...(beforeMs === undefined ? {} : { beforeMs }),
          ...(query.after === undefined ? {} : { after: query.after }),
          limit: query.limit + 1,
        });
        const items = found.slice(0, query.limit).map(activationView);
        return { status: 200, body: { items, next: found.length > query.limit ? (items.at(-1)?.id ?? null) : null } };
      },
    ),
    route(
      `GET ${ACTIVATION}`,
      { right: "read", summary: "One invocation, with its attempts.", answers: "RunView" },
      async ({ parameters }) => {
        const { activation, state } = await platform.run(parameters["ns"] ?? "", parameters["id"] ?? "");
        return { status: 200, body: runView(activation, state) };
      },
    ),
    route(
      `POST ${ACTIVATION}/cancel`,
      { right: "invoke", summary: "Ends an invocation that waits or runs.", answers: "Nothing." },
      async ({ parameters }) => {
        await platform.cancel(parameters["ns"] ?? "", parameters["id"] ?? "");
        return { status: 204 };
      },
    ),
    route(
      `POST ${ACTIVATION}/replay`,
      { right: "invoke", summary: "Runs a dead letter again, under its id.", answers: "InvokeAccepted" },
      async ({ parameters }) => {
        const id = parameters["id"] ?? "";
        await platform.replay(parameters["ns"] ?? "", id);
        return { status: 202, body: { activationId: id } };
      },
    ),
    route(
      `GET ${ACTIVATION}/logs`,
      { right: "read", summary: "Log lines of one invocation.", answers: "Page<LogView>" },
      async ({ parameters }) => {
        const id = parameters["id"] ?? "";
        // One that runs has lines, but no record yet: only what can be no id at all is refused.
        if (!isId(id)) throw new KoineError("activation-not-found", { id });
        const lines = await platform.logs({ namespace: parameters["ns"] ?? "", activationId: id, limit: 10_000 });
        return { status: 200, body: { items: lines.map(logView), next: null } };
      },
    ),
    route(
      `GET ${ACTIVATION}/result`,
      { right: "read", summary: "Answer of an asynchronous invocation.", answers: "The result." },
      (input) => resultAction(platform, input),
    ),
  ];
}

function secretRoutes(platform: Platform): readonly Route[] {
  return [
    route(
      "GET /v1/namespaces/{ns}/secrets",
      { right: "read", summary: "Names of secrets.", answers: "Page<SecretView>", query: schemas.pageQuery },
      async ({ parameters, query }) => {
        const after = query.after === undefined ? {} : { after: query.after };
        const found = await platform.parts.secrets.list(parameters["ns"] ?? "", { ...after, limit: query.limit + 1 });
        const items = found.slice(0, query.limit).map(secretView);
        return { status: 200, body: { items, next: found.length > query.limit ? (items.at(-1)?.name ?? null) : null } };
      },
    ),
    route(
      "PUT /v1/namespaces/{ns}/secrets/{name}",
      { right: "write", summary: "Sets a secret.", answers: "SecretView", body: schemas.secretRequest },
      async ({ parameters, body }) => {
        const { created, entry } = await platform.putSecret(
          parameters["ns"] ?? "",
          parameters["name"] ?? "",
          body.value,
        );
        return { status: created ? 201 : 200, body: secretView(entry) };
      },
    ),
    route(
      "DELETE /v1/namespaces/{ns}/secrets/{name}",
      { right: "write", summary: "Deletes a secret.", answers: "Nothing." },
      async ({ parameters }) => {
        await platform.deleteSecret(parameters["ns"] ?? "", parameters["name"] ?? "");
        return { status: 204 };
      },
    ),
  ];
}
