import { existsSync } from "node:fs";
import { join } from "node:path";
import type { Version } from "../../../core/function.ts";
import type { LogRecord } from "../../../core/invocation.ts";
import type { Platform } from "../../../platform/platform.ts";
import type { GatewayRequest, InstanceSurroundings, Surroundings, VersionSurroundings } from "../../dialect.ts";
import type { IamAccess } from "../iam/access.ts";
import { streamNameOf } from "../logs/stream-name.ts";
import { accountIdOf } from "../account.ts";
import { Extensions } from "./extensions.ts";
import { functionArn } from "./names.ts";
import { InvocationReports } from "./reports.ts";
import { type LambdaSettings, layersOf, settingsOf } from "./settings.ts";
import { PROVIDED } from "./runtimes.ts";

export interface SurroundingsParts {
  readonly platform: Platform;
  readonly access: IamAccess;
  /** Takes requests of the SDKs; answers false for others. */
  handle(request: GatewayRequest): boolean;
}

const LAYERS_FOLDER = "/opt";
/** Where code is in process sandboxes; in images of this platform it is at /var/task. */
const TASK_ROOT = "/code";
const IMAGE_TASK_ROOT = "/var/task";
const BASE_PATH = "/usr/local/bin:/usr/bin:/bin";
const MIB = 1024 * 1024;

/** What functions of this API find around them: variables, layers, the keys of their role, and a way to the other services. */
export function lambdaSurroundings(parts: SurroundingsParts): Surroundings {
  const { platform } = parts;
  // What versions run from stays when a layer is deleted.
  platform.packageHolders.push(async () =>
    [...platform.parts.catalogue.all()].flatMap(({ versions }) =>
      [...versions.values()].flatMap(({ spec }) => layersOf(spec.annotations)),
    ),
  );
  return {
    prepare: (version, signal) => prepare(platform, version, signal),
    open: (version, instanceId) => open(parts, version, instanceId),
  };
}

async function prepare(platform: Platform, version: Version, signal: AbortSignal): Promise<VersionSurroundings> {
  const { spec } = version;
  const settings = settingsOf(spec);
  const environment = lambdaEnvironment(version, settings);
  const isImage = spec.image !== undefined;
  const launch = isImage ? null : await platform.parts.runtimes.get(spec.runtime)?.prepare(signal);
  const searched = searchPaths(launch?.environment["PATH"] ?? BASE_PATH, launch?.version ?? "");
  if (isImage || settings.layers.length === 0)
    return { environment: { ...searched.always, ...environment }, mounts: [] };
  const source = await platform.parts.packages.overlaid(settings.layers, signal);
  const mounts = [{ source, target: LAYERS_FOLDER }];
  const found = Object.fromEntries(
    Object.entries(searched.layers).flatMap(([name, folders]) => {
      const there = folders.filter((folder) => existsSync(join(source, folder.slice(LAYERS_FOLDER.length))));
      const all = [...there, ...(searched.always[name]?.split(":") ?? [])];
      return there.length === 0 ? [] : [[name, all.join(":")]];
    }),
  );
  return { environment: { ...searched.always, ...found, ...environment }, mounts };
}

/** Folders in which programs and modules are looked for; those of layers only where there are such. */
function searchPaths(
  path: string,
  runtimeVersion: string,
): {
  readonly always: Readonly<Record<string, string>>;
  readonly layers: Readonly<Record<string, readonly string[]>>;
} {
  const [major = "", minor = ""] = runtimeVersion.split(".");
  return {
    always: { PATH: path, LD_LIBRARY_PATH: `${TASK_ROOT}:${TASK_ROOT}/lib` },
    layers: {
      PATH: ["/opt/bin"],
      LD_LIBRARY_PATH: ["/opt/lib"],
      NODE_PATH: [`/opt/nodejs/node${major}/node_modules`, "/opt/nodejs/node_modules"],
      PYTHONPATH: [`/opt/python/lib/python${major}.${minor}/site-packages`, "/opt/python"],
      RUBYLIB: ["/opt/ruby/lib"],
      CLASSPATH: ["/opt/java/lib"],
    },
  };
}

/** The same for all instances of a version. */
function lambdaEnvironment(version: Version, settings: LambdaSettings): Readonly<Record<string, string>> {
  const { name, spec } = version;
  const { region, runtime, logging } = settings;
  const isImage = spec.image !== undefined;
  const isManaged = !isImage && runtime !== "" && !PROVIDED.test(runtime);
  return {
    _HANDLER: spec.handler,
    AWS_REGION: region,
    AWS_DEFAULT_REGION: region,
    ...(isManaged ? { AWS_EXECUTION_ENV: `AWS_Lambda_${runtime}` } : {}),
    AWS_LAMBDA_FUNCTION_NAME: name,
    AWS_LAMBDA_FUNCTION_VERSION: settings.version,
    AWS_LAMBDA_FUNCTION_MEMORY_SIZE: String(Math.round(spec.memoryBytesMax / MIB)),
    AWS_LAMBDA_INITIALIZATION_TYPE: "on-demand",
    AWS_LAMBDA_LOG_GROUP_NAME: logging.group ?? `/aws/lambda/${name}`,
    AWS_LAMBDA_LOG_FORMAT: logging.format,
    ...(logging.format === "JSON" ? { AWS_LAMBDA_LOG_LEVEL: logging.level } : {}),
    ...(spec.instanceConcurrency > 1 ? { AWS_LAMBDA_MAX_CONCURRENCY: String(spec.instanceConcurrency) } : {}),
    LAMBDA_TASK_ROOT: isImage ? IMAGE_TASK_ROOT : TASK_ROOT,
    LAMBDA_RUNTIME_DIR: "/var/runtime",
    TZ: ":UTC",
  };
}

function open(parts: SurroundingsParts, version: Version, instanceId: string): InstanceSurroundings {
  const { platform, access, handle } = parts;
  const { journal, clock } = platform.parts;
  const { spec } = version;
  const settings = settingsOf(spec);
  const { namespace, name, number: versionNumber } = version;
  const line = (record: Pick<LogRecord, "activationId" | "line" | "timeMs">): void =>
    journal.line({
      ...record,
      namespace,
      package: version.package,
      name,
      version: versionNumber,
      instanceId,
      stream: "platform",
    });
  const watch = new InvocationReports({ version, settings, line, nowMs: () => clock.nowMs() });
  watch.starting();
  const extensions = new Extensions({
    functionName: name,
    functionVersion: settings.version,
    handler: spec.handler,
    accountId: accountIdOf(namespace),
    invokedFunctionArn: functionArn(namespace, name, { region: settings.region, qualifier: settings.version }),
    timeoutMs: spec.timeoutMs,
    supervise: platform.parts.supervise,
    nowMs: () => clock.nowMs(),
    line: (text) => line({ activationId: null, line: text, timeMs: clock.nowMs() }),
  });
  return {
    environment: (url) => {
      const keys = access.openExecution(namespace, { roleArn: settings.role, sessionName: name });
      return {
        AWS_LAMBDA_LOG_STREAM_NAME: streamNameOf(instanceId, settings.version),
        AWS_ACCESS_KEY_ID: keys.accessKeyId,
        AWS_SECRET_ACCESS_KEY: keys.secretAccessKey,
        AWS_SESSION_TOKEN: keys.sessionToken,
        // Programs have one of their own, at which there is the Runtime API.
        ...(url === null || spec.protocol !== undefined ? {} : { AWS_LAMBDA_RUNTIME_API: url.slice("http://".length) }),
        ...(url === null || spec.environment["AWS_ENDPOINT_URL"] !== undefined ? {} : { AWS_ENDPOINT_URL: url }),
      };
    },
    handle: (request) => extensions.handle(request) || handle(request),
    watch: {
      started: (id, timeMs) => {
        watch.started(id, timeMs);
        extensions.invoked(id, timeMs);
      },
      finished: (activation) => watch.finished(activation),
      stopping: () => extensions.stopping(),
    },
  };
}
