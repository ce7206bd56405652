import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { functionKey } from "../../core/function.ts";
import type { FunctionRef } from "../../core/function.ts";
import { inPackage } from "../address.ts";
import type { Session } from "../command.ts";
import { urlOf } from "../commands/deploy.ts";
import { logPrinter } from "../commands/logs.ts";
import { deployProject } from "../deployment.ts";
import type { Deployment } from "../deployment.ts";
import { CliFailure, toFailure } from "../failure.ts";
import { followLogs } from "../logs.ts";
import type { DeployFlags } from "../plan.ts";
import { nothingAt } from "../project-folder.ts";
import type { ProjectFolder } from "../project-folder.ts";
import { formatDuration, plural } from "../quantity.ts";
import { silent } from "../terminal.ts";
import { checkTypes, hasTypes } from "./type-check.ts";
import { afterChanges, watchPath } from "./watch.ts";

/** Changes that come closer together than this are one. */
const SETTLE_MS = 50;

/** Deploys what is at a path, and again whenever it changes, showing its logs and type errors, until the session's signal aborts. */
export async function develop(session: Session, path: string, flags: DeployFlags): Promise<void> {
  const target = resolve(session.io.cwd, path);
  if (!existsSync(target)) throw nothingAt(target);
  const development = new Development(session, path, flags);
  const ended = new Promise<never>((_, reject) => {
    session.signal.addEventListener("abort", () => reject(session.signal.reason), { once: true });
  });
  ended.catch(() => {});
  session.signal.throwIfAborted();
  const loop = afterChanges(session.io.clock, { settleMs: SETTLE_MS, run: () => development.deploy() });
  const watcher = watchPath(target, () => loop.changed());
  try {
    loop.now();
    await ended;
  } finally {
    watcher.close();
    loop.stop();
    development.stop();
  }
}

class Development {
  readonly #session: Session;
  readonly #path: string;
  readonly #flags: DeployFlags;
  #live: { readonly key: string; readonly version: number } | null = null;
  #following = new AbortController();
  #checking = new AbortController();
  #hadTypeErrors = false;

  constructor(session: Session, path: string, flags: DeployFlags) {
    this.#session = session;
    this.#path = path;
    this.#flags = flags;
  }

  /** One deploy; what fails is shown and never thrown, for the next change may mend it. */
  async deploy(): Promise<void> {
    const { io, output, signal } = this.#session;
    this.#checking.abort();
    const startMs = io.clock.monotonicMs();
    try {
      const progress = this.#live === null ? output.progress() : silent;
      const deployment = await deployProject(this.#session, {
        path: this.#path,
        flags: { ...this.#flags, check: true },
        progress,
      });
      this.#deployed(deployment, io.clock.monotonicMs() - startMs);
    } catch (thrown) {
      if (signal.aborted) return;
      output.failure(toFailure(thrown));
      output.note(
        this.#live === null
          ? "  waiting for a change"
          : `  version ${this.#live.version} keeps running; waiting for a change`,
      );
    }
  }

  stop(): void {
    this.#following.abort();
    this.#checking.abort();
  }

  #deployed(deployment: Deployment, durationMs: number): void {
    const { output } = this.#session;
    const { folder, plan, result } = deployment;
    const key = functionKey(plan.ref);
    const { number } = result.version;
    const isNew = this.#live === null || this.#live.key !== key;
    if (isNew || result.change !== "unchanged") {
      const where = isNew ? ` at ${urlOf(this.#session, deployment)}` : "";
      output.done(`${inPackage(plan.ref)} version ${number} live in ${formatDuration(durationMs)}${where}`);
      for (const note of plan.notes) output.note(note);
      if (output.json) output.line(JSON.stringify(result));
    }
    if (isNew) this.#follow(plan.ref);
    this.#live = { key, version: number };
    if (hasTypes(folder)) void this.#checkTypes(folder);
  }

  #follow(ref: FunctionRef): void {
    const { output, io } = this.#session;
    this.#following.abort();
    this.#following = new AbortController();
    const signal = AbortSignal.any([this.#following.signal, this.#session.signal]);
    const query = { since: new Date(io.clock.nowMs()).toISOString() };
    void followLogs(this.#session, ref, { query, signal, each: logPrinter(this.#session) }).catch((thrown: unknown) => {
      if (!signal.aborted) output.warn(`no logs: ${toFailure(thrown).message}`);
    });
  }

  async #checkTypes(folder: ProjectFolder): Promise<void> {
    const { io, output } = this.#session;
    this.#checking = new AbortController();
    const { signal } = this.#checking;
    const errors = await checkTypes(folder, { environment: io.environment, signal }).catch(() => null);
    if (errors === null || signal.aborted) return;
    if (errors.length > 0) {
      const count = errors.filter((line) => !line.startsWith(" ")).length;
      output.warn(`${plural(count, "type error")}; the function runs all the same`);
      for (const error of errors) output.note(`  ${error}`);
    } else if (this.#hadTypeErrors) {
      output.done("the types are right again");
    }
    this.#hadTypeErrors = errors.length > 0;
  }
}

/** Why `dev` ends without Ctrl-C. */
export function platformEnded(): CliFailure {
  return new CliFailure("platform-unreachable", "The platform that was started ended", "Start 'koine dev' again.");
}
