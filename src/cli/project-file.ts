import { z } from "zod";
import { CliFailure } from "./failure.ts";
import { parseDuration } from "./quantity.ts";
import { nearest } from "../core/nearest.ts";

const duration = z.string().refine(isDuration, "must be a duration such as 500ms, 30s, 5m, 2h");
const count = z.number().int().min(1);

const projectFileSchema = z
  .strictObject({
    $schema: z.string(),
    name: z.string().min(1),
    runtime: z.string().min(1),
    handler: z.string().min(1),
    handlerModel: z.string().min(1),
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
    description: z.string(),
  })
  .partial();

/** What `koine.json` in a function's folder may say. */
export type ProjectFile = z.infer<typeof projectFileSchema>;

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
