import { z } from "zod";
import { ALLOWANCES } from "../../core/function.ts";
import { limits } from "../../core/limits.ts";

/** What the management API accepts, parsed once at the edge; `/openapi.json` is generated from the same schemas. */
const name = z.string().min(1).max(limits.nameLengthMax).meta({ description: "Letters, digits, '.', '_' and '-'." });
const versionNumber = z.int().min(1).max(2_147_483_647);

export const deployRequest = z.strictObject({
  code: z
    .string()
    .regex(/^sha256:[0-9a-f]{64}$/)
    .optional()
    .meta({ description: "Digest of an uploaded code package; absent with an image." }),
  image: z
    .string()
    .max(512)
    .optional()
    .meta({ description: "The image that holds the code, instead of a package.", example: "nginx:1.27" }),
  build: z
    .strictObject({ dockerfile: z.string().min(1).max(limits.packagePathBytesMax) })
    .optional()
    .meta({ description: "Builds an image of the package, and deploys that." }),
  runtime: z.string().max(64).optional().meta({ example: "nodejs26.x" }),
  handler: z
    .string()
    .max(256)
    .optional()
    .meta({ description: "FILE or FILE.EXPORT within the package.", example: "index.handler" }),
  handlerModel: z.string().max(64).optional().meta({ example: "auto" }),
  protocol: z
    .string()
    .max(64)
    .optional()
    .meta({ description: "The wire protocol of a program of one's own.", example: "http" }),
  command: z
    .array(z.string().max(8_192))
    .min(1)
    .max(256)
    .optional()
    .meta({
      description: "Program and arguments; $NAME stands for a variable of its environment.",
      example: ["./server"],
    }),
  port: z.int().optional().meta({ description: "The port on which the program listens; it finds it in PORT." }),
  readyPath: z.string().max(1_024).optional().meta({ description: "Answers 2xx once the program can be used." }),
  environment: z.record(z.string(), z.string()).optional(),
  secrets: z.array(name).max(limits.environmentEntriesMax).optional(),
  memoryBytesMax: z.int().optional(),
  timeoutMs: z.int().optional(),
  instanceConcurrency: z.int().optional().meta({ description: "Invocations one instance serves at a time." }),
  reservedConcurrency: z
    .int()
    .nullable()
    .optional()
    .meta({ description: "Most invocations of the function at a time." }),
  idleTimeoutMs: z.int().nullable().optional(),
  access: z.enum(["token", "public"]).optional(),
  network: z.enum(["none", "egress", "host"]).optional().meta({
    description: "How much of the network its code reaches; at most what the platform gives, which is the default.",
  }),
  allowNetwork: z
    .array(z.string().max(limits.networkRuleLengthMax))
    .max(limits.networkRulesMax)
    .optional()
    .meta({ description: "What it may reach beyond the internet, with egress.", example: ["10.1.2.0/24:5432"] }),
  allow: z
    .array(z.enum(ALLOWANCES))
    .optional()
    .meta({ description: "What its code may ask of the platform: invoke, publish, schedule, secrets." }),
  cpuCores: z.number().optional().meta({ description: "Most processor time it may use, in cores.", example: 0.5 }),
  retry: z
    .strictObject({
      attemptsMax: z.int().optional().meta({ description: "Attempts, the first included; 3 when absent." }),
      delayMs: z.int().optional().meta({ description: "Wait before the second attempt; it doubles with each." }),
      ageMsMax: z.int().optional().meta({ description: "Age at which an event is given up." }),
    })
    .optional()
    .meta({ description: "How asynchronous invocations are tried again." }),
  destinations: z
    .strictObject({
      onSuccess: z.string().max(2_048).optional().meta({ example: "function:audit" }),
      onFailure: z.string().max(2_048).optional().meta({ example: "https://example.com/hook" }),
      secret: name.optional().meta({ description: "The secret that signs what goes to URLs." }),
    })
    .optional()
    .meta({ description: "Where outcomes of asynchronous invocations go." }),
  description: z.string().max(1_024).optional(),
  annotations: z.record(z.string(), z.string()).optional(),
  check: z.boolean().optional().meta({ description: "Load the handler once before going live." }),
  live: z.boolean().optional().meta({ description: "Whether the new version goes live." }),
});

export const publishRequest = z.strictObject({ version: versionNumber });
export const rollbackRequest = z.strictObject({ version: versionNumber.optional() });

export const aliasRequest = z.strictObject({
  version: versionNumber,
  additional: z
    .strictObject({ version: versionNumber, weight: z.number().min(0).max(1) })
    .optional()
    .meta({ description: "Another version and its share of the calls, 0 to 1." }),
});

export const secretRequest = z.strictObject({ value: z.string() });

const time = z.union([z.iso.datetime({ offset: true }), z.string().regex(/^[0-9]{1,15}$/)]);
const pageSize = z.coerce.number().int().min(1).max(limits.pageSizeMax).default(limits.pageSizeDefault);

export const pageQuery = z.strictObject({ after: z.string().max(256).optional(), limit: pageSize });

export const logQuery = z.strictObject({
  since: time.optional().meta({ description: "RFC 3339, or milliseconds since the epoch." }),
  before: time.optional(),
  limit: z.coerce.number().int().min(0).max(10_000).default(1_000),
  activation: z.string().max(64).optional(),
  version: z.coerce.number().int().min(1).optional(),
  follow: z.enum(["true", "false"]).default("false"),
});

export const activationQuery = z.strictObject({
  function: z.string().max(256).optional(),
  state: z.enum(["queued", "running", "succeeded", "failed", "timedOut", "rejected"]).optional(),
  since: time.optional(),
  before: time.optional(),
  after: z.string().max(64).optional(),
  limit: pageSize,
});

const deadLetterChoice = {
  function: z.string().max(256).optional(),
  code: z.string().max(64).optional().meta({ description: "Error code of the last attempt." }),
  since: time.optional().meta({ description: "Became a dead letter at or after." }),
  before: time.optional(),
};

export const deadLetterQuery = z.strictObject({
  ...deadLetterChoice,
  after: z.string().max(64).optional(),
  limit: pageSize,
});

const perCall = z.int().min(1).max(limits.deadLettersPerCallMax).default(limits.deadLettersPerCallMax);

export const deadLetterReplay = z.strictObject({
  ...deadLetterChoice,
  limit: perCall,
  perSecond: z.number().min(0.01).max(10_000).default(100).meta({ description: "How many fall due a second." }),
});

export const deadLetterPurge = z.strictObject({ ...deadLetterChoice, limit: perCall });

export const invokeQuery = z.strictObject({
  qualifier: z.string().max(limits.nameLengthMax).optional(),
  mode: z.enum(["sync", "async"]).default("sync"),
});

/** A time of a query as milliseconds since the epoch. */
export function timeMs(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  return /^[0-9]+$/.test(text) ? Number(text) : Date.parse(text);
}
