import { createLocalJWKSet, createRemoteJWKSet, errors, type JWTPayload, type JWTVerifyGetKey, jwtVerify } from "jose";
import { z } from "zod";
import { KoineError } from "../../core/errors.ts";
import { address, type RouteHost, secretReference, type TriggerRequest } from "../trigger.ts";
import { checkGithub, checkHmac, checkSlack, checkStripe, isSame, type Refusal } from "./signatures.ts";

const TOLERANCE_MS_DEFAULT = 300_000;
const JWKS_TIMEOUT_MS = 5_000;
const JWKS_AGE_MS_MAX = 600_000;

const secret = secretReference(
  "What the sender signs with; several values, one a line, are accepted while they are exchanged",
);
const toleranceMs = z
  .int()
  .min(1_000)
  .max(3_600_000)
  .default(TOLERANCE_MS_DEFAULT)
  .meta({ description: "How old a signature may be." });
const headerName = z.string().regex(/^[A-Za-z0-9-]{1,64}$/, "must be the name of a header");
const ALGORITHMS = [
  "HS256",
  "HS384",
  "HS512",
  "RS256",
  "RS384",
  "RS512",
  "PS256",
  "PS384",
  "PS512",
  "ES256",
  "ES384",
  "ES512",
  "EdDSA",
] as const;

/** How a sender proves who it is. */
export const authSchema = z
  .discriminatedUnion("kind", [
    z.strictObject({ kind: z.literal("none") }),
    z.strictObject({ kind: z.literal("github"), secret }),
    z.strictObject({ kind: z.literal("stripe"), secret, toleranceMs }),
    z.strictObject({ kind: z.literal("slack"), secret, toleranceMs }),
    z.strictObject({
      kind: z.literal("hmac"),
      secret,
      header: headerName.default("x-signature"),
      algorithm: z.enum(["sha1", "sha256", "sha512"]).default("sha256"),
      encoding: z.enum(["hex", "base64"]).default("hex"),
      prefix: z.string().max(64).default(""),
      timestampHeader: headerName.optional(),
      toleranceMs,
    }),
    z.strictObject({ kind: z.literal("key"), secret, header: headerName.default("x-api-key") }),
    z
      .strictObject({
        kind: z.literal("jwt"),
        algorithms: z.array(z.enum(ALGORITHMS)).min(1),
        jwksUrl: address("Where the public keys are", ["https", "http"]).optional(),
        jwks: z.strictObject({ keys: z.array(z.record(z.string(), z.unknown())).min(1).max(100) }).optional(),
        secret: secretReference("The shared secret of HS algorithms").optional(),
        issuer: z.string().max(1_024).optional(),
        audience: z.union([z.string().max(1_024), z.array(z.string().max(1_024)).min(1)]).optional(),
        clockToleranceMs: z.int().min(0).max(600_000).default(30_000),
      })
      .superRefine(({ jwksUrl, jwks, secret: shared, algorithms }, context) => {
        const problem = (message: string): void => context.addIssue({ code: "custom", message });
        if ([jwksUrl, jwks, shared].filter((one) => one !== undefined).length !== 1)
          problem("needs exactly one of jwksUrl, jwks and secret");
        // A public key must never be taken for a shared secret.
        const symmetric = algorithms.filter((name) => name.startsWith("HS"));
        if (symmetric.length > 0 && symmetric.length < algorithms.length)
          problem("cannot mix HS algorithms with others");
        if (symmetric.length > 0 && shared === undefined) problem("needs a secret for HS algorithms");
        if (symmetric.length === 0 && shared !== undefined) problem("has a secret, which only HS algorithms use");
      }),
  ])
  .meta({ description: "How senders prove who they are: none, github, stripe, slack, hmac, key, jwt." });

export type Auth = z.output<typeof authSchema>;

/** What is known of a sender that was let in. */
export interface Admitted {
  readonly claims?: JWTPayload;
}

/** Lets a request in, or throws KoineError `hook-unauthorized`. */
export type Admission = (request: TriggerRequest) => Promise<Admitted>;

export function openAdmission(auth: Auth, host: RouteHost): Admission {
  switch (auth.kind) {
    case "none":
      return () => Promise.resolve({});
    case "github":
    case "stripe":
    case "slack":
    case "hmac":
    case "key": {
      const secrets = valuesOf(host.secret(auth.secret));
      return (request) => {
        const refusal = check(auth, request, secrets, host.clock.nowMs());
        return refusal === null
          ? Promise.resolve({})
          : Promise.reject(new KoineError("hook-unauthorized", { detail: refusal }));
      };
    }
    case "jwt":
      return jwtAdmission(auth, host);
    default:
      return auth satisfies never;
  }
}

function check(
  auth: Exclude<Auth, { kind: "none" | "jwt" }>,
  request: TriggerRequest,
  secrets: readonly string[],
  nowMs: number,
): Refusal {
  const signed = { body: request.body, header: (name: string) => request.header(name), nowMs };
  switch (auth.kind) {
    case "github":
      return checkGithub(signed, secrets);
    case "stripe":
      return checkStripe(signed, secrets, auth.toleranceMs);
    case "slack":
      return checkSlack(signed, secrets, auth.toleranceMs);
    case "hmac":
      return checkHmac(signed, secrets, auth);
    case "key": {
      const given = request.header(auth.header.toLowerCase());
      if (given === undefined) return `the header ${auth.header} is missing`;
      return secrets.some((value) => isSame(given, value)) ? null : "the key is wrong";
    }
    default:
      return auth satisfies never;
  }
}

function jwtAdmission(auth: Extract<Auth, { kind: "jwt" }>, host: RouteHost): Admission {
  const keys = keysOf(auth);
  const shared =
    auth.secret === undefined ? null : valuesOf(host.secret(auth.secret)).map((value) => Buffer.from(value));
  const options = {
    algorithms: [...auth.algorithms],
    requiredClaims: ["exp"],
    clockTolerance: auth.clockToleranceMs / 1_000,
    ...(auth.issuer === undefined ? {} : { issuer: auth.issuer }),
    ...(auth.audience === undefined ? {} : { audience: auth.audience }),
  };
  return async (request) => {
    const token = /^bearer\s+(\S+)$/i.exec(request.header("authorization") ?? "")?.[1];
    if (token === undefined)
      throw new KoineError("hook-unauthorized", { detail: "it has no 'Authorization: Bearer TOKEN'" });
    const verifying = { ...options, currentDate: new Date(host.clock.nowMs()) };
    let last: unknown;
    for (const key of shared ?? [null]) {
      try {
        const { payload } =
          key === null ? await jwtVerify(token, keys, verifying) : await jwtVerify(token, key, verifying);
        return { claims: payload };
      } catch (thrown) {
        last = thrown;
      }
    }
    // Keys that cannot be fetched are no fault of the sender.
    if (last instanceof errors.JOSEError && !(last instanceof errors.JWKSTimeout))
      throw new KoineError("hook-unauthorized", { detail: last.message }, { cause: last });
    throw new KoineError(
      "source-failed",
      { detail: "the keys of the token's issuer cannot be fetched" },
      { cause: last },
    );
  };
}

function keysOf({ jwks, jwksUrl }: Extract<Auth, { kind: "jwt" }>): JWTVerifyGetKey {
  if (jwks !== undefined) return createLocalJWKSet(jwks);
  if (jwksUrl === undefined) return () => Promise.reject(new errors.JWKSNoMatchingKey());
  return createRemoteJWKSet(new URL(jwksUrl), { timeoutDuration: JWKS_TIMEOUT_MS, cacheMaxAge: JWKS_AGE_MS_MAX });
}

function valuesOf(text: string): readonly string[] {
  const values = text.split(/\r?\n/).filter((value) => value !== "");
  // An empty secret would let everybody in.
  if (values.length === 0)
    throw new KoineError("invalid-trigger", { kind: "webhook", detail: "the secret of 'auth' is empty" });
  return values;
}
