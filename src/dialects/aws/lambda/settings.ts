import type { FunctionSpec } from "../../../core/function.ts";
import type { Configuration } from "./records.ts";
import { LATEST } from "./records.ts";

/** What a version of the platform is told of the API's configuration, in its annotations. */
export interface LambdaSettings {
  /** `$LATEST`, `1`, … */
  readonly version: string;
  readonly region: string;
  /** The managed runtime's name as it was asked for: `nodejs22.x`; empty for images. */
  readonly runtime: string;
  readonly role: string;
  /** Code packages that are seen at /opt, the later over the earlier. */
  readonly layers: readonly string[];
  readonly logging: Logging;
}

export interface Logging {
  readonly format: "Text" | "JSON";
  /** What the function's own lines must reach, with the format JSON. */
  readonly level: LogLevel;
  /** What the platform's lines about it must reach. */
  readonly systemLevel: LogLevel;
  readonly group: string | null;
}

export const LOG_LEVELS = ["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

const ANNOTATION = "aws.lambda";
const LAYERS_ANNOTATION = "aws.lambda.layers";

/** A version's annotations: equal settings make equal specs. */
export function annotationsOf(settings: LambdaSettings): Readonly<Record<string, string>> {
  const { layers, ...rest } = settings;
  return {
    [ANNOTATION]: JSON.stringify(rest),
    ...(layers.length === 0 ? {} : { [LAYERS_ANNOTATION]: layers.join(" ") }),
  };
}

/** Of versions that were made before there were any of these, what they would have been. */
export function settingsOf({ annotations, runtime }: Pick<FunctionSpec, "annotations" | "runtime">): LambdaSettings {
  const kept = annotations[ANNOTATION];
  const layers = layersOf(annotations);
  if (kept !== undefined) return { ...(JSON.parse(kept) as Omit<LambdaSettings, "layers">), layers };
  return { version: LATEST, region: "us-east-1", runtime, role: "", layers, logging: loggingOf({}) };
}

export function layersOf(annotations: Readonly<Record<string, string>>): readonly string[] {
  return annotations[LAYERS_ANNOTATION]?.split(" ") ?? [];
}

export function loggingOf(configuration: Configuration): Logging {
  const given = (configuration["LoggingConfig"] ?? {}) as Readonly<Record<string, string | undefined>>;
  return {
    format: given["LogFormat"] === "JSON" ? "JSON" : "Text",
    level: levelOf(given["ApplicationLogLevel"]),
    systemLevel: levelOf(given["SystemLogLevel"]),
    group: given["LogGroup"] ?? null,
  };
}

function levelOf(text: string | undefined): LogLevel {
  return LOG_LEVELS.find((level) => level === text) ?? "INFO";
}
