import { readFile } from "node:fs/promises";
import { resolve } from "node:path";
import type { TriggerRequestBody, TriggerView } from "../core/api.ts";
import { usageFailure } from "./failure.ts";
import type { CliIo } from "./io.ts";
import { parseCount, parseDuration } from "./quantity.ts";

/** The options of `trigger create` and `update`, as they stand on the command line. */
export interface TriggerFlags {
  readonly kind?: string;
  readonly function?: string;
  readonly set?: readonly string[];
  readonly settings?: string;
  readonly cron?: string;
  readonly rate?: string;
  readonly at?: string;
  readonly timezone?: string;
  readonly topic?: string;
  readonly filter?: string;
  readonly batchSize?: string;
  readonly batchWindow?: string;
  readonly ordering?: "none" | "key" | "all";
  readonly attempts?: string;
  readonly retryDelay?: readonly string[];
  readonly maxAge?: string;
  readonly priority?: "high" | "normal" | "low";
  readonly description?: string;
  readonly paused?: boolean;
}

/**
 * What flags ask for, on top of what is there.
 * @throws CliFailure `usage`, `file-not-usable`
 */
export async function planTrigger(
  io: Pick<CliIo, "cwd">,
  flags: TriggerFlags,
  before: TriggerView | null,
): Promise<Omit<TriggerRequestBody, "function"> & { readonly function?: string }> {
  const kind = flags.kind ?? before?.kind ?? impliedKind(flags);
  if (kind === undefined) {
    const hint = "Write --kind KIND, or one of --cron, --rate, --at, --topic; 'koine trigger kinds' lists the kinds.";
    throw usageFailure("The kind of the trigger is not said", hint);
  }
  const given = await givenSettings(io, flags);
  const times = ["cron", "rate", "at"] as const;
  const kept = { ...(kind === before?.kind ? (before.settings as Record<string, unknown>) : {}) };
  // One time replaces another.
  if (times.some((name) => given[name] !== undefined)) for (const name of times) delete kept[name];
  const filter = flags.filter === undefined ? before?.filter : await jsonOf(io, flags.filter, "--filter");
  const batch = batchOf(flags, before);
  const retry = { ...before?.retry, ...retryOf(flags) };
  const target = flags.function ?? before?.function;
  return {
    kind,
    settings: { ...kept, ...given },
    ...(target === undefined ? {} : { function: target }),
    ...(filter === undefined || filter === null ? {} : { filter }),
    ...(batch === null ? {} : { batch }),
    ...(Object.keys(retry).length === 0 ? {} : { retry }),
    ...(flags.ordering === undefined
      ? before === null
        ? {}
        : { ordering: before.ordering }
      : { ordering: flags.ordering }),
    ...(flags.priority === undefined
      ? before === null
        ? {}
        : { priority: before.priority }
      : { priority: flags.priority }),
    ...(flags.description === undefined
      ? before === null
        ? {}
        : { description: before.description }
      : { description: flags.description }),
    ...(flags.paused === undefined ? {} : { paused: flags.paused }),
  };
}

/** JSON that stands there, or in `@FILE`. @throws CliFailure `usage` */
export async function jsonOf(io: Pick<CliIo, "cwd">, text: string, option: string): Promise<unknown> {
  const source = text.startsWith("@") ? await readFile(resolve(io.cwd, text.slice(1)), "utf8") : text;
  try {
    return JSON.parse(source);
  } catch (thrown) {
    const reason = thrown instanceof Error ? thrown.message : String(thrown);
    throw usageFailure(
      `${option} is not JSON: ${reason}`,
      `Write ${option} '{"type":["order.paid"]}', or ${option} @file.json.`,
    );
  }
}

function impliedKind(flags: TriggerFlags): string | undefined {
  if (flags.cron !== undefined || flags.rate !== undefined || flags.at !== undefined) return "schedule";
  return flags.topic === undefined ? undefined : "topic";
}

async function givenSettings(io: Pick<CliIo, "cwd">, flags: TriggerFlags): Promise<Record<string, unknown>> {
  const whole = flags.settings === undefined ? {} : await jsonOf(io, flags.settings, "--settings");
  if (typeof whole !== "object" || whole === null || Array.isArray(whole))
    throw usageFailure("--settings is not a JSON object", `Write --settings '{"cron":"0 3 * * *"}'.`);
  const settings: Record<string, unknown> = { ...whole };
  for (const pair of flags.set ?? []) {
    const equals = pair.indexOf("=");
    if (equals < 1)
      throw usageFailure(
        `'${pair}' is not a setting`,
        "Write --set NAME=VALUE; --set a.b=VALUE for a field of a field.",
      );
    place(settings, pair.slice(0, equals).split("."), settingValue(pair.slice(equals + 1)));
  }
  const { cron, rate, at, timezone, topic } = flags;
  for (const [name, value] of Object.entries({ cron, rate, at, timezone, topic }))
    if (value !== undefined) settings[name] = value;
  return settings;
}

/** `secret:NAME` names a secret; JSON is itself; anything else is a text. */
function settingValue(text: string): unknown {
  if (text.startsWith("secret:")) return { secret: text.slice("secret:".length) };
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

function place(into: Record<string, unknown>, [name = "", ...rest]: readonly string[], value: unknown): void {
  // A name such as __proto__ becomes a field like any other.
  const set = (field: unknown): void =>
    void Object.defineProperty(into, name, { value: field, enumerable: true, configurable: true, writable: true });
  if (rest.length === 0) {
    set(value);
    return;
  }
  const own = Object.hasOwn(into, name) ? into[name] : undefined;
  const inner = typeof own === "object" && own !== null ? { ...own } : {};
  place(inner, rest, value);
  set(inner);
}

function batchOf(
  flags: TriggerFlags,
  before: TriggerView | null,
): { readonly size?: number; readonly windowMs?: number } | null {
  if (flags.batchSize === undefined && flags.batchWindow === undefined) return before?.batch ?? null;
  return {
    ...before?.batch,
    ...(flags.batchSize === undefined ? {} : { size: parseCount(flags.batchSize, "a number for --batch-size") }),
    ...(flags.batchWindow === undefined ? {} : { windowMs: parseDuration(flags.batchWindow) }),
  };
}

function retryOf(flags: TriggerFlags): NonNullable<TriggerRequestBody["retry"]> {
  return {
    ...(flags.attempts === undefined ? {} : { attemptsMax: parseCount(flags.attempts, "a number for --attempts") }),
    ...(flags.maxAge === undefined ? {} : { ageMsMax: parseDuration(flags.maxAge) }),
    ...(flags.retryDelay === undefined ? {} : { delaysMs: flags.retryDelay.map(parseDuration) }),
  };
}
