import { readdirSync, statSync, watch } from "node:fs";
import type { FSWatcher } from "node:fs";
import { basename, dirname, join } from "node:path";
import type { Clock } from "../../core/clock.ts";
import { CliFailure } from "../failure.ts";

/** Folders in which nobody edits code, some of them too large to watch. */
const NOT_WATCHED = new Set([".git", ".koine", "node_modules", "__pycache__", ".venv", ".pytest_cache"]);
const NOT_CODE = /(?:\.log|\.swp|\.swx|~)$|^(?:4913|\.DS_Store)$/;

/**
 * Calls back with the path, relative to the root, of everything that changes in a folder and below, or of a single file. Watches folders
 * one by one: the recursive watch of Node loses files that an editor replaces by renaming.
 * @throws CliFailure `file-not-usable` when the system allows no more watches
 */
export function watchPath(path: string, changed: (path: string) => void): { close(): void } {
  if (!statSync(path).isDirectory()) {
    const name = basename(path);
    const watcher = watch(dirname(path), (_, file) => {
      if (file === name) changed(name);
    });
    return watcher;
  }
  const watchers = new Map<string, FSWatcher>();
  const remove = (folder: string): void => {
    watchers.get(folder)?.close();
    watchers.delete(folder);
  };
  const add = (folder: string): void => {
    if (watchers.has(folder)) return;
    const watcher = watchFolder(join(path, folder), (name) => {
      if (NOT_WATCHED.has(name) || NOT_CODE.test(name)) return;
      const entry = join(folder, name);
      if (isFolder(join(path, entry))) add(entry);
      else remove(entry);
      changed(entry);
    });
    watchers.set(folder, watcher);
    watcher.on("error", () => remove(folder));
    for (const entry of readdirSync(join(path, folder), { withFileTypes: true })) {
      if (entry.isDirectory() && !NOT_WATCHED.has(entry.name)) add(join(folder, entry.name));
    }
  };
  add("");
  return {
    close() {
      for (const watcher of watchers.values()) watcher.close();
      watchers.clear();
    },
  };
}

/**
 * Runs something a moment after the last of a burst of changes, never twice at a time; changes during a run lead to one more. `run` must
 * not reject.
 */
export function afterChanges(
  clock: Clock,
  options: { readonly settleMs: number; readonly run: () => Promise<void> },
): { changed(): void; now(): void; stop(): void } {
  let cancel: (() => void) | null = null;
  let state: "idle" | "waiting" | "running" | "running, changed again" | "stopped" = "idle";
  const start = (): void => {
    cancel = null;
    state = "running";
    void options.run().then(() => {
      const again = state === "running, changed again";
      if (state !== "stopped") state = "idle";
      if (again) changed();
    });
  };
  const changed = (): void => {
    switch (state) {
      case "waiting":
      case "idle":
        cancel?.();
        state = "waiting";
        cancel = clock.after(options.settleMs, start);
        return;
      case "running":
        state = "running, changed again";
        return;
      case "running, changed again":
      case "stopped":
        return;
      default:
        state satisfies never;
    }
  };
  return {
    changed,
    /** Runs without waiting; for the first time. */
    now: start,
    stop() {
      cancel?.();
      state = "stopped";
    },
  };
}

function watchFolder(folder: string, changed: (name: string) => void): FSWatcher {
  try {
    return watch(folder, (_, name) => {
      if (name !== null) changed(name);
    });
  } catch (thrown) {
    if (!(thrown instanceof Error && "code" in thrown && (thrown.code === "ENOSPC" || thrown.code === "EMFILE"))) {
      throw thrown;
    }
    throw new CliFailure(
      "file-not-usable",
      `The system allows no more watches than those in use (at ${folder})`,
      "Raise fs.inotify.max_user_watches and max_user_instances, or watch a smaller folder.",
    );
  }
}

function isFolder(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
}
