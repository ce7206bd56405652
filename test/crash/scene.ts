import { setTimeout as sleep } from "node:timers/promises";
import type { DeadLetterView, Page, RunView } from "../../src/core/api.ts";
import { deploy, manage, read, send } from "../system/api.ts";
import type { DeadLetterWord, FinalWord, RunWord } from "./evidence.ts";
import { AUDIT, EVENTS, WORK } from "./functions.ts";

const NS = "/v1/namespaces/default";
export const ATTEMPTS_MAX = 3;
const RUNS_ASKED_AT_A_TIME = 8;

/** Deploys what the load needs. `record` is where its functions note what they get: a file, or the port of the recorder. */
export async function setScene(url: string, record: string): Promise<void> {
  const target = { url };
  const spec = {
    environment: { RECORD: record },
    instanceConcurrency: 100,
    check: false,
    retry: { attemptsMax: ATTEMPTS_MAX, delayMs: 50 },
  };
  await deploy(target, "audit", AUDIT, { spec });
  await deploy(target, "events", EVENTS, { spec });
  const destinations = { onSuccess: "function:audit", onFailure: "function:audit" };
  await deploy(target, "work", WORK, { spec: { ...spec, destinations } });
  await done(manage(target, "PUT", `${NS}/topics/made`, {}));
  const retry = { attemptsMax: ATTEMPTS_MAX, delaysMs: [50] };
  const triggers = {
    single: { kind: "topic", settings: { topic: "made" }, retry },
    batches: { kind: "topic", settings: { topic: "made" }, batch: { size: 4 }, retry },
    slots: { kind: "schedule", settings: { cron: "* * * * * *", catchUp: "all" }, retry },
  };
  for (const [name, trigger] of Object.entries(triggers))
    await done(manage(target, "PUT", `${NS}/triggers/${name}`, { function: "events", ...trigger }));
}

export async function pauseSchedule(url: string, how: "pause" | "resume"): Promise<void> {
  await done(manage({ url }, "POST", `${NS}/triggers/slots/${how}`));
}

/** Waits until nothing is in the queue. @throws Error after the time, with what is still there */
export async function drained(url: string, withinMs: number): Promise<void> {
  const deadlineMs = Date.now() + withinMs;
  for (;;) {
    const { queue } = await read<{ readonly queue: { readonly waiting: number; readonly leased: number } }>(
      { url },
      "/v1/status",
    );
    if (queue.waiting + queue.leased === 0) return;
    if (Date.now() > deadlineMs)
      throw new Error(`the queue is not empty after ${withinMs} ms: ${JSON.stringify(queue)}`);
    await sleep(50);
  }
}

/** What the platform says of dead letters, and of these activations. */
export async function finalWord(url: string, activations: readonly string[]): Promise<FinalWord> {
  const deadLetters: DeadLetterWord[] = [];
  for (let after: string | null = ""; after !== null;) {
    const from = after === "" ? "" : `&after=${after}`;
    const page: Page<DeadLetterView> = await read({ url }, `${NS}/dead-letters?limit=100${from}`);
    for (const { id, name, attempts, reason, code } of page.items)
      deadLetters.push({ id, name, attempts, reason, code });
    after = page.next;
  }
  const runs: Record<string, RunWord> = {};
  const left = [...activations];
  const ask = async (): Promise<void> => {
    for (let id = left.pop(); id !== undefined; id = left.pop()) runs[id] = await runWord(url, id);
  };
  await Promise.all(Array.from({ length: RUNS_ASKED_AT_A_TIME }, ask));
  return { deadLetters, runs };
}

async function runWord(url: string, id: string): Promise<RunWord> {
  const answer = await send({ url }, `${NS}/activations/${id}`);
  if (answer.status === 404) return { state: null, queued: false, deadLetter: false };
  if (answer.status !== 200)
    throw new Error(`asking for activation ${id} was answered ${answer.status}: ${answer.text}`);
  const { state, queued, deadLetter } = JSON.parse(answer.text) as RunView;
  return { state, queued: queued !== null, deadLetter };
}

async function done(answered: ReturnType<typeof manage>): Promise<void> {
  const { status, text } = await answered;
  if (status >= 300) throw new Error(`the scene could not be set: ${status} ${text}`);
}
