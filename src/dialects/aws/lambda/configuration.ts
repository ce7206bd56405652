import { z } from "zod";
import type { FunctionSpec, Version } from "../../../core/function.ts";
import { functionArn, invalid } from "./names.ts";
import { type Configuration, LATEST, type LambdaRecord, type Snapshot } from "./records.ts";

const MIB = 1024 * 1024;

/** What CreateFunction and UpdateFunctionConfiguration may say. What the platform has no use for is kept and told again. */
export const configurationMembers = {
  Runtime: z.string().max(64).optional(),
  Role: z
    .string()
    .regex(/^arn:aws[\w-]*:iam::\d{12}:role\/?[\w+=,.@\-/]+$/, "Member must be the ARN of a role")
    .optional(),
  Handler: z.string().max(128).optional(),
  Description: z.string().max(256).optional(),
  Timeout: z.int().min(1).max(5_400).optional(),
  MemorySize: z.int().min(128).max(32_768).optional(),
  Environment: z.object({ Variables: z.record(z.string(), z.string()).optional() }).optional(),
  Layers: z.array(z.string().max(2_048)).max(5).optional(),
  DeadLetterConfig: z.object({ TargetArn: z.string().optional() }).optional(),
  EphemeralStorage: z.object({ Size: z.int().min(512).max(10_240) }).optional(),
  Architectures: z
    .array(z.enum(["x86_64", "arm64"]))
    .max(1)
    .optional(),
  ImageConfig: z
    .object({
      EntryPoint: z.array(z.string()).optional(),
      Command: z.array(z.string()).optional(),
      WorkingDirectory: z.string().optional(),
    })
    .optional(),
  TracingConfig: z.object({ Mode: z.enum(["Active", "PassThrough"]) }).optional(),
  LoggingConfig: z
    .object({
      LogFormat: z.enum(["JSON", "Text"]).optional(),
      ApplicationLogLevel: z.string().optional(),
      SystemLogLevel: z.string().optional(),
      LogGroup: z.string().optional(),
    })
    .optional(),
  VpcConfig: z.looseObject({}).optional(),
  KMSKeyArn: z.string().optional(),
  FileSystemConfigs: z.array(z.looseObject({})).optional(),
  SnapStart: z.object({ ApplyOn: z.enum(["PublishedVersions", "None"]) }).optional(),
  CapacityProviderConfig: z.looseObject({}).optional(),
  DurableConfig: z.looseObject({}).optional(),
  TenancyConfig: z.looseObject({}).optional(),
} as const;

const names = Object.keys(configurationMembers);

/** Variables that the platform sets itself. */
const RESERVED = new Set([
  "_HANDLER",
  "_X_AMZN_TRACE_ID",
  "AWS_DEFAULT_REGION",
  "AWS_REGION",
  "AWS_EXECUTION_ENV",
  "AWS_LAMBDA_FUNCTION_NAME",
  "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
  "AWS_LAMBDA_FUNCTION_VERSION",
  "AWS_LAMBDA_INITIALIZATION_TYPE",
  "AWS_LAMBDA_LOG_GROUP_NAME",
  "AWS_LAMBDA_LOG_STREAM_NAME",
  "AWS_ACCESS_KEY",
  "AWS_ACCESS_KEY_ID",
  "AWS_SECRET_ACCESS_KEY",
  "AWS_SESSION_TOKEN",
  "AWS_LAMBDA_RUNTIME_API",
  "LAMBDA_TASK_ROOT",
  "LAMBDA_RUNTIME_DIR",
]);

/** What of an input is configuration; members that are absent stay as they were. */
export function configurationOf(input: Readonly<Record<string, unknown>>, before: Configuration = {}): Configuration {
  const given = Object.fromEntries(names.flatMap((name) => (input[name] === undefined ? [] : [[name, input[name]]])));
  return { ...before, ...given };
}

/**
 * What a configuration asks of the platform.
 * @throws AwsError `InvalidParameterValueException`
 */
export function specOf(
  configuration: Configuration,
): Pick<FunctionSpec, "environment" | "memoryBytesMax" | "timeoutMs" | "description"> {
  const variables =
    (configuration["Environment"] as { Variables?: Record<string, string> } | undefined)?.Variables ?? {};
  const reserved = Object.keys(variables).filter((name) => RESERVED.has(name));
  if (reserved.length > 0)
    throw invalid(
      `Lambda was unable to configure your environment variables because the environment variables you have provided contains reserved keys that are currently not supported for modification. Reserved keys used in this request: ${reserved.join(", ")}`,
    );
  return {
    environment: variables,
    memoryBytesMax: Number(configuration["MemorySize"] ?? 128) * MIB,
    timeoutMs: Number(configuration["Timeout"] ?? 3) * 1_000,
    description: String(configuration["Description"] ?? ""),
  };
}

/** A FunctionConfiguration as it is answered. */
export function configurationShape(
  of: { readonly namespace: string; readonly name: string; readonly region: string; readonly qualified: boolean },
  snapshot: Snapshot,
  state: { readonly pending: "create" | "update" | null } = { pending: null },
): Record<string, unknown> {
  const { configuration, code } = snapshot;
  const { namespace, name, region } = of;
  const member = (key: string): unknown => configuration[key];
  const variables = member("Environment");
  const layers = member("Layers") as readonly string[] | undefined;
  const logging = member("LoggingConfig") as Record<string, unknown> | undefined;
  const isImage = code.packageType === "Image";
  const arn = functionArn(namespace, name, { region, qualifier: of.qualified ? snapshot.version : null });
  return {
    FunctionName: name,
    FunctionArn: of.qualified && snapshot.version === LATEST ? `${arn}:${LATEST}` : arn,
    ...(isImage ? {} : { Runtime: member("Runtime"), Handler: member("Handler") }),
    Role: member("Role"),
    CodeSize: code.size,
    Description: member("Description") ?? "",
    Timeout: member("Timeout") ?? 3,
    MemorySize: member("MemorySize") ?? 128,
    LastModified: new Date(snapshot.modifiedAtMs).toISOString().replace("Z", "+0000"),
    CodeSha256: code.sha256,
    Version: snapshot.version,
    ...(variables === undefined ? {} : { Environment: variables }),
    ...(layers === undefined || layers.length === 0
      ? {}
      : {
          Layers: layers.map((Arn) => ({
            Arn,
            CodeSize: snapshot.layers?.find(({ arn: used }) => used === Arn)?.size ?? 0,
          })),
        }),
    TracingConfig: member("TracingConfig") ?? { Mode: "PassThrough" },
    RevisionId: snapshot.revisionId,
    ...(state.pending === "create"
      ? { State: "Pending", StateReason: "The function is being created.", StateReasonCode: "Creating" }
      : { State: "Active" }),
    LastUpdateStatus: state.pending === "update" ? "InProgress" : "Successful",
    ...(state.pending === "update"
      ? { LastUpdateStatusReason: "The function is being created.", LastUpdateStatusReasonCode: "Creating" }
      : {}),
    PackageType: code.packageType,
    ...(isImage && member("ImageConfig") !== undefined
      ? { ImageConfigResponse: { ImageConfig: member("ImageConfig") } }
      : {}),
    Architectures: member("Architectures") ?? [process.arch === "arm64" ? "arm64" : "x86_64"],
    EphemeralStorage: member("EphemeralStorage") ?? { Size: 512 },
    SnapStart: {
      ApplyOn: (member("SnapStart") as { ApplyOn?: string } | undefined)?.ApplyOn ?? "None",
      OptimizationStatus: "Off",
    },
    RuntimeVersionConfig: isImage
      ? undefined
      : { RuntimeVersionArn: `arn:aws:lambda:${region}::runtime:${String(member("Runtime"))}` },
    LoggingConfig: { LogFormat: "Text", LogGroup: `/aws/lambda/${name}`, ...logging },
    ...Object.fromEntries(
      ["DeadLetterConfig", "VpcConfig", "KMSKeyArn", "FileSystemConfigs"].flatMap((key) =>
        member(key) === undefined ? [] : [[key, member(key)]],
      ),
    ),
  };
}

/** A record for a function that was deployed by other means: it is there, runs, and can be changed from here as well. */
export function adopted(version: Version): LambdaRecord["latest"] {
  const { spec } = version;
  return {
    version: LATEST,
    number: version.number,
    configuration: {
      Runtime: spec.runtime,
      Handler: spec.handler,
      Role: "arn:aws:iam::000000000000:role/none",
      Description: spec.description,
      Timeout: Math.max(1, Math.ceil(spec.timeoutMs / 1_000)),
      MemorySize: Math.round(spec.memoryBytesMax / MIB),
      Environment: { Variables: spec.environment },
    },
    code: {
      packageType: spec.image === undefined ? "Zip" : "Image",
      sha256: Buffer.from(spec.code.replace("sha256:", ""), "hex").toString("base64"),
      size: 0,
      digest: spec.code,
      ...(spec.image === undefined ? {} : { imageUri: spec.image }),
    },
    revisionId: `${version.specDigest.slice(7, 15)}-${version.specDigest.slice(15, 19)}-4000-8000-${version.specDigest.slice(19, 31)}`,
    modifiedAtMs: version.createdAtMs,
  };
}
