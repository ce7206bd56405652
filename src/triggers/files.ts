import { type FSWatcher, watch } from "node:fs";
import { opendir, realpath, stat } from "node:fs/promises";
import { join, relative, sep } from "node:path";
import { z } from "zod";
import { KoineError } from "../core/errors.ts";
import { limits } from "../core/limits.ts";
import { type Emit, type PullKind, pullKind, type SourceHost, type TriggerSource } from "./trigger.ts";

const FILES_MAX = 20_000;
const SETTLE_MS_DEFAULT = 500;
const SCAN_MS_DEFAULT = 30_000;

const schema = z.strictObject({
  folder: z
    .string()
    .min(1)
    .max(1_024)
    .startsWith("/", "must be an absolute path")
    .meta({ description: "Absolute path on the platform's machine." }),
  recursive: z.boolean().default(true).meta({ description: "Folders in it as well." }),
  suffixes: z
    .array(z.string().max(64))
    .default([])
    .meta({ description: "Only files that end so, such as .csv; empty: all." }),
  settleMs: z
    .int()
    .min(0)
    .max(600_000)
    .default(SETTLE_MS_DEFAULT)
    .meta({ description: "A file is told of when size and time stood still for so long." }),
  scanMs: z
    .int()
    .min(1_000)
    .max(3_600_000)
    .default(SCAN_MS_DEFAULT)
    .meta({ description: "Longest time between two looks at everything, for what the system did not tell." }),
  existing: z.boolean().default(false).meta({ description: "Whether files that are there at first are told of, too." }),
});

type Settings = z.output<typeof schema>;

/** Files that appear or change in a folder of the platform's machine. */
export function createFilesKind(folders: readonly string[]): PullKind {
  return pullKind({
    name: "files",
    summary: "files that appear, change or vanish in a folder of the platform's machine",
    settings: schema,
    abilities: { ordering: false, replay: true },
    open: (settings, host) => new Files(settings, host, folders),
    async check({ folder }) {
      await checkFolder(folder, folders);
    },
    sample: ({ folder }) => ({
      specversion: "1.0",
      id: "sample",
      source: `file://${folder}`,
      type: "koine.file.created",
      subject: "report.csv",
      datacontenttype: "application/json",
      data: { path: join(folder, "report.csv"), bytes: 1_024, modifiedAt: "2030-01-31T12:00:00.000Z" },
    }),
  });
}

/** What was told of, by path: size and time of change. */
type Seen = Map<string, string>;

interface Found {
  readonly path: string;
  readonly mark: string;
  readonly bytes: number;
  readonly modifiedMs: number;
}

class Files implements TriggerSource {
  readonly #settings: Settings;
  readonly #host: SourceHost;
  readonly #allowed: readonly string[];

  constructor(settings: Settings, host: SourceHost, allowed: readonly string[]) {
    this.#settings = settings;
    this.#host = host;
    this.#allowed = allowed;
  }

  async run(emit: Emit, signal: AbortSignal): Promise<void> {
    const { folder, settleMs, scanMs } = this.#settings;
    await checkFolder(folder, this.#allowed);
    const news = new News(folder, this.#settings.recursive);
    try {
      const seen = await this.#begin();
      this.#host.report({ state: "connected" });
      for (;;) {
        const unsettled = await this.#look(seen, emit, signal);
        await news.wait(this.#host, unsettled ? Math.max(settleMs, 20) : scanMs, signal);
      }
    } finally {
      news.close();
    }
  }

  async #begin(): Promise<Seen> {
    const stored = await this.#host.checkpoint.read();
    if (stored !== null) return new Map(Object.entries(JSON.parse(stored) as Record<string, string>));
    const seen: Seen = new Map();
    if (!this.#settings.existing) for (const { path, mark } of await this.#scan()) seen.set(path, mark);
    await this.#save(seen);
    return seen;
  }

  /** Tells of everything that is new, in the order of its change; answers whether something has yet to stand still. */
  async #look(seen: Seen, emit: Emit, signal: AbortSignal): Promise<boolean> {
    const { folder, settleMs } = this.#settings;
    const nowMs = this.#host.clock.nowMs();
    const found = await this.#scan();
    const here = new Set(found.map(({ path }) => path));
    const changed = found
      .filter(({ path, mark }) => seen.get(path) !== mark)
      .sort((a, b) => a.modifiedMs - b.modifiedMs || (a.path < b.path ? -1 : 1));
    const gone = [...seen.keys()].filter((path) => !here.has(path));
    const settled = changed.filter(({ modifiedMs }) => nowMs - modifiedMs >= settleMs || modifiedMs > nowMs);
    this.#host.report({ lag: { events: changed.length + gone.length, ms: null } });
    const created = settled.map(({ path, mark, bytes, modifiedMs }) => {
      const type = seen.has(path) ? "koine.file.changed" : "koine.file.created";
      const modifiedAt = new Date(modifiedMs).toISOString();
      return { path, mark, event: this.#event(type, path, mark, { path: join(folder, path), bytes, modifiedAt }) };
    });
    const deleted = gone.map((path) => {
      const event = this.#event("koine.file.deleted", path, `deleted ${seen.get(path)}`, { path: join(folder, path) });
      return { path, mark: null, event };
    });
    const news = [...created, ...deleted];
    for (let from = 0; from < news.length; from += limits.triggerInFlightMax) {
      signal.throwIfAborted();
      const some = news.slice(from, from + limits.triggerInFlightMax);
      await Promise.all(some.map(({ event }) => emit(event)));
      for (const { path, mark } of some) {
        if (mark === null) seen.delete(path);
        else seen.set(path, mark);
      }
      await this.#save(seen);
    }
    this.#host.report({ lag: { events: changed.length - settled.length, ms: null } });
    return settled.length < changed.length;
  }

  #event(type: string, path: string, mark: string, data: Readonly<Record<string, unknown>>) {
    return {
      specversion: "1.0" as const,
      // The same state of the same file is the same event.
      id: `${path} ${mark}`,
      source: `file://${this.#settings.folder}`,
      type,
      subject: path,
      time: new Date(this.#host.clock.nowMs()).toISOString(),
      datacontenttype: "application/json",
      data,
    };
  }

  async #save(seen: Seen): Promise<void> {
    await this.#host.checkpoint.write(JSON.stringify(Object.fromEntries(seen)));
  }

  async #scan(): Promise<readonly Found[]> {
    const { folder, recursive, suffixes } = this.#settings;
    const found: Found[] = [];
    const folders = [folder];
    for (let at = folders.pop(); at !== undefined; at = folders.pop()) {
      for await (const entry of await opendir(at)) {
        const path = join(at, entry.name);
        if (entry.isDirectory() && recursive) folders.push(path);
        if (!entry.isFile() || (suffixes.length > 0 && !suffixes.some((suffix) => entry.name.endsWith(suffix))))
          continue;
        // It may vanish in between.
        const facts = await stat(path).catch(() => null);
        if (facts === null) continue;
        found.push({
          path: relative(folder, path).split(sep).join("/"),
          mark: `${facts.size} ${facts.mtimeMs} ${facts.ino}`,
          bytes: facts.size,
          modifiedMs: facts.mtimeMs,
        });
        if (found.length > FILES_MAX)
          throw new KoineError("limit-exceeded", {
            what: `files in ${folder}`,
            value: found.length,
            allowed: `at most ${FILES_MAX}`,
          });
      }
    }
    return found;
  }
}

/** Wakes when the system says that something has changed; a look at everything follows, so nothing depends on it. */
class News {
  #watcher: FSWatcher | null = null;
  #wake: (() => void) | null = null;
  #some = false;

  constructor(folder: string, recursive: boolean) {
    try {
      this.#watcher = watch(folder, { recursive, persistent: false });
      const told = (): void => {
        this.#some = true;
        this.#wake?.();
      };
      this.#watcher.on("change", told);
      // Too many watches, or the folder is gone: the next look says so, or finds what there is.
      this.#watcher.on("error", told);
    } catch {
      this.#watcher = null;
    }
  }

  async wait({ clock }: SourceHost, mostMs: number, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    if (!this.#some) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#wake = resolve;
      const cancel = clock.after(mostMs, resolve);
      signal.addEventListener("abort", () => resolve(), { once: true });
      await promise;
      cancel();
      this.#wake = null;
    }
    this.#some = false;
    signal.throwIfAborted();
  }

  close(): void {
    this.#watcher?.close();
  }
}

/** Links are followed first, so that none leads out of what is allowed. */
async function checkFolder(folder: string, allowed: readonly string[]): Promise<void> {
  const roots = await Promise.all(allowed.map((root) => realpath(root).catch(() => root)));
  try {
    const real = await realpath(folder);
    if (!roots.some((root) => real === root || real.startsWith(root.endsWith("/") ? root : `${root}/`))) {
      const detail = `folder ${folder} is not within one that the operator allows with KOINE_TRIGGER_FOLDERS`;
      throw new KoineError("forbidden", { detail });
    }
    if (!(await stat(real)).isDirectory()) throw new Error("it is not a folder");
  } catch (thrown) {
    if (thrown instanceof KoineError) throw thrown;
    const detail = `folder ${folder} cannot be read: ${thrown instanceof Error ? thrown.message : String(thrown)}`;
    throw new KoineError("source-failed", { detail }, { cause: thrown });
  }
}
