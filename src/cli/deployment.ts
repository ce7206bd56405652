import { resolve } from "node:path";
import type { CodeView, DeployProgress, DeployRequest, DeployResult } from "../core/api.ts";
import type { FunctionRef } from "../core/function.ts";
import { limits } from "../core/limits.ts";
import { functionPath } from "./address.ts";
import type { Session } from "./command.ts";
import { CliFailure, platformFailure } from "./failure.ts";
import type { PackedCode } from "./pack.ts";
import { packCode } from "./pack.ts";
import type { DeployFlags, DeployPlan } from "./plan.ts";
import { planDeploy, readEnvironment } from "./plan.ts";
import type { ProjectFolder } from "./project-folder.ts";
import { readProjectFolder } from "./project-folder.ts";
import { formatBytes, plural } from "./quantity.ts";
import { lines } from "./stream.ts";
import type { Progress } from "./terminal.ts";

export interface Deployment {
  readonly folder: ProjectFolder;
  readonly plan: DeployPlan;
  readonly result: DeployResult;
}

/** Most time from the request to the end of a deploy: an installation and the check, in milliseconds. */
const DEPLOY_MS_MAX = limits.buildTimeoutMs + limits.loadTimeoutMs + limits.bootTimeoutMs + 30_000;
/** Most time for an upload of the largest package, in milliseconds. */
const UPLOAD_MS_MAX = 30 * 60_000;

/**
 * Packs what is at `path`, uploads it unless the platform has it, and deploys it.
 * @throws CliFailure
 */
export async function deployProject(
  session: Session,
  options: { readonly path: string; readonly flags: DeployFlags; readonly progress: Progress },
): Promise<Deployment> {
  const { flags, progress } = options;
  const folder = await readProjectFolder(resolve(session.io.cwd, options.path));
  const environment = await readEnvironment(flags, session.io.cwd);
  const plan = planDeploy(folder, flags, { namespace: session.settings.namespace, environment });
  try {
    progress.phase("packing");
    const code = await packCode(folder.path);
    for (const warning of code.warnings) session.output.warn(warning);
    const digest = await ensureUploaded(session, code, progress);
    const result = await put(session, { ref: plan.ref, request: { ...plan.request, code: digest }, progress });
    return { folder, plan, result };
  } finally {
    progress.end();
  }
}

async function ensureUploaded(session: Session, code: PackedCode, progress: Progress): Promise<string> {
  const path = `/v1/code/${encodeURIComponent(code.digest)}`;
  const known = await session.client.send({ method: "HEAD", path, timeoutMs: 30_000 });
  known.resume();
  const status = known.statusCode ?? 0;
  if (status < 300) return code.digest;
  // An answer to HEAD has no body that could explain: the same path asked with GET would not exist.
  if (status !== 404) await session.client.json("GET", "/v1/runtimes");
  progress.phase(`uploading ${plural(code.files, "file")}, ${formatBytes(code.bytes)}`);
  const response = await session.client.send({
    method: "POST",
    path: "/v1/code",
    headers: { "content-type": "application/zip", accept: "application/json" },
    body: code.archive(),
    timeoutMs: UPLOAD_MS_MAX,
  });
  if ((response.statusCode ?? 0) >= 400) throw await session.client.failure(response);
  return ((await session.client.readJson(response)) as CodeView).digest;
}

async function put(
  session: Session,
  deploy: { readonly ref: FunctionRef; readonly request: DeployRequest; readonly progress: Progress },
): Promise<DeployResult> {
  const response = await session.client.send({
    method: "PUT",
    path: functionPath(session, deploy.ref),
    headers: { accept: "application/x-ndjson, application/json", "content-type": "application/json" },
    body: Buffer.from(JSON.stringify(deploy.request)),
    timeoutMs: DEPLOY_MS_MAX,
  });
  if ((response.statusCode ?? 0) >= 400) throw await session.client.failure(response);
  if (response.headers["content-type"]?.includes("ndjson") !== true) {
    return (await session.client.readJson(response)) as DeployResult;
  }
  for await (const line of lines(response)) {
    if (line === "") continue;
    const progress = JSON.parse(line) as DeployProgress;
    switch (progress.phase) {
      case "done":
        return progress.result;
      case "failed":
        throw platformFailure(progress.error);
      case "output":
        deploy.progress.line(progress.message);
        break;
      case "unpacking":
      case "installing":
      case "checking":
      case "publishing":
        deploy.progress.phase(progress.message === "" ? progress.phase : progress.message);
        break;
      default:
        progress satisfies never;
    }
  }
  throw new CliFailure(
    "unexpected-answer",
    "The platform ended the deploy without a result",
    "'koine get NAME' shows whether it took effect; deploy again otherwise.",
  );
}
