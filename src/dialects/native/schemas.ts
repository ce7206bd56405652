import { z } from "zod";
import { limits } from "../../core/limits.ts";

/** What the management API accepts, parsed once at the edge; `/openapi.json` is generated from the same schemas. */
const name = z.string().min(1).max(limits.nameLengthMax).meta({ description: "Letters, digits, '.', '_' and '-'." });
const versionNumber = z.int().min(1).max(2_147_483_647);

export const deployRequest = z.strictObject({
  code: z
    .string()
    .regex(/^sha256:[0-9a-f]{64}$/)
    .meta({ description: "Digest of an uploaded code package." }),
  runtime: z.string().max(64).optional().meta({ example: "nodejs26.x" }),
  handler: z
    .string()
    .max(256)
    .optional()
    .meta({ description: "FILE or FILE.EXPORT within the package.", example: "index.handler" }),
  handlerModel: z.string().max(64).optional().meta({ example: "auto" }),
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

export const invokeQuery = z.strictObject({
  qualifier: z.string().max(limits.nameLengthMax).optional(),
  mode: z.enum(["sync", "async"]).default("sync"),
});

/** A time of a query as milliseconds since the epoch. */
export function timeMs(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  return /^[0-9]+$/.test(text) ? Number(text) : Date.parse(text);
}
