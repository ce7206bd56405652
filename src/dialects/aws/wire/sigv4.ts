import { createHmac, hash, timingSafeEqual } from "node:crypto";
import { AwsError } from "./error.ts";

/** What a signature covers of an HTTP request, as it was on the wire. */
export interface SignedRequest {
  readonly method: string;
  /** Still percent-encoded, without the query. */
  readonly path: string;
  /** Still percent-encoded, without `?`. */
  readonly query: string;
  /** By lower-case name; several lines joined by a comma. */
  header(name: string): string | undefined;
}

/** A request's own claim: who signed what, when, and how. */
export interface Signature {
  readonly kind: "header" | "presigned";
  readonly accessKeyId: string;
  /** `20260101` */
  readonly date: string;
  readonly region: string;
  readonly service: string;
  readonly signedHeaders: readonly string[];
  /** Hexadecimal. */
  readonly signature: string;
  /** `20260101T120000Z` */
  readonly time: string;
  /** How long a presigned request may be used, in seconds; null for signed headers. */
  readonly expiresSeconds: number | null;
  readonly sessionToken: string | null;
}

const ALGORITHM = "AWS4-HMAC-SHA256";
const SKEW_MS_MAX = 5 * 60_000;
const PRESIGNED_SECONDS_MAX = 7 * 24 * 3_600;
const TIME = /^(\d{4})(\d{2})(\d{2})T(\d{2})(\d{2})(\d{2})Z$/;

/**
 * The claim of a request; null when it has none.
 * @throws AwsError `IncompleteSignature` for one that cannot be read
 */
export function readSignature(request: SignedRequest): Signature | null {
  const authorization = request.header("authorization");
  if (authorization?.startsWith(ALGORITHM) === true) return fromHeader(request, authorization);
  if (!request.query.includes("X-Amz-Algorithm=")) return null;
  return fromQuery(new URLSearchParams(request.query));
}

/**
 * Checks a claim against the secret that its access key stands for.
 * @param bodyDigest hexadecimal SHA-256 of the body as received
 * @throws AwsError `SignatureDoesNotMatch`, `RequestExpired`, `InvalidSignatureException`
 */
export function verifySignature(
  claim: Signature,
  request: SignedRequest,
  context: {
    readonly secretAccessKey: string;
    readonly bodyDigest: string;
    readonly nowMs: number;
    readonly keys?: SigningKeys;
  },
): void {
  checkTime(claim, context.nowMs);
  for (const required of [
    "host",
    ...(claim.kind === "header" && request.header("x-amz-date") !== undefined ? ["x-amz-date"] : []),
  ]) {
    if (!claim.signedHeaders.includes(required))
      throw mismatch(`The header '${required}' must be a part of the signature.`);
  }
  const payload = payloadDigest(claim, request, context.bodyDigest);
  const canonical = canonicalRequest(claim, request, payload);
  const scope = `${claim.date}/${claim.region}/${claim.service}/aws4_request`;
  const toSign = [ALGORITHM, claim.time, scope, sha256(canonical)].join("\n");
  const key = context.keys?.of(context.secretAccessKey, claim) ?? newSigningKey(context.secretAccessKey, claim);
  const expected = createHmac("sha256", key).update(toSign).digest();
  const given = Buffer.from(claim.signature, "hex");
  if (given.length === expected.length && timingSafeEqual(given, expected)) return;
  throw mismatch(
    "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method.",
  );
}

/** Keys of a day by what they are made of, which takes four digests. */
export class SigningKeys {
  readonly #keys = new Map<string, Buffer>();

  of(secret: string, claim: Signature): Buffer {
    const name = `${claim.date}/${claim.region}/${claim.service}/${secret}`;
    const known = this.#keys.get(name);
    if (known !== undefined) return known;
    const key = newSigningKey(secret, claim);
    if (this.#keys.size >= SIGNING_KEYS_MAX) this.#keys.clear();
    this.#keys.set(name, key);
    return key;
  }
}

const SIGNING_KEYS_MAX = 1_000;

export function sha256(content: string | Uint8Array): string {
  return hash("sha256", content, "hex");
}

function fromHeader(request: SignedRequest, authorization: string): Signature {
  const parts = new Map(
    authorization
      .slice(ALGORITHM.length)
      .split(",")
      .map((part) => part.trim())
      .map((part) => [part.slice(0, part.indexOf("=")), part.slice(part.indexOf("=") + 1)] as const),
  );
  const time = request.header("x-amz-date") ?? httpDate(request.header("date"));
  return claimOf({
    kind: "header",
    credential: parts.get("Credential"),
    signedHeaders: parts.get("SignedHeaders"),
    signature: parts.get("Signature"),
    time,
    expires: null,
    sessionToken: request.header("x-amz-security-token") ?? null,
  });
}

function fromQuery(query: URLSearchParams): Signature {
  const algorithm = query.get("X-Amz-Algorithm");
  if (algorithm !== ALGORITHM)
    throw incomplete(`The algorithm '${algorithm ?? ""}' is not supported; use ${ALGORITHM}.`);
  return claimOf({
    kind: "presigned",
    credential: query.get("X-Amz-Credential") ?? undefined,
    signedHeaders: query.get("X-Amz-SignedHeaders") ?? undefined,
    signature: query.get("X-Amz-Signature") ?? undefined,
    time: query.get("X-Amz-Date") ?? undefined,
    expires: query.get("X-Amz-Expires") ?? "",
    sessionToken: query.get("X-Amz-Security-Token"),
  });
}

function claimOf(parts: {
  readonly kind: Signature["kind"];
  readonly credential: string | undefined;
  readonly signedHeaders: string | undefined;
  readonly signature: string | undefined;
  readonly time: string | undefined;
  readonly expires: string | null;
  readonly sessionToken: string | null;
}): Signature {
  const { credential, signedHeaders, signature, time } = parts;
  const [accessKeyId, date, region, service, end, ...more] = (credential ?? "").split("/");
  const isScope = end === "aws4_request" && more.length === 0 && /^\d{8}$/.test(date ?? "");
  if (!accessKeyId || !date || !region || !service || !isScope)
    throw incomplete("The credential must be KEY/YYYYMMDD/REGION/SERVICE/aws4_request.");
  if (!signedHeaders) throw incomplete("The signature does not name its signed headers.");
  if (signature === undefined || !/^[0-9a-f]{64}$/.test(signature))
    throw incomplete("The signature must be 64 hexadecimal digits.");
  if (time === undefined || !TIME.test(time))
    throw incomplete("The time of the signature must be given as X-Amz-Date, like 20260101T120000Z.");
  if (!time.startsWith(date)) throw incomplete("The date of the credential is not that of the request.");
  const expiresSeconds = parts.expires === null ? null : Number(parts.expires);
  if (
    expiresSeconds !== null &&
    (parts.expires === "" || !(expiresSeconds >= 0 && expiresSeconds <= PRESIGNED_SECONDS_MAX))
  )
    throw incomplete(`X-Amz-Expires must be a number of seconds up to ${PRESIGNED_SECONDS_MAX}.`);
  return {
    kind: parts.kind,
    accessKeyId,
    date,
    region,
    service,
    signedHeaders: signedHeaders.toLowerCase().split(";"),
    signature,
    time,
    expiresSeconds,
    sessionToken: parts.sessionToken,
  };
}

function checkTime(claim: Signature, nowMs: number): void {
  const [, year, month, day, hour, minute, second] = (TIME.exec(claim.time) ?? []).map(Number);
  const signedAtMs = Date.UTC(year ?? 0, (month ?? 1) - 1, day, hour, minute, second);
  const iso = (ms: number): string => new Date(ms).toISOString().replaceAll(/[-:]|\.\d+/g, "");
  if (signedAtMs > nowMs + SKEW_MS_MAX)
    throw mismatch(`Signature not yet current: ${claim.time} is still later than ${iso(nowMs + SKEW_MS_MAX)}.`);
  const lifeMs = claim.expiresSeconds === null ? SKEW_MS_MAX : claim.expiresSeconds * 1_000;
  if (signedAtMs + lifeMs < nowMs) {
    if (claim.kind === "presigned")
      throw new AwsError("RequestExpired", "The presigned request has expired.", { status: 403 });
    throw mismatch(`Signature expired: ${claim.time} is now earlier than ${iso(nowMs - SKEW_MS_MAX)}.`);
  }
}

/** What the signature says of the body. A digest that the client names must be the body's. */
function payloadDigest(claim: Signature, request: SignedRequest, bodyDigest: string): string {
  const named = request.header("x-amz-content-sha256");
  if (named === undefined) return bodyDigest;
  if (named === "UNSIGNED-PAYLOAD" || claim.kind === "presigned") return named;
  if (named.toLowerCase() !== bodyDigest) throw mismatch("The body is not the one that x-amz-content-sha256 names.");
  return named;
}

function canonicalRequest(claim: Signature, request: SignedRequest, payload: string): string {
  const headers = claim.signedHeaders.map((name) => {
    const value = request.header(name);
    if (value === undefined) throw mismatch(`The signed header '${name}' is not in the request.`);
    return `${name}:${value.trim().replaceAll(/ {2,}/g, " ")}\n`;
  });
  return [
    request.method,
    canonicalPath(request.path, claim.service),
    canonicalQuery(request.query),
    headers.join(""),
    claim.signedHeaders.join(";"),
    payload,
  ].join("\n");
}

/** Everywhere but in S3 the path is encoded once more, after dots and empty segments went. */
function canonicalPath(path: string, service: string): string {
  if (service === "s3")
    return path
      .split("/")
      .map((segment) => encode(decode(segment)))
      .join("/");
  const segments: string[] = [];
  for (const segment of path.split("/")) {
    if (segment === "..") segments.pop();
    else if (segment !== "" && segment !== ".") segments.push(encode(segment));
  }
  const trailing = segments.length > 0 && path.endsWith("/") ? "/" : "";
  return `/${segments.join("/")}${trailing}`;
}

function canonicalQuery(query: string): string {
  if (query === "") return "";
  return query
    .split("&")
    .filter((pair) => pair !== "" && !pair.startsWith("X-Amz-Signature="))
    .map((pair) => {
      const equals = pair.indexOf("=");
      const name = equals < 0 ? pair : pair.slice(0, equals);
      const value = equals < 0 ? "" : pair.slice(equals + 1);
      return [encode(decode(name)), encode(decode(value))] as const;
    })
    .sort(([a, aValue], [b, bValue]) => (a === b ? compare(aValue, bValue) : compare(a, b)))
    .map(([name, value]) => `${name}=${value}`)
    .join("&");
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text.replaceAll("+", "%20"));
  } catch {
    return text;
  }
}

function encode(text: string): string {
  return encodeURIComponent(text).replaceAll(
    /[!'()*]/g,
    (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`,
  );
}

function newSigningKey(secret: string, { date, region, service }: Signature): Buffer {
  let key: Buffer | string = `AWS4${secret}`;
  for (const part of [date, region, service, "aws4_request"]) key = createHmac("sha256", key).update(part).digest();
  return Buffer.from(key);
}

function httpDate(text: string | undefined): string | undefined {
  const ms = text === undefined ? Number.NaN : Date.parse(text);
  return Number.isNaN(ms) ? undefined : new Date(ms).toISOString().replaceAll(/[-:]|\.\d+/g, "");
}

function incomplete(message: string): AwsError {
  return new AwsError("IncompleteSignature", message, { status: 400 });
}

function mismatch(message: string): AwsError {
  return new AwsError("SignatureDoesNotMatch", message, { status: 403 });
}
