import { resolve } from "node:path";
import type {
  CodeView,
  DeployProgress,
  DeployRequest,
  DeployResult,
  TriggerRequestBody,
  TriggerView,
} from "../core/api.ts";
import type { FunctionRef } from "../core/function.ts";
import { limits } from "../core/limits.ts";
import { functionPath, inPackage, namespacePath } from "./address.ts";
import type { Session } from "./command.ts";
import { CliFailure, platformFailure } from "./failure.ts";
import type { PackedCode } from "./pack.ts";
import { packCode } from "./pack.ts";
import type { DeployFlags, DeployPlan } from "./plan.ts";
import { planDeploy, readEnvironment } from "./plan.ts";
import type { ProjectFolder } from "./project-folder.ts";
import { noFolder, readProjectFolder } from "./project-folder.ts";
import type { ProjectTrigger } from "./project-file.ts";
import { formatBytes, parseDuration, plural } from "./quantity.ts";
import { lines } from "./stream.ts";
import type { Progress } from "./terminal.ts";

export interface Deployment {
  readonly folder: ProjectFolder;
  readonly plan: DeployPlan;
  readonly result: DeployResult;
  /** Those of koine.json, as they are now. */
  readonly triggers: readonly TriggerView[];
}

/** Most time from the request to the end of a deploy: an installation and the check, in milliseconds. */
const DEPLOY_MS_MAX = limits.imagePullMs + limits.buildTimeoutMs + limits.loadTimeoutMs + limits.bootTimeoutMs + 30_000;
/** Most time for an upload of the largest package, in milliseconds. */
const UPLOAD_MS_MAX = 30 * 60_000;

/**
 * Packs what is at `path`, uploads it unless the platform has it, and deploys it.
 * @throws CliFailure
 */
export async function deployProject(
  session: Session,
  options: { readonly path: string | undefined; readonly flags: DeployFlags; readonly progress: Progress },
): Promise<Deployment> {
  const { flags, progress } = options;
  const { cwd } = session.io;
  // An image needs no folder; one that is named may say more about it.
  const isAlone = flags.image !== undefined && options.path === undefined;
  const folder = isAlone ? noFolder(cwd) : await readProjectFolder(resolve(cwd, options.path ?? "."));
  const environment = await readEnvironment(flags, session.io.cwd);
  const plan = planDeploy(folder, flags, { namespace: session.settings.namespace, environment });
  try {
    const code = plan.image?.kind === "image" ? {} : { code: await uploadFolder(session, { folder, plan, progress }) };
    const result = await put(session, { ref: plan.ref, request: { ...plan.request, ...code }, progress });
    const triggers = await putTriggers(session, plan.ref, folder.projectFile?.triggers ?? [], progress);
    return { folder, plan, result, triggers };
  } finally {
    progress.end();
  }
}

/** Packs what is in the folder, and answers its digest once the platform has it. */
async function uploadFolder(
  session: Session,
  {
    folder,
    plan,
    progress,
  }: { readonly folder: ProjectFolder; readonly plan: DeployPlan; readonly progress: Progress },
): Promise<string> {
  progress.phase("packing");
  const code = await packCode(folder.path, plan.image?.kind === "build" ? { dockerfile: plan.image.dockerfile } : {});
  for (const warning of code.warnings) session.output.warn(warning);
  return await ensureUploaded(session, code, progress);
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

async function putTriggers(
  session: Session,
  ref: FunctionRef,
  triggers: readonly ProjectTrigger[],
  progress: Progress,
): Promise<readonly TriggerView[]> {
  const views: TriggerView[] = [];
  for (const { name, batch, retry, ...rest } of triggers) {
    progress.phase(`trigger ${name}`);
    const request: TriggerRequestBody = {
      ...(rest as Omit<TriggerRequestBody, "function">),
      function: inPackage(ref),
      ...(batch === undefined ? {} : { batch: batchOf(batch) }),
      ...(retry === undefined ? {} : { retry: retryOf(retry) }),
    };
    const path = namespacePath(session, `/triggers/${encodeURIComponent(name)}`, ref.namespace);
    views.push(await session.client.json<TriggerView>("PUT", path, request));
  }
  return views;
}

function batchOf({ size, window }: NonNullable<ProjectTrigger["batch"]>): NonNullable<TriggerRequestBody["batch"]> {
  return {
    ...(size === undefined ? {} : { size }),
    ...(window === undefined ? {} : { windowMs: parseDuration(window) }),
  };
}

function retryOf({
  attempts,
  maxAge,
  delays,
}: NonNullable<ProjectTrigger["retry"]>): NonNullable<TriggerRequestBody["retry"]> {
  return {
    ...(attempts === undefined ? {} : { attemptsMax: attempts }),
    ...(maxAge === undefined ? {} : { ageMsMax: parseDuration(maxAge) }),
    ...(delays === undefined ? {} : { delaysMs: delays.map(parseDuration) }),
  };
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
