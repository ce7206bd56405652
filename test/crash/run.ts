import { mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { type Ending, Evidence, type FinalWord } from "./evidence.ts";
import { Life, type Sandbox } from "./life.ts";
import { Load } from "./load.ts";
import { Random } from "./random.ts";
import { Recorder } from "./recorder.ts";
import { judge, type Terms, type Verdict } from "./reader.ts";
import { ATTEMPTS_MAX, drained, finalWord, pauseSchedule, setScene } from "./scene.ts";

export interface CrashOptions {
  /** Where everything is kept; made, and emptied first. */
  readonly folder: string;
  readonly seed: number;
  /** How often the platform is ended. */
  readonly points: number;
  /** Points after which the queue runs empty, and everything is judged. */
  readonly pointsPerLap: number;
  readonly env?: Readonly<Record<string, string>>;
  /** Default `none`. */
  readonly sandbox?: Sandbox;
  readonly say: (line: string) => void;
  /** What besides being killed happens to the platform. */
  readonly fate?: Fate;
  /** Whether to end at the first lap that contradicts a promise; default true. */
  readonly stopAtViolation?: boolean;
}

/** What happens to a platform besides that it is killed. */
export interface Fate {
  readonly dataDirectory?: string;
  readonly env?: Readonly<Record<string, string>>;
  /** Before a life begins. */
  begins?(): void;
  /** While clients send; ends when the signal aborts. */
  during?(signal: AbortSignal): Promise<void>;
  /** After a life was killed, and all its processes with it; answers how that is to be called. */
  killed?(): Ending;
  /** Before the queue is to run empty. */
  beforeLap?(): void;
  /** What is not to be expected then. */
  readonly terms?: Partial<Terms>;
  end?(): void;
}

const EVENTS_PER_LIFE_MAX = 110;
const LOAD_MS_MAX = 10_000;
const LINGER_MS_MAX = 150;
const DRAIN_MS_MAX = 120_000;
const STOP_HALFWAY_MS_MAX = 150;

/** Runs a platform under load and ends it at random points, again and again on the same directory. */
export async function runCrashes(options: CrashOptions): Promise<Verdict> {
  const { folder, fate = {} } = options;
  for (const path of [folder, fate.dataDirectory ?? folder]) rmSync(path, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  const run = new CrashRun(options);
  try {
    return await run.run();
  } finally {
    await run.end();
    fate.end?.();
  }
}

class CrashRun {
  readonly #options: CrashOptions;
  readonly #fate: Fate;
  readonly #evidence: Evidence;
  readonly #random: Random;
  readonly #load: Load;
  readonly #dataDirectory: string;
  #life: Life | null = null;
  #recorder: Recorder | null = null;
  #lives = 0;
  #points = 0;
  /** How long a start took, of late: some points lie within it. */
  #startMs = 500;
  readonly #runs: Record<string, FinalWord["runs"][string]> = {};
  /** Those whose platform did not let go of them. */
  #orphans = 0;

  constructor(options: CrashOptions) {
    const { folder, seed, fate = {} } = options;
    this.#options = options;
    this.#fate = fate;
    this.#evidence = new Evidence(folder);
    this.#random = new Random(seed);
    this.#load = new Load({ evidence: this.#evidence, random: new Random(seed + 1), name: `s${seed}` });
    this.#dataDirectory = fate.dataDirectory ?? join(folder, "koine");
  }

  async run(): Promise<Verdict> {
    const { points, pointsPerLap, say, stopAtViolation = true } = this.#options;
    await this.#setScene();
    for (;;) {
      const until = Math.min(this.#points + pointsPerLap, points);
      while (this.#points < until) await this.#onePoint();
      const verdict = await this.#lap();
      say(`${this.#points} of ${points} points: ${this.#load.sent} sent, ${verdict.violations.length} violations`);
      if (this.#points >= points || (stopAtViolation && verdict.violations.length > 0)) return verdict;
    }
  }

  async end(): Promise<void> {
    await this.#life?.kill();
    this.#recorder?.close();
  }

  async #setScene(): Promise<void> {
    const life = this.#begin();
    const { notesFile } = this.#evidence;
    if (this.#options.sandbox === "process") this.#recorder = await Recorder.open(notesFile);
    await setScene(await life.url(), String(this.#recorder?.port ?? notesFile));
    await this.#stop(life);
  }

  async #onePoint(): Promise<void> {
    const random = this.#random;
    this.#points++;
    const life = this.#begin();
    if (random.chance(0.12)) {
      await Promise.race([sleep(random.next() * this.#startMs), life.ended]);
      return await this.#kill(life);
    }
    const begunMs = performance.now();
    const url = await life.url();
    this.#startMs = performance.now() - begunMs;
    const over = new AbortController();
    const sending = this.#load.run(url, { events: EVENTS_PER_LIFE_MAX, signal: over.signal });
    const meanwhile = this.#fate.during?.(over.signal);
    // By progress and not by time: a slow machine is to be ended in the midst of work, too.
    const until = this.#load.sent + random.between(1, EVENTS_PER_LIFE_MAX);
    const deadlineMs = performance.now() + LOAD_MS_MAX;
    while (this.#load.sent < until && performance.now() < deadlineMs) await sleep(5);
    await sleep(random.next() * LINGER_MS_MAX);
    if (random.chance(0.12)) {
      life.beginStop();
      await Promise.race([sleep(random.next() * STOP_HALFWAY_MS_MAX), life.ended]);
    }
    over.abort();
    await this.#kill(life);
    await Promise.all([sending, meanwhile]);
  }

  /** Lets the queue run empty, stops the platform in order, and judges everything so far. */
  async #lap(): Promise<Verdict> {
    this.#fate.beforeLap?.();
    const life = this.#begin();
    const url = await life.url();
    await pauseSchedule(url, "pause");
    await drained(url, DRAIN_MS_MAX);
    const { deadLetters, runs } = await finalWord(url, this.#newActivations());
    Object.assign(this.#runs, runs);
    await pauseSchedule(url, "resume");
    await this.#stop(life);
    const material = { notes: this.#evidence.notes(), clients: this.#evidence.clients() };
    const terms = { attemptsMax: ATTEMPTS_MAX, clockJumped: false, diskWasFull: false, ...this.#fate.terms };
    const { violations, figures } = judge({ ...material, final: { deadLetters, runs: this.#runs } }, terms);
    return {
      violations,
      figures: { points: this.#points, ...figures, "instances that outlived their platform": this.#orphans },
    };
  }

  #newActivations(): readonly string[] {
    const accepted = this.#evidence.clients().flatMap((told) => (told.kind === "accepted" ? [told.activation] : []));
    return [...new Set(accepted)].filter((id) => id !== "" && this.#runs[id] === undefined);
  }

  #begin(): Life {
    this.#fate.begins?.();
    this.#evidence.mark({ kind: "started", life: ++this.#lives });
    const { env, sandbox = "none" } = this.#options;
    this.#life = new Life({ dataDirectory: this.#dataDirectory, sandbox, env: { ...env, ...this.#fate.env } });
    return this.#life;
  }

  async #kill(life: Life): Promise<void> {
    this.#orphans += (await life.kill()).length;
    await this.#recorder?.quiet();
    this.#ended(this.#fate.killed?.() ?? "killed");
  }

  async #stop(life: Life): Promise<void> {
    await life.stop();
    await this.#recorder?.quiet();
    this.#ended("stopped");
  }

  #ended(how: Ending): void {
    this.#life = null;
    this.#evidence.mark({ kind: "ended", life: this.#lives, how });
  }
}
