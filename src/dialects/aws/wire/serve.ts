import { z } from "zod";
import { KoineError } from "../../../core/errors.ts";
import type { Caller } from "../../../core/invocation.ts";
import { limits } from "../../../core/limits.ts";
import type { Logger, Supervise } from "../../../core/telemetry.ts";
import { AnswerHead, type GatewayRequest, type ResponseListener } from "../../dialect.ts";
import { wholeOf } from "../../request-body.ts";
import { readCbor, writeCbor } from "./cbor.ts";
import { AwsError, toAwsError } from "./error.ts";
import { readForm } from "./form.ts";
import type { Identities, Policies } from "./identity.ts";
import type { CallContext, Operation, OperationAnswer, Principal, Service, ServiceProtocol } from "./service.ts";
import { readSignature, sha256, type Signature, type SignedRequest, SigningKeys, verifySignature } from "./sigv4.ts";
import { escapeXml, writeXml, type XmlValue } from "./xml.ts";

export interface ServeParts {
  readonly services: readonly Service[];
  readonly identities: Identities;
  readonly policies: Policies;
  readonly nowMs: () => number;
  readonly supervise: Supervise;
  readonly logger: Logger;
}

const DEFAULT_REGION = "us-east-1";
/** Paths of Lambda's API begin with the date of a version. */
/** Smithy's RPC protocol version 2, whose bodies are CBOR. */
const RPC_PATH = /^\/service\/([^/]+)\/operation\/([^/]+)$/;
const CBOR = "rpc-v2-cbor";
const DATED_PATH = /^\/20\d\d-\d\d-\d\d\//;

/** Which operation a request asks for, in which protocol. */
interface Asked {
  readonly service: Service;
  readonly protocol: ServiceProtocol;
  readonly operation: Operation;
  readonly input: Readonly<Record<string, unknown>>;
}

/** Takes requests of the SDKs apart, finds out who asks, runs the operation and writes the answer in the protocol of the request. */
export class AwsEndpoint {
  readonly #parts: ServeParts;
  readonly #keys = new SigningKeys();
  readonly #byTarget: ReadonlyMap<string, Service>;
  readonly #byVersion: ReadonlyMap<string, Service>;
  readonly #byName: ReadonlyMap<string, Service>;

  constructor(parts: ServeParts) {
    this.#parts = parts;
    const { services } = parts;
    this.#byName = new Map(services.map((service) => [service.name, service]));
    this.#byTarget = new Map(
      services.flatMap((service) => (service.target === null ? [] : [[service.target, service]])),
    );
    this.#byVersion = new Map(
      services.flatMap((service) => (service.queryVersion === null ? [] : [[service.queryVersion, service]])),
    );
  }

  /** Answers false for requests that no SDK of this dialect sends. Cheap: it is asked on every request that others left. */
  handle(request: GatewayRequest): boolean {
    if (!isForUs(request)) return false;
    this.#parts.supervise("answer a call of the dialect's API", this.#serve(request));
    return true;
  }

  /** Who signed a request that is no call of an API. @param of the platform's own caller, and the whole body. @throws AwsError */
  async signer(
    request: GatewayRequest,
    { caller, body }: { readonly caller: Caller | null; readonly body: Buffer },
  ): Promise<Principal> {
    const signed = signedRequest(request);
    return await this.#identify(caller, { claim: readSignature(signed), signed, body });
  }

  async #serve(request: GatewayRequest): Promise<void> {
    const gone = new Departure();
    request.response.listener = gone;
    let asked: Asked | null = null;
    try {
      const body = await wholeOf(request.body, limits.requestBodyBytesMax, "a call of the API");
      const signed = signedRequest(request);
      const claim = readSignature(signed);
      asked = this.#asked(request, claim, body);
      const principal = await this.#identify(request.caller, { claim, signed, body });
      const context: CallContext = {
        principal,
        region: claim?.region ?? DEFAULT_REGION,
        requestId: request.id,
        nowMs: this.#parts.nowMs(),
        request,
        body,
        get signal() {
          return gone.signal;
        },
      };
      const { operation } = asked;
      const input = parse(operation, asked.input);
      await this.#authorize(operation, input, context);
      const answer = await operation.run(input, context);
      if (answer !== null) respond(request, asked, answer);
    } catch (thrown) {
      if (gone.happened) return;
      const error = toAwsError(thrown);
      if (error.status >= 500)
        this.#parts.logger.log("error", "a call failed", {
          requestId: request.id,
          error: String(error.cause ?? error),
        });
      respondAwsError(request, error, asked);
    }
  }

  #asked(request: GatewayRequest, claim: Signature | null, body: Buffer): Asked {
    const query = request.query.replace(/^\?/, "");
    const parameters = new URLSearchParams(query);
    const named = claim === null ? undefined : this.#byName.get(claim.service);
    switch (protocolOf(request)) {
      case "cbor": {
        const [, shape = "", called = ""] = RPC_PATH.exec(request.path) ?? [];
        return this.#byShape(shape, called, body);
      }
      case "json":
        return this.#byTargetHeader(request.headers.get("x-amz-target") ?? "", body);
      case "query":
        return this.#byForm(isForm(request) ? `${query}&${body.toString("utf8")}` : query, {
          named,
          path: request.path,
        });
      case "rest-json":
        break;
    }
    const service =
      named ?? this.#parts.services.find((each) => each.route(request.method, request.path, parameters) !== null);
    const found = service?.route(request.method, request.path, parameters) ?? null;
    const operation = found === null ? undefined : service?.operations.get(found.operation);
    if (service === undefined || found === null || operation === undefined) {
      const what = claim === null ? "" : ` of service '${claim.service}'`;
      throw new AwsError(
        "UnknownOperationException",
        `There is no operation${what} at ${request.method} ${request.path}.`,
        {
          status: 404,
        },
      );
    }
    const input = { ...queryMembers(query), ...jsonMembers(request, body), ...found.parameters };
    return { service, protocol: "rest-json", operation, input };
  }

  #byTargetHeader(target: string, body: Buffer): Asked {
    const dot = target.lastIndexOf(".");
    const service = this.#byTarget.get(target.slice(0, dot));
    const operation = service?.operations.get(target.slice(dot + 1));
    if (service === undefined || operation === undefined)
      throw new AwsError("UnknownOperationException", `There is no operation '${target}'.`, { status: 400 });
    return { service, protocol: "json", operation, input: parseJson(body) };
  }

  #byShape(shape: string, called: string, body: Buffer): Asked {
    const service = this.#byTarget.get(shape);
    const operation = service?.operations.get(called);
    if (service === undefined || operation === undefined || !service.protocols.includes("cbor"))
      throw new AwsError("UnknownOperationException", `There is no operation '${shape}.${called}'.`, { status: 404 });
    return { service, protocol: "cbor", operation, input: readCbor(body) };
  }

  #byForm(text: string, { named, path }: { readonly named: Service | undefined; readonly path: string }): Asked {
    const form = readForm(text);
    const version = typeof form["Version"] === "string" ? form["Version"] : "";
    const service = this.#byVersion.get(version) ?? named;
    const name = typeof form["Action"] === "string" ? form["Action"] : "";
    const operation = service?.operations.get(name);
    if (service === undefined || operation === undefined)
      throw new AwsError("InvalidAction", `The action ${name} is not valid for this endpoint.`, { status: 400 });
    const { Action: _action, Version: _version, ...given } = form;
    return { service, protocol: "query", operation, input: service.fromForm?.(given, path) ?? given };
  }

  async #identify(
    caller: Caller | null,
    {
      claim,
      signed,
      body,
    }: { readonly claim: Signature | null; readonly signed: SignedRequest; readonly body: Buffer },
  ): Promise<Principal> {
    const { identities, nowMs } = this.#parts;
    const isLocal = caller !== null && !caller.byToken;
    if (claim === null) {
      if ((isLocal && !identities.configured) || isOperator(caller)) return identities.local(null);
      throw new AwsError("MissingAuthenticationToken", "The request must be signed with an access key.", {
        status: 403,
      });
    }
    const holder = await identities.find(claim.accessKeyId, claim.sessionToken);
    if (holder === null) {
      if (isLocal && !identities.configured) return identities.local(claim.accessKeyId);
      throw new AwsError("UnrecognizedClientException", "The security token included in the request is invalid.", {
        status: 403,
      });
    }
    verifySignature(claim, signed, {
      secretAccessKey: holder.secretAccessKey,
      bodyDigest: sha256(body),
      keys: this.#keys,
      nowMs: nowMs(),
    });
    return holder.principal;
  }

  async #authorize(operation: Operation, input: unknown, context: CallContext): Promise<void> {
    if (operation.action === null) return;
    const refusal = await this.#parts.policies.refusal({
      principal: context.principal,
      action: operation.action,
      resource: operation.resource(input, context),
      conditions: { "aws:PrincipalArn": context.principal.arn, "aws:PrincipalAccount": context.principal.accountId },
    });
    if (refusal !== null) throw new AwsError("AccessDeniedException", refusal, { status: 403 });
  }
}

/** That the client left; as a signal for those who ask for one, which most calls do not. */
class Departure implements ResponseListener {
  happened = false;
  #controller: AbortController | null = null;

  get signal(): AbortSignal {
    if (this.#controller === null) {
      this.#controller = new AbortController();
      if (this.happened) this.#controller.abort();
    }
    return this.#controller.signal;
  }

  flowed(): void {}

  left(): void {
    this.happened = true;
    this.#controller?.abort();
  }
}

/** Whoever holds a token that opens everything may also act as root, unsigned: how else would the first access key be made where there are tokens? */
function isOperator(caller: Caller | null): boolean {
  return caller !== null && caller.byToken && caller.namespace === null && caller.rights.has("write");
}

function isForUs(request: GatewayRequest): boolean {
  const { headers, path } = request;
  return (
    DATED_PATH.test(path) ||
    headers.get("authorization")?.startsWith("AWS4-HMAC-SHA256") === true ||
    headers.get("x-amz-target") !== undefined ||
    request.query.includes("X-Amz-Algorithm=") ||
    (request.method === "POST" &&
      headers.get("content-type")?.startsWith("application/x-www-form-urlencoded") === true &&
      /^\/(?:\d{12}\/[^/]+)?$/.test(path))
  );
}

/** In which protocol a request speaks. Its content type counts last: tools send that of a form when nobody says another. */
function protocolOf(request: GatewayRequest): ServiceProtocol {
  const { path, headers, method, query } = request;
  if (RPC_PATH.test(path)) return "cbor";
  if (headers.get("x-amz-target") !== undefined) return "json";
  if (DATED_PATH.test(path)) return "rest-json";
  const isQuery = isForm(request) || (method === "GET" && new URLSearchParams(query).has("Action"));
  return isQuery ? "query" : "rest-json";
}

function isForm({ headers }: GatewayRequest): boolean {
  return headers.get("content-type")?.startsWith("application/x-www-form-urlencoded") === true;
}

function signedRequest(request: GatewayRequest): SignedRequest {
  const { method, path, query, headers } = request;
  return { method, path, query: query.replace(/^\?/, ""), header: (name) => headers.get(name) };
}

/** Members that travel in the query; a name that stands there more than once is a list. */
function queryMembers(query: string): Record<string, unknown> {
  const members: Record<string, unknown> = {};
  const parameters = new URLSearchParams(query);
  for (const name of new Set(parameters.keys())) {
    if (name.startsWith("X-Amz-")) continue;
    const all = parameters.getAll(name);
    members[name] = all.length === 1 ? all[0] : all;
  }
  return members;
}

/** A body that is JSON; of operations with raw payloads it is left alone, whatever it claims to be. */
function jsonMembers(request: GatewayRequest, body: Buffer): Record<string, unknown> {
  if (body.length === 0 || /\/(?:invocations|invoke-async\/?|response-streaming-invocations)$/.test(request.path))
    return {};
  return parseJson(body);
}

function parseJson(body: Buffer): Record<string, unknown> {
  if (body.length === 0) return {};
  try {
    const parsed: unknown = JSON.parse(body.toString("utf8"));
    if (typeof parsed === "object" && parsed !== null && !Array.isArray(parsed))
      return parsed as Record<string, unknown>;
  } catch {
    // Told below.
  }
  throw new AwsError("SerializationException", "The body is not a JSON object.");
}

function parse(operation: Operation, input: Readonly<Record<string, unknown>>): unknown {
  const parsed = operation.input.safeParse(input);
  if (parsed.success) return parsed.data;
  const problems = parsed.error.issues.map(
    (issue) => `Value at '${issue.path.join(".") || operation.name}' failed to satisfy constraint: ${issue.message}`,
  );
  const count = `${problems.length} validation error${problems.length === 1 ? "" : "s"} detected`;
  const cause = new KoineError("invalid-request", { detail: z.prettifyError(parsed.error) });
  throw new AwsError("ValidationException", `${count}: ${problems.join("; ")}`, { cause });
}

const REQUEST_ID = "x-amzn-RequestId";

function respond(
  request: GatewayRequest,
  { service, protocol, operation }: Asked,
  answer: NonNullable<OperationAnswer>,
): void {
  const { status = 200, body, headers = [] } = answer;
  const sent = [...headers, REQUEST_ID, request.id];
  switch (protocol) {
    case "rest-json":
      request.response.send(
        new AnswerHead(status, body === null ? sent : [...sent, "Content-Type", "application/json"]),
        body === null ? null : jsonText(body),
      );
      return;
    case "cbor":
      request.response.send(
        new AnswerHead(status, [...sent, "Content-Type", "application/cbor", "smithy-protocol", CBOR]),
        Buffer.from(writeCbor(body ?? {})),
      );
      return;
    case "json":
      request.response.send(
        new AnswerHead(status, [...sent, "Content-Type", jsonType(request)]),
        body === null ? null : jsonText(body),
      );
      return;
    case "query": {
      const { name } = operation;
      const structure = body === null ? null : (service.toXml?.(name, body) ?? body);
      const xmlOf = (given: Readonly<Record<string, unknown>>): string =>
        writeXml(given as Readonly<Record<string, XmlValue>>);
      const result = structure === null ? "" : `<${name}Result>${xmlOf(structure)}</${name}Result>`;
      const metadata = `<ResponseMetadata><RequestId>${request.id}</RequestId></ResponseMetadata>`;
      const namespace = service.xmlNamespace === null ? "" : ` xmlns="${service.xmlNamespace}"`;
      const xml = `<?xml version="1.0"?>\n<${name}Response${namespace}>${result}${metadata}</${name}Response>`;
      request.response.send(new AnswerHead(status, [...sent, "Content-Type", "text/xml"]), xml);
      return;
    }
    default:
      protocol satisfies never;
  }
}

/** An error in the protocol of the request; where that is not known, JSON. Breaks the connection when an answer has begun. */
export function respondAwsError(
  request: GatewayRequest,
  error: AwsError,
  asked: { readonly service: Service; readonly protocol: ServiceProtocol } | null,
): void {
  if (request.response.begun) {
    request.response.abort();
    return;
  }
  const protocol = asked?.protocol ?? protocolOf(request);
  if (protocol === "query") {
    const code = asked?.service.queryErrors?.[error.code] ?? error.code;
    const detail = `<Type>${error.type}</Type><Code>${escapeXml(code)}</Code><Message>${escapeXml(error.message)}</Message>`;
    const namespace = asked?.service.xmlNamespace == null ? "" : ` xmlns="${asked.service.xmlNamespace}"`;
    const xml = `<?xml version="1.0"?>\n<ErrorResponse${namespace}><Error>${detail}</Error><RequestId>${request.id}</RequestId></ErrorResponse>`;
    send(request, error, { headers: [], type: "text/xml", body: xml });
  } else if (protocol === "json") {
    const legacy = asked?.service.queryErrors?.[error.code];
    const headers = legacy === undefined ? [] : ["x-amzn-query-error", `${legacy};${error.type}`];
    const body = JSON.stringify({ __type: error.code, message: error.message, ...error.members });
    send(request, error, { headers, type: jsonType(request), body });
  } else if (protocol === "cbor") {
    const body = Buffer.from(writeCbor({ __type: error.code, message: error.message, ...error.members }));
    send(request, error, { headers: ["smithy-protocol", CBOR], type: "application/cbor", body });
  } else {
    const body = JSON.stringify({
      Type: error.type === "Sender" ? "User" : "Service",
      Message: error.message,
      ...error.members,
    });
    send(request, error, { headers: ["x-amzn-ErrorType", error.code], type: "application/json", body });
  }
}

function send(
  request: GatewayRequest,
  error: AwsError,
  answer: { readonly headers: readonly string[]; readonly type: string; readonly body: string | Buffer },
): void {
  const headers = [...answer.headers, REQUEST_ID, request.id, "Content-Type", answer.type];
  request.response.send(new AnswerHead(error.status, headers, { closes: error.status === 413 }), answer.body);
}

/** Times are seconds since the epoch in these protocols. */
function jsonText(body: Readonly<Record<string, unknown>>): string {
  return JSON.stringify(body, function (this: Record<string, unknown>, key, value: unknown) {
    const given = this[key];
    return given instanceof Date ? given.getTime() / 1_000 : value;
  });
}

function jsonType(request: GatewayRequest): string {
  const type = request.headers.get("content-type") ?? "";
  return /^application\/x-amz-json-1\.[01]/.exec(type)?.[0] ?? "application/x-amz-json-1.0";
}
