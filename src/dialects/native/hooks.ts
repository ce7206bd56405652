import { toKoineError, KoineError } from "../../core/errors.ts";
import type { Invocation, ResponseHead, StartKind } from "../../core/invocation.ts";
import { limits } from "../../core/limits.ts";
import type { Platform } from "../../platform/platform.ts";
import type { Hosted } from "../../platform/triggers/host.ts";
import type { RouteDecision, TriggerRequest } from "../../platform/triggers/triggers.ts";
import { AnswerHead, type GatewayRequest } from "../dialect.ts";
import { wholeOf } from "../request-body.ts";
import { respondError, respondJson } from "../respond.ts";
import { AnswerHeads, HttpResponder } from "../http-responder.ts";

/** Names and values of the path's parameters, as a form; set by the platform, never by a client. */
const PARAMETERS_HEADER = "x-koine-path-parameters";

/**
 * Requests to routes of triggers. They come before the platform asks who its caller is: senders know nothing of its tokens, and prove who they are
 * as the trigger says.
 */
export class Hooks {
  readonly #platform: Platform;

  constructor(platform: Platform) {
    this.#platform = platform;
  }

  /** Answers false for requests that are no trigger's. */
  handle(request: GatewayRequest): boolean {
    const { path, method } = request;
    const { host: triggers } = this.#platform.triggers;
    const host = (request.headers.get("host") ?? "").replace(/:[0-9]+$/, "").toLowerCase();
    if (
      !path.startsWith("/hooks/") &&
      !(path.startsWith("/ns/") && path.includes("/hooks/")) &&
      !triggers.knowsRouteHost(host)
    )
      return false;
    const match = triggers.matchRoute(host, method, path);
    if (match === null) return false;
    if (!("entry" in match)) {
      respondError(request, new KoineError("method-not-allowed", { method, path, allowed: match.join(", ") }));
      return true;
    }
    const answered = this.#answer(request, match.entry, match.parameters).catch((thrown: unknown) =>
      respondError(request, toKoineError(thrown)),
    );
    this.#platform.parts.supervise("answer the request of a trigger", answered);
    return true;
  }

  async #answer(request: GatewayRequest, hosted: Hosted, parameters: Readonly<Record<string, string>>): Promise<void> {
    const { route } = hosted;
    if (route === null) throw new KoineError("internal", { detail: "the route is not open" });
    const body = await wholeOf(request.body, limits.asyncBodyBytesMax, "the request");
    const { method, path, query, headers, remoteAddress, receivedAtMs } = request;
    const received: TriggerRequest = {
      method,
      path,
      query,
      parameters,
      header: (name) => headers.get(name),
      rawHeaders: headers.raw,
      body,
      remoteAddress,
      receivedAtMs,
    };
    await this.#follow(await route.receive(received), { request, hosted, received });
  }

  async #follow(
    decision: RouteDecision,
    {
      request,
      hosted,
      received,
    }: { readonly request: GatewayRequest; readonly hosted: Hosted; readonly received: TriggerRequest },
  ): Promise<void> {
    switch (decision.kind) {
      case "answer":
        request.response.send(new AnswerHead(decision.answer.status, decision.answer.headers), decision.answer.body);
        return;
      case "accept": {
        const accepted = await this.#platform.triggers.accept(hosted, decision.events);
        const { answer, headers = [] } = decision;
        if (answer !== undefined)
          request.response.send(new AnswerHead(answer.status, [...headers, ...answer.headers]), answer.body);
        else
          respondJson(request, {
            status: 202,
            headers,
            body: { activationIds: accepted.map(({ activationId }) => activationId) },
          });
        return;
      }
      case "call":
        this.#call(decision, { request, hosted, received });
        return;
      default:
        decision satisfies never;
    }
  }

  /** The function answers by itself; what the filter does not let through is nobody's. */
  #call(
    { event, headers = [] }: Extract<RouteDecision, { kind: "call" }>,
    {
      request,
      hosted,
      received,
    }: { readonly request: GatewayRequest; readonly hosted: Hosted; readonly received: TriggerRequest },
  ): void {
    const { trigger, matches, counts } = hosted;
    counts.add("received", 1);
    if (matches !== null && !matches(event)) {
      counts.add("filtered", 1);
      request.response.send(new AnswerHead(204, headers), null);
      return;
    }
    const version = this.#platform.resolve(trigger.target);
    const raw = [
      ...withoutParameters(received.rawHeaders),
      PARAMETERS_HEADER,
      new URLSearchParams(received.parameters).toString(),
    ];
    const invocation: Invocation = {
      id: request.id,
      ref: trigger.target,
      call: {
        kind: "http",
        method: received.method,
        url: received.path + received.query,
        headers: raw,
        basePath: "",
        origin: request.headers.origin,
        remoteAddress: received.remoteAddress,
      },
      mode: "sync",
      attempt: 1,
      receivedAtMs: received.receivedAtMs,
      body: received.body,
      bodyComplete: true,
    };
    const responder = new HookResponder(request, version.number, headers);
    responder.exchange = this.#platform.invoke(invocation, version, responder);
    counts.add("delivered", 1);
  }
}

/** Adds what the trigger says to the function's own headers. */
class HookResponder extends HttpResponder {
  readonly #added: readonly string[];

  constructor(request: GatewayRequest, version: number, added: readonly string[]) {
    super(request, version, new AnswerHeads());
    this.#added = added;
  }

  override head(head: ResponseHead, start: StartKind): void {
    super.head({ status: head.status, headers: [...head.headers, ...this.#added] }, start);
  }
}

function withoutParameters(raw: readonly string[]): readonly string[] {
  const kept: string[] = [];
  for (let index = 0; index + 1 < raw.length; index += 2)
    if ((raw[index] ?? "").toLowerCase() !== PARAMETERS_HEADER) kept.push(raw[index] ?? "", raw[index + 1] ?? "");
  return kept;
}
