import { createHash, createHmac, timingSafeEqual } from "node:crypto";

/** What a signature is made over, and what came with it. */
export interface Signed {
  readonly body: Buffer;
  header(name: string): string | undefined;
  readonly nowMs: number;
}

/** Null when a request is signed as it should be; else why it is not, which tells an attacker nothing that is secret. */
export type Refusal = string | null;

export type HmacAlgorithm = "sha1" | "sha256" | "sha512";

/** GitHub: `X-Hub-Signature-256: sha256=HEX` over the body. */
export function checkGithub({ body, header }: Signed, secrets: readonly string[]): Refusal {
  const given = header("x-hub-signature-256");
  if (given === undefined) return "the header X-Hub-Signature-256 is missing";
  const fits = secrets.some((secret) => isSame(given, `sha256=${hmac("sha256", secret, [body]).toString("hex")}`));
  return fits ? null : "the signature is wrong";
}

/** Stripe: `Stripe-Signature: t=SECONDS,v1=HEX,…` over `SECONDS.BODY`; any of several v1 may fit. */
export function checkStripe({ body, header, nowMs }: Signed, secrets: readonly string[], toleranceMs: number): Refusal {
  const given = header("stripe-signature");
  if (given === undefined) return "the header Stripe-Signature is missing";
  const pairs = given.split(",").map((pair) => pair.trim().split("="));
  const timestamp = pairs.find(([name]) => name === "t")?.[1] ?? "";
  const signatures = pairs.flatMap(([name, value = ""]) => (name === "v1" ? [value] : []));
  const late = checkAge(timestamp, nowMs, toleranceMs);
  if (late !== null) return late;
  const expected = secrets.map((secret) => hmac("sha256", secret, [`${timestamp}.`, body]).toString("hex"));
  return expected.some((one) => signatures.some((signature) => isSame(signature, one)))
    ? null
    : "the signature is wrong";
}

/** Slack: `X-Slack-Signature: v0=HEX` over `v0:SECONDS:BODY`, with `X-Slack-Request-Timestamp`. */
export function checkSlack({ body, header, nowMs }: Signed, secrets: readonly string[], toleranceMs: number): Refusal {
  const given = header("x-slack-signature");
  const timestamp = header("x-slack-request-timestamp");
  if (given === undefined || timestamp === undefined)
    return "the header X-Slack-Signature or X-Slack-Request-Timestamp is missing";
  const late = checkAge(timestamp, nowMs, toleranceMs);
  if (late !== null) return late;
  const fits = secrets.some((secret) =>
    isSame(given, `v0=${hmac("sha256", secret, [`v0:${timestamp}:`, body]).toString("hex")}`),
  );
  return fits ? null : "the signature is wrong";
}

export interface HmacScheme {
  readonly header: string;
  readonly algorithm: HmacAlgorithm;
  readonly encoding: "hex" | "base64";
  /** What stands before the signature in its header, such as `sha256=`. */
  readonly prefix: string;
  /** With it, the signature is over `TIMESTAMP.BODY`, and the timestamp, in seconds, must be recent. */
  readonly timestampHeader?: string | undefined;
  readonly toleranceMs: number;
}

/** A signature of the user's own making. */
export function checkHmac({ body, header, nowMs }: Signed, secrets: readonly string[], scheme: HmacScheme): Refusal {
  const given = header(scheme.header.toLowerCase());
  if (given === undefined) return `the header ${scheme.header} is missing`;
  const parts: (string | Buffer)[] = [body];
  if (scheme.timestampHeader !== undefined) {
    const timestamp = header(scheme.timestampHeader.toLowerCase());
    if (timestamp === undefined) return `the header ${scheme.timestampHeader} is missing`;
    const late = checkAge(timestamp, nowMs, scheme.toleranceMs);
    if (late !== null) return late;
    parts.unshift(`${timestamp}.`);
  }
  const bare = given.startsWith(scheme.prefix) ? given.slice(scheme.prefix.length) : "";
  const comparable = scheme.encoding === "hex" ? bare.toLowerCase() : bare;
  const fits = secrets.some((secret) =>
    isSame(comparable, hmac(scheme.algorithm, secret, parts).toString(scheme.encoding)),
  );
  return fits ? null : "the signature is wrong";
}

/** Whether two texts are the same, in a time that tells nothing of where they differ. */
export function isSame(given: string, expected: string): boolean {
  return timingSafeEqual(digest(given), digest(expected));
}

function checkAge(timestamp: string, nowMs: number, toleranceMs: number): Refusal {
  if (!/^\d{1,12}$/.test(timestamp)) return "the signature has no timestamp";
  return Math.abs(nowMs - Number(timestamp) * 1_000) > toleranceMs
    ? "the signature's timestamp is too old or from the future"
    : null;
}

function hmac(algorithm: HmacAlgorithm, secret: string, parts: readonly (string | Buffer)[]): Buffer {
  const made = createHmac(algorithm, secret);
  for (const part of parts) made.update(part);
  return made.digest();
}

function digest(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}
