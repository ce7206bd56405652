import type { LogView, Page } from "../core/api.ts";
import { functionPath, namespacePath } from "./address.ts";
import { withQuery } from "./client.ts";
import type { Session } from "./command.ts";
import { CliFailure } from "./failure.ts";
import type { FunctionRef } from "../core/function.ts";
import { serverSentEvents } from "./stream.ts";
import type { Paint } from "./terminal.ts";
import { withoutControls } from "./terminal.ts";

export interface LogQuery {
  /** RFC 3339. */
  readonly since?: string | undefined;
  readonly activation?: string | undefined;
  readonly version?: number | undefined;
  readonly limit?: number | undefined;
}

/** Waits between attempts to reconnect, in milliseconds; the last one repeats. */
const RECONNECT_MS = [100, 250, 500, 1000, 2000, 5000] as const;

/** What is stored, oldest first. */
export async function readLogs(session: Session, ref: FunctionRef, query: LogQuery): Promise<readonly LogView[]> {
  const path = withQuery(functionPath(session, ref, "/logs"), { ...query });
  const page = await session.client.json<Page<LogView>>("GET", path);
  return inOrder(page.items);
}

/** What one invocation wrote, oldest first. */
export async function readActivationLogs(session: Session, id: string): Promise<readonly LogView[]> {
  const path = namespacePath(session, `/activations/${encodeURIComponent(id)}/logs`);
  return inOrder((await session.client.json<Page<LogView>>("GET", path)).items);
}

/**
 * Hands over each line as it is written, until the signal aborts. Reconnects when the connection breaks and goes on after the last line.
 * @throws CliFailure when the first connection fails, or a later one for a reason that time does not mend
 */
export async function followLogs(
  session: Session,
  ref: FunctionRef,
  options: { readonly query: LogQuery; readonly signal: AbortSignal; readonly each: (log: LogView) => void },
): Promise<void> {
  const startedAt = new Date(session.io.clock.nowMs()).toISOString();
  let last: string | null = null;
  let failures = 0;
  let connected = false;
  while (!options.signal.aborted) {
    try {
      // Until the first line there is no id to go on from; then the time of the start stands in for it.
      const since = options.query.since ?? (connected ? startedAt : undefined);
      const path = withQuery(functionPath(session, ref, "/logs"), { ...options.query, since, follow: "true" });
      const response = await session.client.send({
        method: "GET",
        path,
        headers: { accept: "text/event-stream", ...(last === null ? {} : { "last-event-id": last }) },
        signal: options.signal,
      });
      if ((response.statusCode ?? 0) >= 400) throw await session.client.failure(response);
      if (failures > 0) session.output.note("connected again");
      connected = true;
      failures = 0;
      for await (const event of serverSentEvents(response)) {
        if (event.event !== "log") continue;
        last = event.id ?? last;
        options.each(JSON.parse(event.text) as LogView);
      }
    } catch (thrown) {
      if (options.signal.aborted) return;
      if (!connected || !mayPass(thrown)) throw thrown;
    }
    if (failures === 0) session.output.note("connection lost, trying again");
    const delayMs = RECONNECT_MS[Math.min(failures, RECONNECT_MS.length - 1)] ?? 0;
    failures++;
    await session.io.sleep(delayMs, options.signal).catch(() => {});
  }
}

/** A line for people: time, version, the end of the activation's id, stream, text. */
export function renderLog(
  log: LogView,
  look: { readonly paint: Paint; readonly isTerminal: boolean; readonly withVersion: boolean },
): string {
  const { paint } = look;
  const time = look.isTerminal ? localTime(log.time) : log.time;
  const activation = look.isTerminal ? (log.activationId ?? "").slice(-8).padEnd(8) : (log.activationId ?? "-");
  const text = look.isTerminal ? withoutControls(log.line) : log.line;
  const head = [time, ...(look.withVersion ? [`v${log.version}`] : []), activation].join("  ");
  switch (log.stream) {
    case "stdout":
      return `${paint("dim", head)}  ${paint("dim", "out  ")}  ${text}`;
    case "stderr":
      return `${paint("dim", head)}  ${paint("red", "err  ")}  ${text}`;
    case "platform":
      return `${paint("dim", head)}  ${paint("cyan", "koine")}  ${paint("cyan", text)}`;
    default:
      return log.stream satisfies never;
  }
}

function inOrder(logs: readonly LogView[]): readonly LogView[] {
  return logs.toSorted((a, b) => a.sequence - b.sequence);
}

function mayPass(thrown: unknown): boolean {
  if (!(thrown instanceof CliFailure)) return true;
  return thrown.fault === "platform" || thrown.code === "too-many-requests";
}

function localTime(time: string): string {
  const at = new Date(time);
  const two = (part: number): string => String(part).padStart(2, "0");
  const ms = String(at.getMilliseconds()).padStart(3, "0");
  return `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}.${ms}`;
}
