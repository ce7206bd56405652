import { KoineError, toKoineError } from "../../core/errors.ts";
import { DEFAULT_NAMESPACE, type FunctionRef, type Version } from "../../core/function.ts";
import { type Call, type Invocation, mayInvoke } from "../../core/invocation.ts";
import type { Limits } from "../../core/limits.ts";
import type { Platform } from "../../platform/platform.ts";
import type { GatewayRequest } from "../dialect.ts";
import { respondError, respondJson } from "../respond.ts";
import { decodeSegment, refWithin } from "./address.ts";
import { HttpResponder } from "./http-responder.ts";

const EMPTY = Buffer.alloc(0);
const REFS_MAX = 10_000;

/** Calls of functions over HTTP: `/fn/NAME[:qualifier]/path` and `/ns/NS/fn/NAME[:qualifier]/path`. */
export class Calls {
  readonly #platform: Platform;
  readonly #limits: Limits;
  readonly #refs = new Map<string, FunctionRef>();

  constructor(platform: Platform) {
    this.#platform = platform;
    this.#limits = platform.parts.limits;
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
    const baseEnd = slash < 0 ? path.length : slash;
    const ref = this.#ref(path.slice(0, baseEnd), namespace, path.slice(nameAt, baseEnd));
    const { incoming } = request;
    const call: Call = {
      kind: "http",
      method: incoming.method ?? "GET",
      url: (slash < 0 ? "/" : path.slice(slash)) + request.query,
      headers: withoutCredentials(incoming.rawHeaders, request),
      basePath: path.slice(0, baseEnd),
      origin: `http://${incoming.headers.host ?? "localhost"}`,
      remoteAddress: incoming.socket.remoteAddress ?? "",
    };
    const prefer = incoming.headers["prefer"];
    const later =
      typeof prefer === "string" && prefer.split(/[;,]/).some((part) => part.trim().toLowerCase() === "respond-async");
    this.start(request, ref, { call, later });
    return true;
  }

  /** Begins an invocation with the request's body and answers it on the request's response. */
  start(request: GatewayRequest, ref: FunctionRef, how: { readonly call: Call; readonly later: boolean }): void {
    const version = this.#platform.resolve(ref);
    if (!mayInvoke(request.caller, version.spec.access, ref.namespace)) {
      if (request.caller === null) throw new KoineError("unauthorized");
      throw new KoineError("forbidden", {
        detail: `'${request.caller.subject}' may not invoke functions of namespace '${ref.namespace}'`,
      });
    }
    const { incoming } = request;
    const length = Number(incoming.headers["content-length"] ?? 0);
    const limit = how.later ? this.#limits.asyncBodyBytesMax : this.#limits.requestBodyBytesMax;
    if (length > limit) throw new KoineError("payload-too-large", { what: "an invocation", limit });
    const invocation: Invocation = {
      id: request.id,
      ref,
      call: how.call,
      mode: how.later ? "async" : "sync",
      attempt: 1,
      receivedAtMs: request.receivedAtMs,
      body: EMPTY,
      bodyComplete: true,
    };
    const chunked = incoming.headers["transfer-encoding"] !== undefined;
    if (how.later) this.#gather(request, limit, (body) => this.#accept(request, { ...invocation, body }));
    else if (length === 0 && !chunked) this.#run(request, version, invocation);
    else if (!chunked && length <= this.#limits.inlineBodyBytesMax) {
      this.#gather(request, limit, (body) => this.#run(request, version, { ...invocation, body }));
    } else this.#runStreaming(request, version, { ...invocation, bodyComplete: false });
  }

  #run(request: GatewayRequest, version: Version, invocation: Invocation): HttpResponder {
    const responder = new HttpResponder(request.response, request.id, version.number);
    responder.exchange = this.#platform.invoke(invocation, version, responder);
    return responder;
  }

  #runStreaming(request: GatewayRequest, version: Version, invocation: Invocation): void {
    const { incoming } = request;
    incoming.pause();
    const responder = this.#run(request, version, invocation);
    const { exchange } = responder;
    let bytes = 0;
    let answered = false;
    // What a function leaves unread must still be taken from the connection, or the next request on it would wait for ever.
    request.response.once("finish", () => {
      answered = true;
      incoming.resume();
    });
    responder.onDrained = () => incoming.resume();
    incoming.on("data", (chunk: Buffer) => {
      bytes += chunk.length;
      if (answered) {
        if (bytes > this.#limits.requestBodyBytesMax) incoming.destroy();
      } else if (bytes > this.#limits.requestBodyBytesMax) {
        responder.refuse(
          new KoineError("payload-too-large", { what: "an invocation", limit: this.#limits.requestBodyBytesMax }),
        );
      } else if (exchange?.write(chunk) === false) incoming.pause();
    });
    incoming.on("end", () => exchange?.end());
    incoming.on("error", () => exchange?.cancel());
    incoming.resume();
  }

  /** Collects a body up to a limit, then goes on; a client that leaves in between has started nothing. */
  #gather(request: GatewayRequest, limit: number, then: (body: Buffer) => void): void {
    const { incoming, response, id } = request;
    const chunks: Buffer[] = [];
    let bytes = 0;
    incoming.on("data", (chunk: Buffer) => {
      bytes += chunk.length;
      if (bytes <= limit) chunks.push(chunk);
      else if (!response.headersSent) {
        chunks.length = 0;
        respondError(response, id, new KoineError("payload-too-large", { what: "an invocation", limit }));
      }
    });
    incoming.on("end", () => {
      if (bytes > limit) return;
      try {
        then(chunks.length === 1 && chunks[0] !== undefined ? chunks[0] : Buffer.concat(chunks));
      } catch (thrown) {
        respondError(response, id, toKoineError(thrown));
      }
    });
  }

  #accept(request: GatewayRequest, invocation: Invocation): void {
    const { response, id } = request;
    const answered = this.#platform.enqueue(invocation).then(
      () => {
        const location = `/v1/namespaces/${invocation.ref.namespace}/activations/${id}`;
        const headers = ["Location", location, "Preference-Applied", "respond-async"];
        respondJson(response, id, { status: 202, body: { activationId: id }, headers });
      },
      (thrown: unknown) => respondError(response, id, toKoineError(thrown)),
    );
    this.#platform.parts.supervise("accept an asynchronous invocation", answered);
  }

  /** Parsed once per address; the table is small and bounded. */
  #ref(address: string, namespace: string, name: string): FunctionRef {
    const known = this.#refs.get(address);
    if (known !== undefined) return known;
    const ref = refWithin(decodeSegment(namespace), decodeSegment(name));
    if (this.#refs.size >= REFS_MAX) this.#refs.clear();
    this.#refs.set(address, ref);
    return ref;
  }
}

/** The platform's own token is not the function's business. */
function withoutCredentials(headers: readonly string[], request: GatewayRequest): readonly string[] {
  if (
    request.caller === null ||
    request.incoming.headers.authorization === undefined ||
    request.caller.subject === "local"
  )
    return headers;
  const kept: string[] = [];
  for (let index = 0; index + 1 < headers.length; index += 2) {
    if (headers[index]?.toLowerCase() !== "authorization") kept.push(headers[index] ?? "", headers[index + 1] ?? "");
  }
  return kept;
}
