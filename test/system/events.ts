import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { deploy, manage } from "./api.ts";
import { type RunningPlatform, startPlatform } from "./platform.ts";

/** A real server with a place for events: a topic, a queue, a table. */
export interface EventPlace extends AsyncDisposable {
  readonly kind: string;
  readonly settings: Readonly<Record<string, unknown>>;
  readonly secrets: Readonly<Record<string, string>>;
  /** Further members of the trigger, such as `batch`. */
  readonly trigger?: Readonly<Record<string, unknown>>;
  /** Sends events; when it resolves, the server has them durably. The text must be somewhere in the event's data. */
  publish(texts: readonly string[]): Promise<void>;
  /** Ends and starts the server, with what it has. Nothing is published meanwhile. */
  restartServer(): Promise<void>;
}

export interface EventStory {
  readonly name: string;
  open(): Promise<EventPlace>;
  /** Events at most, where the server itself is too slow for more. */
  readonly most?: number;
  /** How many are sent with one call of `publish`. */
  readonly chunk?: number;
}

export interface StoryEnd {
  readonly events: number;
  readonly lost: number;
  readonly duplicates: number;
  readonly seconds: number;
  /** Events that had been handled when the platform was killed, each time, and when the server was restarted. */
  readonly killedAt: readonly number[];
  readonly restartedAt: number;
}

/** Writes what it gets to a file, which outlives every kill. */
const RECORDER = `import { appendFileSync } from "node:fs";
export default async (request) => {
  const text = await request.text();
  appendFileSync(process.env.RECORD, (text.match(/n\\d{7}/g) ?? ["strange " + text.slice(0, 200)]).join("\\n") + "\\n");
  return new Response(null, { status: 204 });
};`;

/** A text and the end of its line. */
const LINE_BYTES = 9;
const CHUNK_DEFAULT = 500;
/** Of all events, how many may be on their way. */
const AHEAD_SHARE = 0.15;
/** Without one more event for so long it is over; longer than any broker hides what a killed consumer had. */
const STILL_MS_MAX = 180_000;

/**
 * Sends events through a real server to a function, kills the platform twice and restarts the server once while they flow, and counts at the function
 * what came.
 */
export async function tellEvents({ open, most, chunk = CHUNK_DEFAULT }: EventStory, wanted: number): Promise<StoryEnd> {
  const count = Math.min(wanted, most ?? wanted);
  const scratch = mkdtempSync(join(tmpdir(), "koine-events-"));
  const record = join(scratch, "record");
  writeFileSync(record, "");
  await using opened = new AsyncDisposableStack();
  opened.defer(() => rmSync(scratch, { recursive: true, force: true }));
  const place = opened.use(await open());
  const platform = opened.use(await startPlatform({ sandbox: "none" }));
  await begin(platform, place, record);
  const begunMs = performance.now();
  const handled = (): number => Math.floor(statSync(record).size / LINE_BYTES);
  const killedAt: number[] = [];
  const kill = async (): Promise<void> => {
    killedAt.push(handled());
    await platform.kill9();
    await platform.restart();
  };
  let restartedAt = 0;
  let killing = Promise.resolve();
  const chunks = Math.ceil(count / chunk);
  const [firstKill, restart, secondKill] = [0.3, 0.55, 0.8].map((part) => Math.max(1, Math.floor(chunks * part)));
  const ahead = Math.max(2 * chunk, count * AHEAD_SHARE);
  for (let index = 0; index < chunks; index++) {
    // So that whatever happens does so while events are at every place on their way.
    await until(() => index * chunk - handled() <= ahead);
    const texts = Array.from({ length: Math.min(chunk, count - index * chunk) }, (_, each) =>
      textOf(index * chunk + each),
    );
    await place.publish(texts);
    if (index === firstKill || index === secondKill) killing = killing.then(kill);
    if (index === restart) {
      await killing;
      restartedAt = handled();
      await place.restartServer();
    }
  }
  await killing;
  await untilAll(record, count);
  const lines = linesOf(record);
  const unique = new Set(lines);
  const strange = lines.filter((line) => !/^n\d{7}$/.test(line));
  if (strange.length > 0) throw new Error(`the function got something else: ${strange[0]}`);
  return {
    events: count,
    lost: count - unique.size,
    duplicates: lines.length - unique.size,
    seconds: Math.round((performance.now() - begunMs) / 100) / 10,
    killedAt,
    restartedAt,
  };
}

async function begin(platform: RunningPlatform, place: EventPlace, record: string): Promise<void> {
  await deploy(platform, "recorder", RECORDER, { spec: { environment: { RECORD: record }, instanceConcurrency: 50 } });
  for (const [name, value] of Object.entries(place.secrets)) await put(platform, `secrets/${name}`, { value });
  const { kind, settings, trigger } = place;
  await put(platform, "triggers/t", { function: "recorder", kind, settings, ...trigger });
  const deadlineMs = performance.now() + 60_000;
  for (;;) {
    const { text } = await manage(platform, "GET", "/v1/namespaces/default/triggers/t");
    if (/"state":\s*"connected"/.test(text)) return;
    if (performance.now() > deadlineMs) throw new Error(`the trigger does not connect: ${text}`);
    await sleep(100);
  }
}

async function put(platform: RunningPlatform, path: string, body: unknown): Promise<void> {
  const answer = await manage(platform, "PUT", `/v1/namespaces/default/${path}`, body);
  if (answer.status >= 300) throw new Error(`${path} was answered ${answer.status}: ${answer.text}`);
}

/** Waits until it holds, or for as long as an event may take; what comes of that is counted at the end. */
async function until(holds: () => boolean): Promise<void> {
  const deadlineMs = performance.now() + STILL_MS_MAX;
  while (!holds() && performance.now() < deadlineMs) await sleep(20);
}

/** Waits for every event, or until none has come for long; then a little longer, for duplicates. */
async function untilAll(record: string, count: number): Promise<void> {
  let unique = 0;
  for (let lastMs = performance.now(); performance.now() - lastMs < STILL_MS_MAX;) {
    const now = new Set(linesOf(record)).size;
    if (now >= count) break;
    if (now > unique) lastMs = performance.now();
    unique = now;
    await sleep(Math.min(1_000, Math.max(50, count / 100)));
  }
  await sleep(1_000);
}

/** What the function has written, without a line that a kill has cut off. */
function linesOf(record: string): readonly string[] {
  const text = readFileSync(record, "utf8");
  return text
    .slice(0, text.lastIndexOf("\n") + 1)
    .split("\n")
    .slice(0, -1);
}

function textOf(index: number): string {
  return `n${String(index).padStart(7, "0")}`;
}
