import { chmod, mkdir, readFile, rename, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { DEFAULT_NAMESPACE } from "../core/function.ts";
import { CliFailure, usageFailure } from "./failure.ts";
import type { CliIo } from "./io.ts";
import { nearest } from "../core/nearest.ts";

/** A named platform to speak to. */
export interface Context {
  readonly url: string;
  readonly token?: string;
  readonly namespace?: string;
}

export interface ContextFile {
  /** Name of the context in use; null: none. */
  readonly current: string | null;
  readonly contexts: Readonly<Record<string, Context>>;
}

/** Where commands go and as whom. */
export interface Settings {
  readonly url: URL;
  readonly token: string | null;
  readonly namespace: string;
  /** The context that gave the address; null when it came from elsewhere. */
  readonly context: string | null;
}

export interface SettingsFlags {
  readonly url?: string;
  readonly namespace?: string;
  readonly context?: string;
}

export const DEFAULT_URL = "http://127.0.0.1:4000";

/**
 * Flags come before a context that was named, that before the environment, that before the current context. A context's token only goes
 * to that context's own address, so that `--url` cannot carry it elsewhere.
 * @throws CliFailure `usage` or `context-not-found`
 */
export async function readSettings(io: CliIo, flags: SettingsFlags): Promise<Settings> {
  const { KOINE_URL, KOINE_TOKEN, KOINE_NAMESPACE } = io.environment;
  const file = await readContexts(io);
  const named = flags.context === undefined ? null : contextNamed(file, flags.context);
  const name = flags.context ?? file.current;
  const context = named ?? (name === null ? null : (file.contexts[name] ?? null));
  const url = parseUrl(flags.url ?? named?.url ?? nonEmpty(KOINE_URL) ?? context?.url ?? DEFAULT_URL);
  const ofContext = context !== null && parseUrl(context.url).href === url.href ? context : null;
  const tokens = named === null ? [nonEmpty(KOINE_TOKEN), ofContext?.token] : [ofContext?.token, nonEmpty(KOINE_TOKEN)];
  return {
    url,
    token: tokens.find((token) => token !== undefined) ?? null,
    namespace:
      flags.namespace ?? named?.namespace ?? nonEmpty(KOINE_NAMESPACE) ?? ofContext?.namespace ?? DEFAULT_NAMESPACE,
    context: ofContext === null ? null : name,
  };
}

/** What the environment says about colour, progress and the details of defects. */
export function readDisplay(io: CliIo): {
  readonly colour: boolean;
  readonly moving: boolean;
  readonly debug: boolean;
} {
  const { NO_COLOR, TERM, KOINE_DEBUG } = io.environment;
  const capable = TERM !== "dumb";
  const quietColours = nonEmpty(NO_COLOR) !== undefined;
  return {
    colour: capable && !quietColours,
    moving: capable && !quietColours,
    debug: nonEmpty(KOINE_DEBUG) !== undefined,
  };
}

/** `$XDG_CONFIG_HOME/koine/config.json`, or below `~/.config`. */
export function contextPath(io: CliIo): string {
  const { XDG_CONFIG_HOME, HOME, APPDATA } = io.environment;
  const home = nonEmpty(HOME);
  const base =
    nonEmpty(XDG_CONFIG_HOME) ?? (home === undefined ? (nonEmpty(APPDATA) ?? io.cwd) : join(home, ".config"));
  return join(base, "koine", "config.json");
}

/** @throws CliFailure `file-not-usable` when the file holds something else */
export async function readContexts(io: CliIo): Promise<ContextFile> {
  const path = contextPath(io);
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (thrown) {
    if (thrown instanceof Error && "code" in thrown && thrown.code === "ENOENT") return { current: null, contexts: {} };
    throw thrown;
  }
  try {
    const parsed: unknown = JSON.parse(text);
    if (isContextFile(parsed)) return { current: parsed.current ?? null, contexts: parsed.contexts ?? {} };
  } catch {
    // Falls through to the one message for all that is wrong with the file.
  }
  throw new CliFailure("file-not-usable", `${path} is not a file of contexts`, "Correct or remove it.");
}

/** Replaces the file in one step; only its owner may read it, since it holds tokens. */
export async function writeContexts(io: CliIo, file: ContextFile): Promise<void> {
  const path = contextPath(io);
  const next = `${path}.${process.pid}.new`;
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  await writeFile(next, `${JSON.stringify(file, null, 2)}\n`, { mode: 0o600 });
  await chmod(next, 0o600);
  await rename(next, path);
}

/** @throws CliFailure `context-not-found` */
export function contextNamed(file: ContextFile, name: string): Context {
  const context = Object.hasOwn(file.contexts, name) ? file.contexts[name] : undefined;
  if (context !== undefined) return context;
  const near = nearest(name, Object.keys(file.contexts));
  const hint = near === null ? "'koine context list' shows what there is." : `Did you mean '${near}'?`;
  throw new CliFailure("context-not-found", `There is no context '${name}'`, hint);
}

/** @throws CliFailure `usage` */
export function parseUrl(text: string): URL {
  const url = URL.parse(text);
  if (url === null || (url.protocol !== "http:" && url.protocol !== "https:")) {
    throw usageFailure(`'${text}' is not the address of a platform`, `Write it as ${DEFAULT_URL}.`);
  }
  return url;
}

function isContextFile(parsed: unknown): parsed is Partial<ContextFile> {
  if (typeof parsed !== "object" || parsed === null) return false;
  const { current, contexts } = parsed as Record<"current" | "contexts", unknown>;
  if (current !== undefined && current !== null && typeof current !== "string") return false;
  if (contexts === undefined) return true;
  if (typeof contexts !== "object" || contexts === null) return false;
  return Object.values(contexts).every((context: unknown) => {
    if (typeof context !== "object" || context === null) return false;
    const { url, token, namespace } = context as Record<"url" | "token" | "namespace", unknown>;
    return (
      typeof url === "string" && [token, namespace].every((text) => text === undefined || typeof text === "string")
    );
  });
}

function nonEmpty(text: string | undefined): string | undefined {
  return text === undefined || text === "" ? undefined : text;
}
