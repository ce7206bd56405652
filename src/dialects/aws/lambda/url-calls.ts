import { randomBytes } from "node:crypto";
import { KoineError } from "../../../core/errors.ts";
import type { Caller, HttpCall } from "../../../core/invocation.ts";
import { AnswerHead, type GatewayRequest } from "../../dialect.ts";
import { wholeOf } from "../../request-body.ts";
import { accountIdOf } from "../account.ts";
import type { AwsEndpoint } from "../wire/serve.ts";
import { AwsError, toAwsError } from "../wire/error.ts";
import type { Policies } from "../wire/identity.ts";
import type { Principal } from "../wire/service.ts";
import { type Cors, isPreflight, preflightHeaders, withCors } from "./cors.ts";
import { arnOfFound, type Found, type LambdaFunctions, refOf } from "./functions.ts";
import { chooseVersion } from "./operations/invoke.ts";
import { resourceDecision } from "./resource-policy.ts";
import { LATEST, type Snapshot } from "./records.ts";
import { refuseUrl, UrlAnswer } from "./url-answer.ts";
import { urlIdOf, urlRegionOf } from "./url-host.ts";
import type { UrlTarget } from "./urls.ts";

const REQUEST_BYTES_MAX = 6 * 1024 * 1024;
const ANSWER_BYTES_MAX = 6 * 1024 * 1024;
const FORBIDDEN =
  "Forbidden. For troubleshooting Function URL authorization issues, see: https://docs.aws.amazon.com/lambda/latest/dg/urls-auth.html";
const ACTION = "lambda:InvokeFunctionUrl";

export interface UrlCallsParts {
  readonly functions: LambdaFunctions;
  readonly endpoint: Pick<AwsEndpoint, "signer">;
  readonly policies: Policies;
  /** Whether anybody has made access keys: until then whoever may use the platform may use what asks for a signature. */
  configured(): boolean;
}

/** Calls of functions at their own addresses, `http://ID.lambda-url.REGION.localhost:PORT/…`. */
export class UrlCalls {
  readonly #parts: UrlCallsParts;

  constructor(parts: UrlCallsParts) {
    this.#parts = parts;
  }

  /** Answers false for requests to other hosts. */
  handle(request: GatewayRequest, identify: () => Caller | null): boolean {
    const id = urlIdOf(request);
    if (id === null) return false;
    const { functions } = this.#parts;
    const target = functions.urls.find(id);
    if (target === null) {
      refuseUrl(request, 404, "Not Found", "ResourceNotFoundException");
      return true;
    }
    const cors = target.url.cors as Cors | null;
    if (cors !== null && isPreflight(request.method, request.headers)) {
      request.response.send(new AnswerHead(200, preflightHeaders(cors, request.headers)), null);
      return true;
    }
    const answered = this.#answer(request, { target, cors, identify }).catch((thrown: unknown) => {
      const error = toAwsError(thrown);
      if (error.status >= 500)
        functions.platform.parts.logger.log("error", "a call of a function's address failed", {
          requestId: request.id,
          error: String(error.cause ?? error),
        });
      if (request.response.begun) request.response.abort();
      else if (error.status === 403) refuseUrl(request, 403, FORBIDDEN, "AccessDeniedException");
      else refuseUrl(request, error.status, error.message, error.code);
    });
    functions.platform.parts.supervise("answer a call of a function's address", answered);
    return true;
  }

  async #answer(
    request: GatewayRequest,
    of: { readonly target: UrlTarget; readonly cors: Cors | null; readonly identify: () => Caller | null },
  ): Promise<void> {
    const { functions } = this.#parts;
    const { target, cors } = of;
    const { namespace, name, qualifier, url } = target;
    const region = urlRegionOf(request);
    const found = await functions.find(
      { namespace, name, qualifier: qualifier === LATEST ? null : qualifier },
      { region },
    );
    if (url.authType === "NONE") this.#checkPublic(found, region);
    // Who may not ask at all learns nothing from the size of what it sends.
    const caller = url.authType === "NONE" ? null : of.identify();
    const body = await receive(request);
    const principal = url.authType === "NONE" ? null : await this.#parts.endpoint.signer(request, { caller, body });
    if (principal !== null) await this.#checkSigned(principal, found, region);
    const chosen = chooseVersion(found, Math.random());
    const ref = refTo(found, chosen);
    const version = functions.platform.resolve(ref);
    const answer = new UrlAnswer(request, {
      version: version.number,
      bytesMax: url.invokeMode === "BUFFERED" ? ANSWER_BYTES_MAX : null,
      headers: (given) => (cors === null ? given : withCors(cors, request.headers, given)),
    });
    answer.exchange = functions.platform.invoke(
      {
        id: request.id,
        ref,
        call: callOf(request, { target, found, chosen, region, principal }),
        mode: "sync",
        attempt: 1,
        receivedAtMs: request.receivedAtMs,
        body,
        bodyComplete: true,
        impatient: true,
      },
      version,
      answer,
    );
  }

  /** As in the real service, an address for everybody needs a statement that says so, once there is anybody to tell apart from everybody. */
  #checkPublic(found: Found, region: string): void {
    if (!this.#parts.configured()) return;
    const decision = resourceDecision(found.record, found.name.qualifier ?? LATEST, {
      principalArn: "*",
      principalAccountId: "",
      action: ACTION,
      resource: arnOfFound(found, region),
      conditions: { "lambda:FunctionUrlAuthType": "NONE" },
    });
    if (decision !== "allow") throw denied();
  }

  async #checkSigned(principal: Principal, found: Found, region: string): Promise<void> {
    const resource = arnOfFound(found, region);
    const conditions = { "lambda:FunctionUrlAuthType": "AWS_IAM" };
    const byResource = resourceDecision(found.record, found.name.qualifier ?? LATEST, {
      principalArn: principal.arn,
      principalAccountId: principal.accountId,
      action: ACTION,
      resource,
      conditions,
    });
    if (byResource === "deny") throw denied();
    const refusal = await this.#parts.policies.refusal({ principal, action: ACTION, resource, conditions });
    if (refusal === null && (byResource === "allow" || principal.namespace === found.name.namespace)) return;
    const isSilent = refusal !== null && !refusal.includes("explicit deny");
    if (isSilent && byResource === "allow" && principal.namespace === found.name.namespace) return;
    throw denied();
  }
}

function denied(): AwsError {
  return new AwsError("AccessDeniedException", FORBIDDEN, { status: 403 });
}

async function receive(request: GatewayRequest): Promise<Buffer> {
  try {
    return await wholeOf(request.body, REQUEST_BYTES_MAX, "the request");
  } catch (thrown) {
    if (!(thrown instanceof KoineError) || thrown.code !== "payload-too-large") throw thrown;
    throw new AwsError("RequestEntityTooLargeException", "Request Entity Too Large", { status: 413, cause: thrown });
  }
}

function refTo(found: Found, chosen: Snapshot) {
  const isLatest = chosen.number === found.record.latest.number;
  return { ...refOf(found.name), ...(isLatest ? {} : { qualifier: String(chosen.number) }) };
}

function callOf(
  request: GatewayRequest,
  of: {
    readonly target: UrlTarget;
    readonly found: Found;
    readonly chosen: Snapshot;
    readonly region: string;
    readonly principal: Principal | null;
  },
): HttpCall {
  const { target, found, chosen, region, principal } = of;
  const { headers } = request;
  const { port, host } = new URL(headers.origin);
  const added = ["x-forwarded-proto", "http", "x-forwarded-port", port === "" ? "80" : port];
  const forwardedFor = headers.get("x-forwarded-for");
  const raw = headers.raw.filter((_, index) => !REPLACED.has((headers.raw[index - (index % 2)] ?? "").toLowerCase()));
  return {
    kind: "http",
    method: request.method,
    url: request.path + request.query,
    headers: [
      ...raw,
      ...added,
      "x-forwarded-for",
      forwardedFor === undefined ? request.remoteAddress : `${forwardedFor}, ${request.remoteAddress}`,
      "x-amzn-trace-id",
      headers.get("x-amzn-trace-id") ?? newTraceId(request.receivedAtMs),
    ],
    basePath: "",
    origin: headers.origin,
    remoteAddress: request.remoteAddress,
    context: {
      lambda: {
        invokedFunctionArn: arnOfFound(found, region),
        functionVersion: chosen.version,
        logGroupName: `/aws/lambda/${found.name.name}`,
        requestContext: {
          accountId: principal === null ? "anonymous" : accountIdOf(found.name.namespace),
          apiId: target.url.urlId,
          domainName: host.replace(/:\d+$/, ""),
          domainPrefix: target.url.urlId,
          ...(principal === null ? {} : { authorizer: { iam: iamOf(principal) } }),
        },
      },
    },
  };
}

const REPLACED = new Set(["x-forwarded-proto", "x-forwarded-port", "x-forwarded-for", "x-amzn-trace-id"]);

function iamOf(principal: Principal): Readonly<Record<string, unknown>> {
  return {
    accessKey: principal.accessKeyId,
    accountId: principal.accountId,
    callerId: principal.userId,
    cognitoIdentity: null,
    principalOrgId: null,
    userArn: principal.arn,
    userId: principal.userId,
  };
}

function newTraceId(nowMs: number): string {
  return `Root=1-${Math.floor(nowMs / 1_000).toString(16)}-${randomBytes(12).toString("hex")}`;
}
