import { z } from "zod";
import { CliFailure } from "./failure.ts";
import { parseDuration } from "./quantity.ts";
import { nearest } from "../core/nearest.ts";

const duration = z.string().refine(isDuration, "must be a duration such as 500ms, 30s, 5m, 2h");
const count = z.number().int().min(1);

const triggerSchema = z.strictObject({
  name: z.string().min(1),
  kind: z.string().min(1),
  settings: z.record(z.string(), z.unknown()).optional(),
  filter: z.record(z.string(), z.unknown()).optional(),
  batch: z.strictObject({ size: count.optional(), window: duration.optional() }).optional(),
  ordering: z.enum(["none", "key", "all"]).optional(),
  retry: z
    .strictObject({ attempts: count.optional(), maxAge: duration.optional(), delays: z.array(duration).optional() })
    .optional(),
  priority: z.enum(["high", "normal", "low"]).optional(),
  description: z.string().optional(),
});

const projectFileSchema = z
  .strictObject({
    $schema: z.string(),
    name: z.string().min(1),
    runtime: z.string().min(1),
    handler: z.string().min(1),
    handlerModel: z.string().min(1),
    /** What a program of one's own speaks. */
    protocol: z.enum(["http", "stdio", "lambda-runtime-api", "action-proxy"]),
    /** The program and its arguments: words, or a command line. */
    command: z.union([z.string().min(1), z.array(z.string()).min(1)]),
    port: z.number().int().min(1).max(65_535),
    readyPath: z.string().startsWith("/"),
    /** An image that holds the code. */
    image: z.string().min(1),
    /** Builds an image from the folder, by this file in it. */
    dockerfile: z.string().min(1),
    /** Names the secret with which the image's registry is asked. */
    registrySecret: z.string().min(1),
    environment: z.record(z.string(), z.string()),
    secrets: z.array(z.string().min(1)),
    /** Mebibytes. */
    memoryMb: count,
    timeout: duration,
    /** Invocations one instance serves at a time. */
    concurrency: count,
    /** Most invocations of the function at a time. */
    maxConcurrency: count,
    idleTimeout: duration,
    public: z.boolean(),
    /** Attempts of asynchronous invocations after the first. */
    retries: z.number().int().min(0),
    /** Wait before the first of them; it doubles with each. */
    retryDelay: duration,
    maxEventAge: duration,
    /** Where outcomes of asynchronous invocations go: `function:NAME`, `topic:NAME`, `https://…`. */
    onSuccess: z.string().min(1),
    onFailure: z.string().min(1),
    destinationSecret: z.string().min(1),
    network: z.enum(["none", "egress", "host"]),
    /** What it may reach beyond the internet. */
    allowNetwork: z.array(z.string().min(1)),
    /** What its code may ask of the platform. */
    allow: z.array(z.string().min(1)),
    /** Cores. */
    cpu: z.number().positive(),
    description: z.string(),
    /** Deployed with the function, after it; those of before that are not named any more stay. */
    triggers: z.array(triggerSchema),
  })
  .partial();

/** What `koine.json` in a function's folder may say. */
export type ProjectFile = z.infer<typeof projectFileSchema>;
export type ProjectTrigger = z.infer<typeof triggerSchema>;

/** @throws CliFailure `invalid-project`, which names every place that is wrong */
export function parseProjectFile(text: string): ProjectFile {
  let content: unknown;
  try {
    content = JSON.parse(text);
  } catch (thrown) {
    const reason = thrown instanceof Error ? thrown.message : String(thrown);
    throw new CliFailure("invalid-project", `koine.json is not JSON: ${reason}`, "Correct it; see docs/cli.md.");
  }
  const parsed = projectFileSchema.safeParse(content);
  if (parsed.success) return parsed.data;
  const problems = parsed.error.issues.flatMap((issue) =>
    issue.code === "unrecognized_keys"
      ? issue.keys.map(unknownKey)
      : [`${issue.path.join(".") || "the file"}: ${issue.message}`],
  );
  throw new CliFailure(
    "invalid-project",
    `koine.json is not valid: ${problems.join("; ")}`,
    `It may hold: ${Object.keys(projectFileSchema.shape).slice(1).join(", ")}.`,
  );
}

function unknownKey(key: string): string {
  const near = nearest(key, Object.keys(projectFileSchema.shape));
  return `there is no '${key}'${near === null ? "" : ` (did you mean '${near}'?)`}`;
}

function isDuration(text: string): boolean {
  try {
    parseDuration(text);
    return true;
  } catch {
    return false;
  }
}
