import type { InvokeAccepted } from "../../core/api.ts";
import { KoineError, toKoineError } from "../../core/errors.ts";
import { DEFAULT_NAMESPACE, type FunctionRef, isNearPlatform, type Version } from "../../core/function.ts";
import { type Call, type Caller, type Invocation, mayInvoke } from "../../core/invocation.ts";
import type { Limits } from "../../core/limits.ts";
import type { Platform } from "../../platform/platform.ts";
import type { BodyReader, CallDialect, GatewayRequest } from "../dialect.ts";
import type { RequestHeaders } from "../request-headers.ts";
import { wholeOf } from "../request-body.ts";
import { respondError, respondJson } from "../respond.ts";
import { decodeSegment, refWithin } from "./address.ts";
import { enqueueOptionsOf } from "./enqueue-options.ts";
import { AnswerHeads, HttpResponder } from "../http-responder.ts";

const EMPTY = Buffer.alloc(0);
const TARGETS_MAX = 10_000;

/** What an address stands for. */
export interface Target {
  readonly ref: FunctionRef;
  readonly heads: AnswerHeads;
}

/** How an invocation is to be run. */
interface Manner {
  readonly call: Call;
  readonly later: boolean;
}

/** What calls need of the platform; every engine has it. */
export interface CallsPlatform extends Pick<Platform, "resolve" | "invoke" | "enqueue"> {
  readonly parts: Pick<Platform["parts"], "limits" | "supervise">;
}

/** Calls of functions over HTTP: `/fn/NAME[:qualifier]/path` and `/ns/NS/fn/NAME[:qualifier]/path`. */
export class Calls implements CallDialect {
  readonly #platform: CallsPlatform;
  readonly #limits: Limits;
  readonly #targets = new Map<string, Target>();
  readonly #elsewhere: (request: GatewayRequest) => boolean;

  /** @param elsewhere tells requests to hosts of other dialects, whatever their paths are */
  constructor(platform: CallsPlatform, elsewhere: (request: GatewayRequest) => boolean = () => false) {
    this.#platform = platform;
    this.#elsewhere = elsewhere;
    this.#limits = platform.parts.limits;
  }

  /** Calls that are answered later are the queue's, and what may ask the platform from inside runs where the platform is. */
  covers(request: GatewayRequest): boolean {
    const { path, headers } = request;
    if (!path.startsWith("/fn/") && !(path.startsWith("/ns/") && path.includes("/fn/", 4))) return false;
    if (this.#elsewhere(request)) return false;
    return !prefersLater(headers.get("prefer")) && !this.#asksFromInside(path);
  }

  #asksFromInside(path: string): boolean {
    const nameAt = path.startsWith("/fn/") ? 4 : path.indexOf("/fn/", 4) + 4;
    const namespace = nameAt === 4 ? DEFAULT_NAMESPACE : path.slice(4, nameAt - 4);
    const slash = path.indexOf("/", nameAt);
    try {
      const { ref } = this.#target(slash < 0 ? path : path.slice(0, slash), namespace, nameAt);
      return isNearPlatform(this.#platform.resolve(ref).spec);
    } catch {
      // Whoever answers says what is wrong.
      return false;
    }
  }

  /** Answers false for paths that are not calls. */
  handle(request: GatewayRequest): boolean {
    const { path } = request;
    let nameAt: number;
    let namespace = DEFAULT_NAMESPACE;
    if (path.startsWith("/fn/")) {
      nameAt = 4;
    } else if (path.startsWith("/ns/")) {
      const end = path.indexOf("/fn/", 4);
      if (end < 0) return false;
      namespace = path.slice(4, end);
      nameAt = end + 4;
    } else {
      return false;
    }
    const slash = path.indexOf("/", nameAt);
    const basePath = slash < 0 ? path : path.slice(0, slash);
    const target = this.#target(basePath, namespace, nameAt);
    const headers = headersFor(request);
    const later = prefersLater(request.headers.get("prefer"));
    const call: Call = {
      kind: "http",
      method: request.method,
      url: (slash < 0 ? "/" : path.slice(slash)) + request.query,
      headers: headers.raw,
      headersJson: later ? undefined : headers.json,
      basePath,
      origin: headers.origin,
      remoteAddress: request.remoteAddress,
      upgrade: later ? undefined : request.upgrade,
    };
    this.start(request, target, { call, later });
    return true;
  }

  /** Begins an invocation with the request's body and answers it on the request's response. */
  start(request: GatewayRequest, target: Target, manner: Manner): void {
    const { ref } = target;
    const version = this.#resolve(request.caller, ref);
    const { body } = request;
    const length = body.lengthBytes ?? 0;
    const limit = manner.later ? this.#limits.asyncBodyBytesMax : this.#limits.requestBodyBytesMax;
    if (length > limit) throw new KoineError("payload-too-large", { what: "an invocation", limit });
    const run = (whole: Buffer): void => {
      const invocation = toInvocation(request, ref, { manner, body: whole });
      if (manner.later) this.#accept(request, invocation);
      else this.#run(request, version, { invocation, heads: target.heads });
    };
    // Handlers of ours answer such requests like any; a program of the user's may switch.
    if (request.upgrade !== undefined && !manner.later && version.spec.protocol !== undefined)
      this.#runStreaming(request, version, { target, manner });
    else if (body.whole !== null) run(body.whole);
    else if (manner.later || (body.lengthBytes !== null && length <= this.#limits.inlineBodyBytesMax))
      this.#gather(request, limit, run);
    else this.#runStreaming(request, version, { target, manner });
  }

  #run(
    request: GatewayRequest,
    version: Version,
    what: { readonly invocation: Invocation; readonly heads: AnswerHeads },
  ): HttpResponder {
    const responder = new HttpResponder(request, version.number, what.heads);
    responder.exchange = this.#platform.invoke(what.invocation, version, responder);
    return responder;
  }

  #runStreaming(
    request: GatewayRequest,
    version: Version,
    { target, manner }: { readonly target: Target; readonly manner: Manner },
  ): void {
    const { body } = request;
    const limit = this.#limits.requestBodyBytesMax;
    const invocation = toInvocation(request, target.ref, { manner, body: null });
    const responder = this.#run(request, version, { invocation, heads: target.heads });
    const { exchange } = responder;
    responder.onDrained = () => body.resume();
    let bytes = 0;
    const reader: BodyReader = {
      piece: (chunk) => {
        bytes += chunk.length;
        if (bytes > limit && request.upgrade === undefined)
          responder.refuse(new KoineError("payload-too-large", { what: "an invocation", limit }));
        else if (exchange?.write(chunk) === false) body.pause();
      },
      completed: () => exchange?.end(),
      cut: () => exchange?.cancel(),
    };
    if (request.upgrade === undefined) body.read(reader);
    else responder.onSwitched = () => body.read(reader);
  }

  /** Collects a body up to a limit, then goes on; a client that leaves in between has started nothing. */
  #gather(request: GatewayRequest, limit: number, then: (body: Buffer) => void): void {
    const gathered = wholeOf(request.body, limit, "an invocation")
      .then(then)
      .catch((thrown: unknown) => respondError(request, toKoineError(thrown)));
    this.#platform.parts.supervise("gather the body of an invocation", gathered);
  }

  #accept(request: GatewayRequest, invocation: Invocation): void {
    const options = enqueueOptionsOf(request.headers, request.receivedAtMs);
    const answered = this.#platform.enqueue(invocation, options).then(
      ({ activationId: id, duplicate }) => {
        const location = `/v1/namespaces/${invocation.ref.namespace}/activations/${id}`;
        const headers = ["Location", location, "Preference-Applied", "respond-async"];
        const body: InvokeAccepted = { activationId: id, ...(duplicate ? { duplicate } : {}) };
        respondJson(request, { status: 202, body, headers });
      },
      (thrown: unknown) => respondError(request, toKoineError(thrown)),
    );
    this.#platform.parts.supervise("accept an asynchronous invocation", answered);
  }

  /** Who may not invoke a function does not learn whether there is one. */
  #resolve(caller: Caller | null, ref: FunctionRef): Version {
    if (mayInvoke(caller, "token", ref.namespace)) return this.#platform.resolve(ref);
    try {
      const version = this.#platform.resolve(ref);
      if (version.spec.access === "public") return version;
    } catch (thrown) {
      if (toKoineError(thrown).fault !== "caller") throw thrown;
    }
    if (caller === null) throw new KoineError("unauthorized");
    const detail = `'${caller.subject}' may not invoke functions of namespace '${ref.namespace}'`;
    throw new KoineError("forbidden", { detail });
  }

  /** Parsed once per address; the table is small and bounded. */
  #target(address: string, namespace: string, nameAt: number): Target {
    const known = this.#targets.get(address);
    if (known !== undefined) return known;
    const ref = refWithin(decodeSegment(namespace), decodeSegment(address.slice(nameAt)));
    const target = { ref, heads: new AnswerHeads() };
    if (this.#targets.size >= TARGETS_MAX) this.#targets.clear();
    // A slice would keep the whole text alive that it was cut from.
    this.#targets.set(Buffer.from(address).toString(), target);
    return target;
  }
}

/** @param of its body is null when it follows through the exchange */
function toInvocation(
  request: GatewayRequest,
  ref: FunctionRef,
  of: { readonly manner: Manner; readonly body: Buffer | null },
): Invocation {
  return {
    id: request.id,
    ref,
    call: of.manner.call,
    mode: of.manner.later ? "async" : "sync",
    attempt: 1,
    receivedAtMs: request.receivedAtMs,
    body: of.body ?? EMPTY,
    bodyComplete: of.body !== null,
  };
}

/** Whether the client asks for an answer before the function's. */
function prefersLater(prefer: string | undefined): boolean {
  return prefer !== undefined && prefer.split(/[;,]/).some((part) => part.trim().toLowerCase() === "respond-async");
}

/** The platform's own token is not the function's business. */
function headersFor({ caller, headers }: GatewayRequest): RequestHeaders {
  return caller?.byToken === true ? headers.withoutAuthorization : headers;
}
